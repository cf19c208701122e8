"""Several LoRAs trained in one pass are, each, the run that it would be alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from hone.core.types import Origin, Sequence
from hone.data.batching import pack
from hone.data.joining import join
from hone.data.splitting import part
from hone.recipe import together
from hone.recipe.aside import sums_by_row
from hone.recipe.run import Wishes, prepare_run, train_run
from hone.recipe.settings import resolve
from hone.recipe.stores import Stores
from hone.train import checkpoint
from tests.conftest import Work
from tests.recipe.test_aside import QUIET, metrics, raw
from tests.recipe.test_pipeline import files  # noqa: F401  (a fixture)

ARMS: dict[str, dict[str, Any]] = {
    "small": {"tuning": {"rank": 2}, "optim": {"max_steps": 5, "batch_size": 8, "learning_rate": 0.01}, "seed": 1},
    "large": {"tuning": {"rank": 8, "alpha": 4, "targets": ["q_proj", "down_proj"]}, "seed": 2,
              "optim": {"max_steps": 7, "batch_size": 5, "learning_rate": 0.003, "schedule": "cosine", "clip": 0.1}},
    "odd": {"tuning": {"rank": 3, "rslora": True, "init": "pissa", "b_rate": 4.0}, "seed": 3,
            "optim": {"max_steps": 5, "batch_size": 8, "learning_rate": 0.02, "weight_decay": 0.1}},
}  # fmt: skip
"""They differ in rank, scale, targets, start, rate, schedule, clipping, decay, seed, order, batch and number of steps."""


def recipes(model: Path, data: Path, folder: Path, **more: Any) -> list[dict[str, Any]]:
    made = [raw(model, data, folder / name, **{**arm, **more}) for name, arm in ARMS.items()]
    return [one | {"hardware": {**one["hardware"], "token_budget": 300}} for one in made]


def joined(raws: list[dict[str, Any]], **wishes: Any) -> int:
    stores = Stores(shared=True)
    runs = [prepare_run(one, QUIET, stores) for one in raws]
    assert all(together.joinable(run) for run in runs)
    return together.train_runs(runs, [Wishes(**wishes) for _ in runs], stores, QUIET, print)


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_each_arm_is_its_solo_run(objective: str, model_folder: Path, data_file: Path, files: dict[str, Path], tmp_path: Path) -> None:  # noqa: F811
    data = data_file if objective == "sft" else files["preferences"]
    settings = {"objective": {"name": objective}}
    assert joined(recipes(model_folder, data, tmp_path / "joint", **settings)) == 0
    for one in recipes(model_folder, data, tmp_path / "solo", **settings):
        assert train_run(prepare_run(one, QUIET), Wishes()) == 0
    for name in ARMS:
        found = []
        for way in ("joint", "solo"):
            last = checkpoint.latest(tmp_path / way / name, tell=print)
            assert last is not None and (tmp_path / way / name / "adapter" / "adapter_config.json").is_file()
            found.append(checkpoint.read(last)[0])
        for key, tensor in found[1].items():
            if key.startswith("param/"):
                assert (found[0][key] - tensor).norm() <= 1e-5 * tensor.norm(), (name, key)
        for mine, theirs in zip(*(metrics(tmp_path / way / name) for way in ("joint", "solo")), strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_stopped_together_they_go_on_together_to_the_same_end(model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    assert joined(recipes(model_folder, data_file, tmp_path / "halves"), until=0.5) == 0
    assert not list((tmp_path / "halves").glob("*/adapter"))
    assert joined(recipes(model_folder, data_file, tmp_path / "halves")) == 0
    assert joined(recipes(model_folder, data_file, tmp_path / "whole")) == 0
    for name in ARMS:
        lines = [metrics(tmp_path / way / name) for way in ("halves", "whole")]
        assert len(lines[0]) == len(lines[1])
        for mine, theirs in zip(*lines, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-6)


def test_what_cannot_be_joined_stays_alone(model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    def may(**more: Any) -> bool:
        return together.may_join(resolve(raw(model_folder, data_file, tmp_path, **more)))

    assert may() and may(tuning={"init": "olora"}) and may(objective={"name": "dpo"})
    assert not may(tuning={"dropout": 0.1}) and not may(tuning={"method": "dora"}) and not may(tuning={"method": "full"})
    assert not may(objective={"name": "kto"}) and not may(objective={"name": "rm"}) and not may(tuning={"train": ["lm_head"]})


def test_batches_end_to_end_come_apart_as_they_were() -> None:
    rows = [[(Sequence([3, 4, 5, 6 + i], [0.0, 0.0, 1.0, 0.5], {"label": float(i)}, Origin("m", i)),)] * (1 + i) for i in range(3)]
    batches = [pack(groups) for groups in rows]
    whole, first = join(batches), 0
    for batch in batches:
        again = part(whole, first, first + batch.sequences)
        first += batch.sequences
        for name in ("tokens_T", "positions_T", "read_N", "target_N", "weight_N", "row_N", "last_S"):
            assert torch.equal(getattr(again, name), getattr(batch, name)), name
        assert again.segments == batch.segments and again.leaf_S == batch.leaf_S and torch.equal(again.facts["label"], batch.facts["label"])
    assert whole.weight_sum == sum(batch.weight_sum for batch in batches) and whole.sizes == (1,) * 6


def test_a_sweep_joins_what_it_may_and_says_so(work: Work, model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    settings = ["model=" + str(model_folder), "data=" + str(data_file), "output=" + str(tmp_path / "s"), "optim.max_steps=3",
                "optim.batch_size=2", "hardware.threads=1", "hardware.dtype=float32", "rank=2,4", "tuning.dropout=0,0.1"]  # fmt: skip
    assert work(["sweep", "sft", *settings, "--questions", "0"], log=log) == 0, log.read_text()
    assert "2 runs in one pass over one base: rank=2,dropout=0; rank=4,dropout=0" in log.read_text()
    assert len(list((tmp_path / "s").glob("*/adapter"))) == 4


def test_rows_of_a_shared_model_are_measured_alone(model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    """The joint model leaves the arms' own models as they are."""
    stores = Stores(shared=True)
    runs = [prepare_run(one, Console(quiet=True), stores) for one in recipes(model_folder, data_file, tmp_path)]
    groups = runs[0].prepared.held_out[:4]
    before = sums_by_row(runs[0].policy, groups, runs[0].recipe.objective, 300)
    joint = together.joint_of(runs, stores)
    assert joint.policy.packed
    assert sums_by_row(runs[0].policy, groups, runs[0].recipe.objective, 300) == before
