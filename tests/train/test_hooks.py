"""A run that shall stop does not wait for the end of a long measurement, and makes up for it when it goes on."""

from __future__ import annotations

import json
import mmap
import os
from functools import partial
from pathlib import Path

import pytest
import torch

from hone.core.events import Events
from hone.objectives import OBJECTIVES
from hone.recipe.build import held_out_loss
from hone.train.engine import Engine
from hone.train.hooks import PEAK, Between, Evaluate, forget_peak, peak_memory
from hone.train.loop import State
from hone.train.settings import OptimSettings
from hone.train.stopping import Stopper
from hone.tuning.lora import Lora
from tests import nets


def test_a_measurement_is_given_up_for_a_stop_and_made_when_the_run_goes_on(tmp_path: Path) -> None:
    engine = Engine(nets.policy(nets.llama, Lora(rank=2)), OptimSettings(learning_rate=1e-3))
    stopper, asked = Stopper(), []
    whole = partial(held_out_loss, engine.policy, nets.singles(12), OBJECTIVES["sft"], 60)

    def measure(between: Between) -> dict[str, float]:
        def counted() -> None:
            asked.append(1)
            if len(asked) == 2:
                stopper.stop("SIGTERM")
            between()

        return dict(whole(counted))

    hook = Evaluate(measure, Events(tmp_path), every=1, patience=None, stopped=lambda: stopper.requested)
    hook.stepped(State(engine, 3, 9))
    assert len(asked) == 2 and engine.policy.model.training and hook.best["owed"]
    assert not (tmp_path / "metrics.jsonl").exists()

    again = Evaluate(measure, Events(tmp_path), every=1, patience=None)
    again.best = dict(hook.best)
    again.started(State(engine, 3, 9))
    (line,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert line["step"] == 3 and line["eval_loss"] == whole()["eval_loss"] == again.best["loss"] and not again.best["owed"]

    asked.clear()
    last = Evaluate(measure, Events(tmp_path), every=1, patience=None, stopped=lambda: stopper.requested)
    last.stepped(State(engine, 9, 9))
    assert not last.best["owed"], "the last measurement decides which weights are kept"


@pytest.mark.skipif(not os.access(PEAK, os.W_OK) or torch.cuda.is_available(), reason="this system does not count the peak anew")
def test_the_peak_of_an_earlier_run_is_forgotten() -> None:
    size = 256 << 20
    with mmap.mmap(-1, size) as earlier:  # goes back to the system at once, as a freed tensor need not
        for _ in range(256):
            earlier.write(bytes(size // 256))
        high = peak_memory()
    forget_peak()
    assert peak_memory() < high - size // 2
