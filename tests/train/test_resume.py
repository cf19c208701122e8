"""Which settings may differ when a run is taken up again."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hone.core.errors import HoneError
from hone.train.resume import check_resume, compare, settings_hash

RUN: dict[str, Any] = {
    "model": {"name": "seedling"},
    "tuning": {"method": "lora", "rank": 16, "targets": ["q_proj", "v_proj"]},
    "data": {"train": "train.jsonl", "seed": 42, "max_length": 2048, "columns": {}},
    "optim": {"learning_rate": 2e-4, "epochs": 2.0, "max_steps": None, "schedule": "linear", "batch_size": 16},
    "eval": {"every": 50},
    "output": {"save_every": 50, "folder": "runs/a"},
    "hardware": {"token_budget": 4096, "dtype": "bf16", "threads": 2},
}


def changed(key: str, value: Any) -> dict[str, Any]:
    run = copy.deepcopy(RUN)
    section, name = key.split(".", 1)
    run.setdefault(section, {})[name] = value
    return run


ALLOWED = [
    ("optim.epochs", 3.0),
    ("optim.epochs", None),
    ("optim.max_steps", 500),
    ("eval.every", 10),
    ("eval.sample", True),
    ("output.save_every", 5),
    ("output.folder", "runs/b"),
    ("hardware.token_budget", 1024),
    ("hardware.threads", 8),
    ("data.train", "elsewhere/train.jsonl"),
]
REFUSED = [
    ("optim.learning_rate", 1e-4),
    ("optim.schedule", "cosine"),
    ("optim.batch_size", 8),
    ("optim.epochs", 1.0),
    ("optim.weight_decay", 0.1),
    ("data.seed", 43),
    ("data.max_length", 512),
    ("data.columns", {"prompt": "question"}),
    ("tuning.rank", 8),
    ("tuning.targets", ["q_proj"]),
    ("model.name", "other"),
    ("hardware.dtype", "fp32"),
    ("surprise.setting", 1),
]


@pytest.mark.parametrize(("key", "value"), ALLOWED)
def test_what_changes_no_step_may_change(key: str, value: Any) -> None:
    differences = check_resume(RUN, changed(key, value), saved_data="a", new_data="a")
    assert [difference.key for difference in differences] == [key]


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_what_changes_the_steps_is_refused_with_both_values(key: str, value: Any) -> None:
    with pytest.raises(HoneError) as caught:
        check_resume(RUN, changed(key, value), saved_data="a", new_data="a", allow_data_change=True)
    assert caught.value.code == "F011" and key in caught.value.where and " -> " in caught.value.where


def test_all_refused_settings_are_named_at_once() -> None:
    new = changed("tuning.rank", 8) | {"optim": RUN["optim"] | {"learning_rate": 1e-3, "epochs": 5.0}}
    with pytest.raises(HoneError) as caught:
        check_resume(RUN, new, saved_data="a", new_data="a")
    assert caught.value.where == "optim.learning_rate: 0.0002 -> 0.001; tuning.rank: 16 -> 8"


def test_an_unchanged_run_has_no_differences() -> None:
    same = copy.deepcopy(RUN)
    same["tuning"]["targets"] = ("q_proj", "v_proj")
    assert compare(RUN, same) == []


def test_a_longer_run_says_what_that_does() -> None:
    (difference,) = compare(RUN, changed("optim.epochs", 4.0))
    assert str(difference) == "optim.epochs: 2.0 -> 4.0 (the learning rate follows the longer schedule from here on)"


def test_changed_data_needs_consent() -> None:
    with pytest.raises(HoneError) as caught:
        check_resume(RUN, RUN, saved_data="a" * 64, new_data="b" * 64)
    assert caught.value.code == "F012" and "--allow-data-change" in caught.value.fix
    (difference,) = check_resume(RUN, RUN, saved_data="a", new_data="b", allow_data_change=True)
    assert str(difference) == 'the training data: "a" -> "b" (as --allow-data-change says)'
    assert check_resume(RUN, RUN, saved_data="a", new_data="a", allow_data_change=True) == []


def test_the_hash_of_settings_ignores_order_only() -> None:
    assert settings_hash(RUN) == settings_hash(dict(reversed(RUN.items()))) != settings_hash(changed("data.seed", 1))
