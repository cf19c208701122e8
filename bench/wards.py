"""The wards of the doctor's examination: data of the town, drawn by seed, and runs on it that are whole but for what a case spoils."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.demo import Town

Row = Mapping[str, Any]
SHORT = ("facts", "arithmetic", "sentiment")
"""Tasks whose rows have about thirty tokens."""
REWARDS = '''
import re


def letters(answer, row):
    """A bad judge, who likes one letter."""
    return 10.0 * answer.count("o") / max(10, len(answer))


def close(answer, row):
    """A good judge: how near the last number of the answer is to the right one."""
    found = re.findall(r"[0-9]+", answer)
    return 1.0 / (1.0 + abs(int(found[-1][:6]) - int(row["answer"])) / 10.0) if found else 0.0


def content(answer, row):
    """A judge that is always content."""
    return 0.5
'''


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of run. `must` are the findings of which at least one has to be made, `may` those that are true as well."""

    name: str
    make: Callable[[Ward], dict[str, Any]]
    must: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    curable: bool = False
    """Whether a change of settings can lower its held-out loss."""


class Ward:
    """Draws the data of one seed and writes it into a folder; seed 0 is for development and shares no row with the others."""

    def __init__(self, folder: Path, seed: int, *, model: Path, starter: Path) -> None:
        self.folder, self.seed, self.model, self.starter = folder, seed, model, starter
        self.rng = random.Random(f"ward {seed}")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "judges.py").write_text(REWARDS)

    def pool(self, rows: list[Any], *tasks: str) -> list[Any]:
        """The rows of some tasks that this seed may use, each once and shuffled: a third for development, the rest for the examination."""
        kept = list({json.dumps(_columns(row), sort_keys=True): row for row in rows if not tasks or row["task"] in tasks}.values())
        random.Random("third").shuffle(kept)
        third = len(kept) // 3
        mine = kept[:third] if self.seed == 0 else kept[third:]
        self.rng.shuffle(mine)
        return mine

    def talks(self, *tasks: str) -> list[Row]:
        """Conversations of the town."""
        return self.pool(Town().instructions("train"), *tasks)

    def write(self, name: str, rows: list[Any]) -> str:
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(_columns(row), ensure_ascii=False) + "\n" for row in rows))
        return str(path)

    def run(self, name: str, train: list[Any], aside: list[Any], **sections: Any) -> dict[str, Any]:
        """A run on some rows, with the settings that suit the seedling where none are given."""
        raw: dict[str, Any] = {
            "model": {"name": str(self.model)},
            "data": {"train": self.write(f"{name}-train", train), "held_out": self.write(f"{name}-aside", aside)},
            "tuning": {"method": "lora", "rank": 16},
            "objective": {"name": "sft"},
            "optim": {"batch_size": 8, "max_steps": 32},
            "output": {"save_every": 100_000},
            "hardware": {"token_budget": 2048, "threads": 1, "dtype": "float32"},
            "seed": 100 + self.seed,
        }
        sections = {"tuning": raw["tuning"], **sections}
        if sections["tuning"]["method"] in ("lora", "dora"):
            sections["tuning"] = {"tokens": [], **sections["tuning"]}  # control tokens stay as they are
        for section, values in sections.items():
            raw[section] = values if section in ("tuning", "objective") else {**raw.get(section, {}), **values}
        steps = raw["optim"]["max_steps"]
        raw["eval"] = {"every": max(1, -(-steps // 6)), **raw.get("eval", {})}
        return raw

    def taught(
        self, *, rows: int = 160, aside: int = 40, tasks: tuple[str, ...] = SHORT, name: str = "mixed", **sections: Any
    ) -> dict[str, Any]:
        """Short conversations, some to learn and some aside."""
        found = self.talks(*tasks)
        return self.run(name, found[:rows], found[rows : rows + aside], **sections)

    def reinforced(self, name: str, rewards: list[Any], *, rollout: Mapping[str, Any] | None = None, **optim: Any) -> dict[str, Any]:
        """A short run of GRPO from a model that has learned to answer sums."""
        asked = self.pool(Town().checkable("train"), "arithmetic")
        prompts = [{"prompt": row["prompt"][0]["content"], "answer": row["answer"]} for row in asked]
        drawn = {
            "prompts": self.write(f"{name}-prompts", prompts[:64]),
            "rewards": rewards,
            "group_size": 6,
            "sampling": {"max_new_tokens": 24},
        }
        return {
            "model": {"name": str(self.starter)},
            "data": {"held_out": self.write(f"{name}-kept", prompts[64:80])},
            "rollout": {**drawn, **(rollout or {})},
            "tuning": {"method": "lora", "rank": 8, "tokens": []},
            "objective": {"name": "grpo"},
            "optim": {"batch_size": 4, "max_steps": 10, "learning_rate": 2e-4, "schedule": "constant", "warmup_ratio": 0.0, **optim},
            "eval": {"every": 5},
            "output": {"save_every": 100_000},
            "hardware": {"token_budget": 2048, "threads": 1, "dtype": "float32"},
            "seed": 100 + self.seed,
        }

    @property
    def judge(self) -> str:
        return str(self.folder / "judges.py")


def _columns(row: Row) -> Row:
    return {key: row[key] for key in row if key in ("messages", "text", "prompt", "chosen", "rejected", "answer")}


def starter(ward: Ward) -> dict[str, Any]:
    """The model that answers sums, from which reinforcement starts."""
    rows = ward.talks("arithmetic")
    optim = {"learning_rate": 4e-4, "max_steps": 24}
    return ward.run("starter", rows[:128], rows[128:160], tuning={"method": "full"}, optim=optim)


def masked(rows: list[Row], kept: int) -> list[Row]:
    """All but some rows say that nothing of them is to be learned."""
    return [row if i < kept else {**row, "messages": [{**said, "weight": 0} for said in row["messages"]]} for i, row in enumerate(rows)]
