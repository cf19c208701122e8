"""A sweep's arms are the runs that they would be alone; it goes on where it was killed; bad values stop it before it starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone.core.errors import HoneError
from hone.eval.heldout import recall
from hone.recipe import ranking, sweep
from hone.recipe.grid import Axis, arms_of, axes_of
from hone.recipe.pipeline import finished
from tests.conftest import Work
from tests.recipe.test_aside import metrics


def words(model: Path, data: Path, folder: Path, *more: str) -> list[str]:
    settings = {
        "model": model, "data": data, "output": folder, "optim.max_steps": 4, "optim.batch_size": 8, "hardware.threads": 1,
        "hardware.dtype": "float32",
    }  # fmt: skip
    return ["sft", *(f"{key}={value}" for key, value in settings.items()), *more]


def starts(folder: Path) -> dict[str, float]:
    return {file.parent.name: json.loads(file.read_text().partition("\n")[0])["t"] for file in folder.glob("*/events.jsonl")}


def test_killed_it_goes_on_and_each_arm_is_its_solo_run(work: Work, model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "sweep", tmp_path / "log.txt"
    command = ["sweep", *words(model_folder, data_file, folder, "lr=1e-3,1e-2", "tuning.method=dora,lora", "rank=2")]
    assert work(command, fault="after_step 9", log=log) == -9, log.read_text()
    begun = starts(folder)
    assert len(begun) == 3 and sum(finished(folder / name) for name in begun) == 1, "one alone, two in one pass"
    assert work(command, log=log) == 0, log.read_text()
    assert "1 of 4 runs are there already" in log.read_text()
    assert starts(folder).items() >= begun.items(), "what was begun is not begun again"
    arm = "learning_rate=1e-2,method=lora"
    solo = ["train", *words(model_folder, data_file, tmp_path / "solo", "lr=1e-2", "tuning.method=lora", "rank=2")]
    assert work(solo) == 0
    for mine, theirs in zip(metrics(folder / arm), metrics(tmp_path / "solo"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    said = json.loads((folder / "sweep.json").read_text())
    places = said["ranking"]["places"]
    losses = {arm["folder"]: recall(folder / arm["folder"]).mean() for arm in said["arms"]}  # type: ignore[union-attr]
    assert [place["name"] for place in places] == sorted(losses, key=lambda name: losses[name])
    assert places[0]["name"].startswith("learning_rate=1e-2") and places[0]["score"] is not None
    assert work(command, log=log) == 0 and "4 of 4 runs are there already" in log.read_text()


def test_halving_gives_up_the_worse_and_the_winner_is_a_whole_run(work: Work, model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "halved", tmp_path / "log.txt"
    command = ["sweep", *words(model_folder, data_file, folder, "lr=1e-4,1e-3,3e-2", "rank=2"), "--halving", "--questions", "0"]
    assert work(command, log=log) == 0, log.read_text()
    assert [path.name for path in sorted(folder.iterdir()) if finished(path)] == ["learning_rate=3e-2"]
    assert (
        len(metrics(folder / "learning_rate=1e-4"))
        < len(metrics(folder / "learning_rate=1e-3"))
        < len(metrics(folder / "learning_rate=3e-2"))
    )
    rungs = json.loads((folder / "sweep.json").read_text())["rungs"]
    assert [(rung["share"], len(rung["kept"])) for rung in rungs] == [(0.25, 2), (0.5, 1)]


def test_a_bad_value_is_refused_with_its_arm(work: Work, model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert work(["sweep", *words(model_folder, data_file, tmp_path / "s", "lr=1e-3,7")], log=log) == 2
    assert "arm learning_rate=7" in log.read_text() and not (tmp_path / "s").exists()
    assert work(["sweep", *words(model_folder, data_file, tmp_path / "s", "lr=1e-3,1e-2", "--search", "astrology")], log=log) == 2
    assert work(["sweep", *words(model_folder, data_file, tmp_path / "s", "lr=1e-3,1e-2", "--dry-run")], log=log) == 0
    assert "2 runs" in log.read_text() and "memory" in log.read_text() and not (tmp_path / "s").exists()


def test_a_folder_with_other_runs_is_refused(model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    plain, axes = axes_of(words(model_folder, data_file, tmp_path, "rank=2,4")[1:])
    made = sweep.plan("sft", plain, axes, arms_of(axes))
    arm = made.arms[0]
    made.place(arm).mkdir()
    other = {**sweep.resolve(made.raws[arm.folder]).resolved, "seed": 1}
    (made.place(arm) / "resolved.json").write_text(json.dumps(other))
    with pytest.raises(HoneError) as caught:
        sweep.plan("sft", plain, axes, arms_of(axes))
    assert caught.value.code == "C145" and "seed" in caught.value.where


def kept(folder: Path, losses: list[float], **more: Any) -> None:
    from hone.eval.heldout import HeldOut

    folder.mkdir(parents=True)
    units = (4.0,) * len(losses)
    facts = {"objective": {"name": "sft"}, "data": "x", **more}
    HeldOut(4, 4, facts["objective"], facts["data"], tuple(map(str, range(len(losses)))), {"units": units, "loss": tuple(losses)}).save(
        folder
    )


def test_the_best_must_be_better_than_chance(tmp_path: Path) -> None:
    _, axes = axes_of(["lr=1e-4,1e-3,1e-2"])
    arms = arms_of(axes, seeds=(1, 2))
    base = [2.0, 9.0, 4.0, 6.0, 3.0, 7.0, 5.0, 8.0] * 4
    for arm, gap in zip(arms, (8.0, 8.2, 0.0, 0.1, 0.3, -0.2), strict=True):
        kept(tmp_path / arm.folder, [loss + gap + 0.01 * (i % 3) for i, loss in enumerate(base)])
    found = ranking.rank(tmp_path, arms)
    assert [place.name for place in found.places] == ["learning_rate=1e-3", "learning_rate=1e-2", "learning_rate=1e-4"] or (
        [place.name for place in found.places][:2] == ["learning_rate=1e-2", "learning_rate=1e-3"]
    )
    second, last = found.places[1].behind, found.places[2].behind
    assert second is not None and not second.apart and "can be chance" in found.verdict
    assert last is not None and last.apart and found.places[2].spread == pytest.approx(0.05 / 2**0.5, rel=0.01)
    assert ranking.edge(axes, arms, "learning_rate=1e-2") == "optim.learning_rate=0.1"
    assert ranking.edge(axes, arms, "learning_rate=1e-3") == ""
    assert (
        ranking.edge(
            [Axis("optim.schedule", ("linear", "cosine"))], arms_of([Axis("optim.schedule", ("linear", "cosine"))]), "schedule=linear"
        )
        == ""
    )


def test_losses_of_other_rows_or_objectives_are_not_paired(tmp_path: Path) -> None:
    arms = arms_of(axes_of(["objective.beta=0.1,0.3"])[1])
    kept(tmp_path / arms[0].folder, [1.0, 2.0, 3.0], objective={"name": "dpo", "beta": 0.1})
    kept(tmp_path / arms[1].folder, [1.0, 2.0, 3.0], objective={"name": "dpo", "beta": 0.3})
    with pytest.raises(HoneError) as caught:
        ranking.rank(tmp_path, arms)
    assert caught.value.code == "C146"
    others = arms_of(axes_of(["data.max_length=64,128"])[1])
    kept(tmp_path / others[0].folder, [1.0, 2.0, 3.0], data="x")
    kept(tmp_path / others[1].folder, [1.0, 2.5, 3.5], data="y")
    assert not ranking.rank(tmp_path, others).paired


def test_optuna_asks_for_the_same_arms_again_and_goes_on(work: Work, model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="optuna is an extra")
    folder, log = tmp_path / "asked", tmp_path / "log.txt"
    command = ["sweep", *words(model_folder, data_file, folder, "lr=1e-4..1e-1", "rank=2", "optim.max_steps=2"), "--search", "optuna"]
    command = [word for word in command if word != "optim.max_steps=4"] + ["--trials", "3", "--questions", "0"]
    assert work(command, fault="after_step 4", log=log) == -9, log.read_text()
    begun = starts(folder)
    assert work(command, log=log) == 0, log.read_text()
    assert len(starts(folder)) == 3 and starts(folder).items() >= begun.items()
    assert "1 of 1 runs are there already" in log.read_text()
