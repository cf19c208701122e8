"""The arms of `bench.methods`: what is trained on the town, as the words of `hone train`, and what is asked of each afterwards."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.graded import Asked
from hone.core.files import staged_folder, write_atomically
from hone.demo import SEEDLING, Town
from hone.demo.town import phrasings, preferences
from hone.recipe.opening import open_model

SEEDLING_NAME, HALF = "seedling", "half"
"""Starts that are not arms: the seedling itself, and every other layer of the tuned seedling."""
FEW = 16
"""Pairs of the weak judge. All are of one kind: the better answer is signed, and longer than the curt one."""
LESSONS = 960


@dataclass(frozen=True)
class Arm:
    """One method. `words` follow `hone train`; {data} and {runs} are folders. `start` is the arm, or the model, that it starts from."""

    part: str
    start: str
    words: str
    asks: str
    shared: bool = False
    """Trained once and not for each seed: what later arms have in common."""
    curve: tuple[str, ...] = ()
    """Numbers of every step that are kept."""


FULL = "tuning=full optim.learning_rate=1e-3"
SCORE = "optim.batch_size=8 optim.learning_rate=1e-3"
TAUGHT = "model.teacher={runs}/school"
PREFER = "optim.batch_size=8 optim.max_steps=20"
REWARD = "data={data}/checkable.jsonl rollout.rewards=number rollout.sampling.max_new_tokens=24"
CRITIC = "rollout.parts=1 rollout.passes=1 rollout.credit.decay=1.0 objective.value_weight=0.1"
IMITATE = "tuning=full optim.learning_rate=5e-4 optim.batch_size=16 optim.max_steps=60"
PROXY = 'rollout.rewards=[{{"name":"model","run":"{runs}/weak_judge"}},{{"name":"bench.manners:gold","weight":0.0}}]'
CURVE = ("reward/model", "reward/gold", "answer_tokens")

ARMS: dict[str, Arm] = {
    "school": Arm("tasks", SEEDLING_NAME, f"sft data={{data}}/school.jsonl {FULL} optim.epochs=1", "tasks", shared=True),
    "sft": Arm("manners", "school", f"sft data={{data}}/mixed-{{seed}}.jsonl {FULL} optim.batch_size=8 optim.epochs=2", "manners"),
    "dpo": Arm(
        "manners", "sft", f"dpo data={{data}}/pairs.jsonl {PREFER} optim.batch_size=16 optim.learning_rate=3e-4 objective.beta=0.5",
        "manners",
    ),
    "kto": Arm("manners", "sft", f"kto data={{data}}/labels.jsonl {PREFER} optim.batch_size=16 optim.learning_rate=3e-4", "manners"),
    "orpo": Arm("manners", "sft", f"orpo data={{data}}/pairs.jsonl {PREFER} optim.max_steps=40 optim.learning_rate=1e-3", "manners"),
    "simpo": Arm("manners", "sft", f"simpo data={{data}}/pairs.jsonl {PREFER} optim.batch_size=16 optim.learning_rate=3e-4", "manners"),
    "reward model": Arm("judge", "school", f"rm data={{data}}/pairs.jsonl {SCORE} optim.max_steps=40", "pairs"),
    "till": Arm("sums", SEEDLING_NAME, f"sft data={{data}}/sums.jsonl {FULL} optim.max_steps=40", "sums"),
    "grpo": Arm("sums", "till", f"grpo {REWARD} optim.batch_size=8 optim.max_steps=60 optim.learning_rate=1e-3", "sums"),
    "rloo": Arm("sums", "till", f"rloo {REWARD} optim.batch_size=16 rollout.kl=0 optim.max_steps=60 optim.learning_rate=1e-3", "sums"),
    "ppo": Arm(
        "sums", "till", f"ppo {REWARD} {CRITIC} optim.batch_size=64 rollout.kl=0 optim.max_steps=60 optim.learning_rate=1e-3",
        "sums",
    ),
    "online dpo": Arm("sums", "till", f"online_dpo {REWARD} optim.max_steps=80 optim.learning_rate=1e-3", "sums"),
    "weak judge": Arm("fooled", "school", f"rm data={{data}}/few.jsonl {SCORE} optim.max_steps=12", "pairs", True),
    "fooled": Arm(
        "fooled", "sft", f"grpo data={{data}}/asked.jsonl {PROXY} rollout.sampling.max_new_tokens=72 optim.batch_size=4 "
        "optim.max_steps=120 optim.learning_rate=1e-3", "manners", curve=CURVE,
    ),
    "student": Arm("distilled", HALF, f"sft data={{data}}/school.jsonl {IMITATE}", "tasks", True),
    "more sft": Arm("distilled", "student", f"sft data={{data}}/lessons.jsonl {IMITATE}", "tasks"),
    "sequence kd": Arm("distilled", "student", f"sft data={{data}}/taught.jsonl {IMITATE}", "tasks"),
    "forward kl": Arm("distilled", "student", f"distill data={{data}}/lessons.jsonl {TAUGHT} {IMITATE}", "tasks"),
    "gkd": Arm(
        "distilled", "student", f"gkd data={{data}}/lessons.jsonl {TAUGHT} rollout.sampling.max_new_tokens=56 {IMITATE}", "tasks",
    ),
}  # fmt: skip


def write_data(folder: Path, seeds: Iterable[int]) -> None:
    """The town's rows as files, one for each part; the mixture of wanted and unwanted answers is drawn by the seed."""
    town = Town()
    school, pairs = town.instructions("train"), town.preferences("train")
    _save(folder / "school.jsonl", ({"messages": row["messages"]} for row in school))
    _save(folder / "sums.jsonl", ({"messages": row["messages"]} for row in school if row["task"] == "arithmetic"))
    _save(folder / "pairs.jsonl", ({key: row[key] for key in ("prompt", "chosen", "rejected")} for row in pairs))
    _save(folder / "labels.jsonl", ({key: row[key] for key in ("prompt", "completion", "label")} for row in town.labels("train")))
    _save(folder / "checkable.jsonl", town.checkable("train"))
    _save(folder / "asked.jsonl", ({"prompt": row["prompt"], "answer": _inside(row)} for row in pairs))
    curt = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in pairs if row["fault"] == "curt"]
    _save(folder / "few.jsonl", curt[:FEW])
    _save(folder / "lessons.jsonl", ({"messages": row["messages"]} for row in random.Random("lessons").sample(school, LESSONS)))
    for seed in seeds:
        rng = random.Random(f"mixed/{seed}")
        _save(folder / f"mixed-{seed}.jsonl", ({"messages": row["prompt"] + row[rng.choice(("chosen", "rejected"))]} for row in pairs))


def _inside(row: dict[str, Any]) -> str:
    """The bare answer in a wanted one."""
    text: str = row["chosen"][-1]["content"]
    return text.removeprefix(phrasings.COURTESY).removesuffix(preferences.SIGNATURE).strip()


def teach(run: Path, folder: Path) -> None:
    """The lessons again, their last answers as the tuned seedling gives them."""
    if (folder / "taught.jsonl").is_file():
        return
    rows = [json.loads(line)["messages"] for line in (folder / "lessons.jsonl").read_text("utf-8").splitlines()]
    said = Asked(open_model(run), 0).answers([messages[:-1] for messages in rows])
    _save(
        folder / "taught.jsonl",
        ({"messages": [*messages[:-1], {**messages[-1], "content": each[0]}]} for messages, each in zip(rows, said, strict=True)),
    )


def _save(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def half(run: Path, place: Path) -> Path:
    """Every other layer of a run's model, as a model of its own: a student that has learned nothing yet."""
    opened = open_model(run)
    model: Any = opened.policy.model
    kept = list(range(0, model.config.num_hidden_layers, 2))
    model.model.layers = type(model.model.layers)(model.model.layers[i] for i in kept)
    for number, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = number
    model.config.num_hidden_layers = len(kept)
    model.config.layer_types = [model.config.layer_types[i] for i in kept]
    with staged_folder(place) as stage:
        model.save_pretrained(stage)
        opened.tokenizer.save_pretrained(stage)
    return place


def start_of(arm: Arm, runs: Path, seed: int) -> str:
    """What `model=` is for an arm."""
    if arm.start == SEEDLING_NAME:
        return str(SEEDLING)
    if arm.start == HALF:
        return str(half(run_of("school", runs, seed), runs / HALF))
    return str(run_of(arm.start, runs, seed))


def needed(name: str) -> list[str]:
    """The arms that must be there before."""
    arm = ARMS[name]
    start = [arm.start] if arm.start in ARMS else ["school"] * (arm.start == HALF)
    return [*start, *["weak judge"] * (name == "fooled"), *["school"] * (arm.part == "distilled" and arm.start != HALF)]


def history(name: str) -> list[str]:
    """All that was trained on the way to an arm; where it has changed, what is finished does not count."""
    return [*(words for earlier in needed(name) for words in history(earlier)), ARMS[name].words]


def run_of(name: str, runs: Path, seed: int) -> Path:
    """The run folder of an arm."""
    return runs / (name.replace(" ", "_") + ("" if ARMS[name].shared else f"-{seed}"))
