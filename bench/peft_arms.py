"""The arms of `bench.methods_peft`, one of each tuning method, and one training of an arm in a process of its own."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from bench import common
from bench.peft_tasks import BUDGET, TASKS, Task, evened, read_task, scores, surprise
from hone.core.config import parse
from hone.core.files import write_atomically
from hone.data.offline import Offline
from hone.demo import SEEDLING
from hone.models.policy import Policy
from hone.models.settings import HardwareSettings, ModelSettings
from hone.objectives import OBJECTIVES
from hone.plan.advise import learning_rate
from hone.recipe.build import load_base, tuned
from hone.train.engine import Engine
from hone.train.loop import train
from hone.train.settings import OptimSettings
from hone.tuning import METHODS, Tuning
from hone.tuning.base import Untouched
from hone.tuning.shapes import Shapes

STEPS, TRIAL, BATCH, WIDTH = 24, 12, 8, 256
"""Optimiser steps, those of a trial of a rate, rows of each, and the seedling's hidden size, for which the adviser scales a rate."""
BASE = "base"
"""The seedling as it is."""
FEW = (100, 500, 1000)
"""Examples of the low-data rows. Each is seen once at least, and no training is shorter than `STEPS`."""
Job = dict[str, Any]
"""What to train: arm, task, seed, learning rate, examples (None: all), part of the tables, and what it is made of."""


@dataclass(frozen=True)
class Arm:
    """A method with settings; what is not named here is the method's default."""

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    few: bool = False
    """Whether it is also trained on few examples."""
    other: float = 1 / 3
    """Factor on the adviser's learning rate that is tried beside it."""

    def tuning(self, out: Path, seed: int) -> Tuning:
        """Fusion mixes the Pfeiffer adapters that the same seed trained on each task."""
        told: dict[str, Any] = dict(self.settings)
        if self.method == "fusion":
            told["adapters"] = [str(place) for task in TASKS if (place := adapter_at(out, task, seed)).is_dir()]
        return parse(METHODS[self.method], told, section="tuning")


ARMS: dict[str, Arm] = {
    "full": Arm("full", other=3.0),
    "freeze (last 2 blocks)": Arm("freeze", other=3.0),
    "BitFit": Arm("bitfit", other=3.0),
    "LoRA": Arm("lora", few=True),
    "rsLoRA": Arm("lora", {"rslora": True}),
    "LoRA+": Arm("lora", {"b_rate": 16.0}),
    "DoRA": Arm("dora"),
    "PiSSA": Arm("lora", {"init": "pissa"}),
    "OLoRA": Arm("lora", {"init": "olora"}),
    "AdaLoRA": Arm("adalora", {"every": 4}),
    "IA3": Arm("ia3", other=3.0),
    "prefix": Arm("prefix", few=True, other=3.0),
    "prefix, reparametrised": Arm("prefix", {"encoder": 256}),
    "P-tuning v2": Arm("ptuning_v2", {"start": "random"}, other=3.0),
    "prompt": Arm("prompt", other=3.0),
    "P-tuning v1 (MLP)": Arm("ptuning"),
    "P-tuning v1 (LSTM)": Arm("ptuning", {"encoder": "lstm"}),
    "Houlsby": Arm("houlsby"),
    "Pfeiffer": Arm("pfeiffer", few=True),
    "parallel adapter": Arm("parallel_adapter"),
    "AdapterDrop (first 2)": Arm("adapterdrop", {"skip": 2}),
    "AdapterDrop (random)": Arm("adapterdrop"),
    "MAM": Arm("mam"),
    "UniPELT": Arm("unipelt", few=True),
    "UniPELT, no gates": Arm("unipelt", {"gate": False}, few=True),
    "AdapterFusion": Arm("fusion"),
    "LoHa (by peft)": Arm("peft", {"kind": "loha", "options": {"r": 8, "target_modules": "all-linear"}}),
}


def advised(name: str) -> float:
    """The learning rate that hone's adviser gives this method on the seedling."""
    return float(learning_rate(METHODS[ARMS[name].method].about.learning_rate, WIDTH).value)


def made_of(name: str, rows: int | None, part: str) -> dict[str, Any]:
    """What a training is made of; where it has changed, what is finished does not count."""
    steps = TRIAL if part == "rates" else STEPS if rows is None else max(STEPS, math.ceil(rows / BATCH))
    return {"steps": steps, "batch": BATCH, "settings": dict(ARMS[name].settings) if name in ARMS else {}}


def place_of(job: Job, out: Path) -> Path:
    """The file of a job's result."""
    name = "".join(c if c.isalnum() else "_" for c in job["arm"])
    return out / "results" / f"{job['part']}-{job['task']}-{name}-{job['rows'] or 'all'}-{job['rate']:g}-{job['seed']}.json"


def adapter_at(out: Path, task: str, seed: int) -> Path:
    """Where the Pfeiffer adapter of a task is kept for fusion."""
    return out / "adapters" / f"pfeiffer-{task}-{seed}"


def work(job: Job, out: str) -> None:
    """Train and measure; the result is written where `place_of` says. Runs in a child process."""
    folder = Path(out)
    found = job | measured(job, folder)
    place = place_of(job, folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, json.dumps(found))


def measured(job: Job, out: Path) -> dict[str, Any]:
    """What one training came to. Memory is what it took beyond the imports and the data."""
    task = read_task(out / "data", job["task"])
    floor = common.peak_memory()
    loaded = load_base(ModelSettings(name=str(SEEDLING)), HardwareSettings(dtype="float32", device="cpu", threads=1))
    tuning = Untouched() if job["arm"] == BASE else ARMS[job["arm"]].tuning(out, job["seed"])
    share = tuning.count(Shapes.of(loaded.model)) / loaded.model.num_parameters()
    policy = tuned(loaded, tuning, seed=job["seed"])
    began = time.process_time()
    tokens = learn(policy, job, task) if job["arm"] != BASE else 0
    spent = time.process_time() - began
    found = {"trainable": share, "tokens": tokens, "cpu_seconds": spent, "memory": common.peak_memory() - floor}
    if job["arm"] == "Pfeiffer" and (job["part"] == "table" or job["rate"] == advised("Pfeiffer")):
        tuning.save(policy.model, adapter_at(out, job["task"], job["seed"]), base=loaded.base)
    if job["part"] == "rates":
        return found | {"aside": surprise(policy, task.aside)}
    return found | {"scores": scores(policy, task), "prose": surprise(policy, task.prose)}


def learn(policy: Policy, job: Job, task: Task) -> int:
    """Supervised fine-tuning; returns how many tokens were computed. The seed chooses few examples, their order, and the start."""
    rows = task.learned if job["rows"] is None else Random(f"few/{job['seed']}").sample(task.learned, job["rows"])
    groups = [(row,) for row in (evened(rows) if len(task.asked[0]) > 1 else rows)]
    source = Offline(groups, step_groups=BATCH, budget=BUDGET, max_steps=job["made"]["steps"], seed=job["seed"])
    engine = Engine(policy, OptimSettings(learning_rate=job["rate"], batch_size=BATCH, warmup_ratio=0.1))
    return train(engine, source, OBJECTIVES["sft"].bind(), (), seed=job["seed"]).tokens
