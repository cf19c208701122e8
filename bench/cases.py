"""The kinds of runs that the doctor is examined with: what is wrong in each, and what it has to say."""

from __future__ import annotations

from typing import Any

from bench.wards import Case, Ward, masked
from hone.demo import SEEDLING, Town

LORA: dict[str, Any] = {"method": "lora", "rank": 16}
FULL: dict[str, Any] = {"method": "full"}


def _memorised(rows: int, tuning: dict[str, Any], rate: float, steps: int) -> Any:
    """Facts that nobody could know, few of them and many times: the rest cannot be guessed from them."""

    def make(ward: Ward) -> dict[str, Any]:
        facts = ward.pool(Town().new_facts("train"))
        known = {row["fact"] for row in facts[:rows]}
        aside = [row for row in facts[rows:] if row["fact"] not in known][:40]
        return ward.run("few", facts[:rows], aside, tuning=tuning, optim={"learning_rate": rate, "max_steps": steps})

    return make


def _taught(**sections: Any) -> Any:
    return lambda ward: ward.taught(**sections)


FEELINGS = ("positive", "negative", "neutral")


def _headlines(wrong: float, steps: int = 36) -> Any:
    """Headlines and their tone, by the seedling, since the sprout is too small for them; a share of them with another tone."""

    def make(ward: Ward) -> dict[str, Any]:
        rows = []
        for row in ward.talks("sentiment"):
            asked, answer = row["messages"]
            others = [feeling for feeling in FEELINGS if feeling != answer["content"]]
            said = ward.rng.choice(others) if ward.rng.random() < wrong else answer["content"]
            rows.append({"messages": [asked, {"role": "assistant", "content": said}]})
        run = ward.run("headlines", rows[:96], rows[96:144], optim={"max_steps": steps})
        return {**run, "model": {"name": str(SEEDLING)}, "tuning": {"method": "lora", "rank": 16}}

    return make


def _leaky(share: float) -> Any:
    def make(ward: Ward) -> dict[str, Any]:
        rows = ward.talks("facts", "arithmetic", "sentiment")
        seen = round(40 * share)
        return ward.run("leaky", rows[:160], rows[:seen] + rows[160 : 200 - seen], optim={"max_steps": 32})

    return make


def _endless(length: int) -> Any:
    """Answers that the length limit cuts before their end: that an answer ends is never learned, or seldom."""

    def make(ward: Ward) -> dict[str, Any]:
        talks = [row for row in ward.talks("contracts", "facts") if len(row["messages"][-1]["content"]) > 30]
        return ward.run("endless", talks[:160], talks[160:200], data={"max_length": length, "overflow": "truncate", "skip_bad": True})

    return make


def _silenced(kept: int) -> Any:
    def make(ward: Ward) -> dict[str, Any]:
        rows = ward.talks("facts", "arithmetic", "sentiment")
        return ward.run("silenced", masked(rows[:160], kept), rows[160:200], optim={"max_steps": 16})

    return make


def _cut(ward: Ward) -> dict[str, Any]:
    """The limit is shorter than most questions: their answers are gone, and so are the rows."""
    facts = ward.talks("facts")
    rows = ward.talks("contracts")[:120] + facts[:12]
    ward.rng.shuffle(rows)
    return ward.run("cut", rows, facts[12:44], data={"max_length": 36, "skip_bad": True}, optim={"max_steps": 16})


def _preferences(ward: Ward) -> dict[str, Any]:
    pairs = ward.pool(Town().preferences("train"))
    return ward.run("pairs", pairs[:80], pairs[80:100], objective={"name": "dpo"}, optim={"max_steps": 20})


def _documents(ward: Ward) -> dict[str, Any]:
    texts = [{"text": one.text[:300]} for one in Town(seed=8).documents(held_out=True)]
    ward.rng.shuffle(texts)
    return ward.run("documents", texts[:96], texts[96:120], objective={"name": "cpt"}, optim={"max_steps": 24})


def _reinforced(reward: str | None, *, alone: bool = False, rollout: dict[str, Any] | None = None, **optim: Any) -> Any:
    def make(ward: Ward) -> dict[str, Any]:
        names = ["close"] if reward is None else [reward] if alone else ["close", reward]
        return ward.reinforced(reward or "close", [f"{ward.judge}:{name}" for name in names], rollout=rollout, **optim)

    return make


NARROW: dict[str, Any] = {"tasks": ("sentiment",), "rows": 90}
FAST: dict[str, Any] = {"learning_rate": 1e-2, "max_steps": 16}
SICK = [
    Case("12 new facts, 40 passes", _memorised(12, LORA, 6e-3, 48), ("H001",), ("H017", "H003"), curable=True),
    Case("16 new facts, all weights", _memorised(16, FULL, 1e-3, 48), ("H001",), ("H017",), curable=True),
    Case("rate 12 times too high", _taught(optim={"learning_rate": 5e-2}), ("H003", "H005"), ("H017",), curable=True),
    Case(
        "all weights, rate 50 times too high",
        _taught(tuning=FULL, optim={"learning_rate": 2e-2}),
        ("H003", "H005"),
        ("H017",),
        curable=True,
    ),
    Case("rate 100 times too low", _taught(optim={"learning_rate": 4e-5}), ("H004",), ("H002",), curable=True),
    Case("all weights, rate 100 times too low", _taught(tuning=FULL, optim={"learning_rate": 4e-6}), ("H004",), ("H002",), curable=True),
    Case("4 steps", _taught(optim={"max_steps": 4}), ("H006",), ("H002",), curable=True),
    Case("a third of a pass", _taught(rows=160, optim={"max_steps": 6}), ("H006",), ("H002",), curable=True),
    Case(
        "rank 1 in one layer",
        _taught(tuning={"method": "lora", "rank": 1, "targets": ["q_proj"], "layers": [0]}),
        ("H007",),
        ("H002",),
        curable=True,
    ),
    Case("35 % of the labels wrong", _headlines(0.35), ("H008",), ("H001",)),
    Case("all held-out rows are trained", _leaky(1.0), ("H009",)),
    Case("half of the answers cut before their end", _endless(32), ("H010",), ("H011", "H008")),
    Case("answers without an end", _endless(26), ("H010",), ("H011", "H008")),
    Case("95 % of the rows masked", _silenced(8), ("H011",), ("H001",)),
    Case("answers cut off", _cut, ("H011",), ("H001", "H010")),
    Case(
        "an adapter scaled to nothing",
        _taught(tuning={"method": "lora", "rank": 16, "alpha": 1e-8}, optim={"max_steps": 16}),
        ("H012",),
        curable=True,
    ),
    Case("a rate of next to nothing", _taught(optim={"learning_rate": 1e-12, "max_steps": 16}), ("H012", "H004"), ("H002",), curable=True),
    Case(
        "a rate that rises to the end",
        _taught(optim={"learning_rate": 6e-2, "warmup_ratio": 0.95, "max_steps": 40}),
        ("H005", "H003"),
        ("H017",),
        curable=True,
    ),
    Case("a judge who likes one letter", _reinforced("letters", **FAST), ("H013",), ("H014", "H017")),
    Case("steps of reinforcement too large", _reinforced("letters", alone=True, **FAST), ("H014",), ("H013", "H016", "H017")),
    Case(
        "one rollout for 16 steps",
        _reinforced(None, rollout={"passes": 4, "parts": 4}, max_steps=16, learning_rate=1e-3, batch_size=2),
        ("H015",),
        ("H014",),
    ),
    Case("a judge who is always content", _reinforced("content", alone=True), ("H016",)),
    Case("a judge nobody can please", _reinforced(None, rollout={"rewards": [{"name": "contains", "text": "Zanzibar"}]}), ("H016",)),
    Case(
        "all weights for one narrow task",
        _taught(**NARROW, tuning=FULL, optim={"learning_rate": 4e-3, "max_steps": 40}),
        ("H017",),
        ("H001", "H003"),
    ),
]
WELL = [
    Case("LoRA as advised", _taught()),
    Case("LoRA, half the rate", _taught(optim={"learning_rate": 2e-3, "max_steps": 40})),
    Case("LoRA, rank 8, a constant rate", _taught(tuning={"method": "lora", "rank": 8}, optim={"schedule": "constant"})),
    Case("DoRA", _taught(rows=128, tuning={"method": "dora", "rank": 8})),
    Case("all weights as advised", _taught(tuning=FULL)),
    Case("headlines only", _taught(**NARROW, optim={"max_steps": 28})),
    Case("sums only", _taught(tasks=("arithmetic",), optim={"max_steps": 32})),
    Case("facts only, cosine", _taught(tasks=("facts",), optim={"schedule": "cosine"})),
    Case("headlines, by the seedling", _headlines(0.0)),
    Case("documents", _documents),
    Case("preferences", _preferences),
    Case("sums, reinforced", _reinforced(None)),
]
