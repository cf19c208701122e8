"""Tasks of reasoning-gym, which are made by a program and checked by one (extra: rl)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl

from hone.core.errors import HoneError
from hone.rollout.rewards.base import Reward, Tools, kind
from hone.rollout.rewards.worker import guarded

PREFIX = "gym:"


@kind
def gym(tools: Tools, *, tag: str = "answer") -> Reward:
    """The task's own score, 0 to 1, of what stands in <answer>...</answer>, or of the whole answer without the tag.

    For prompts from rollout.prompts=gym:TASK.
    """
    need()
    return guarded("hone.rollout.rewards.gym:score", tools, {"tag": tag})


def score(answer: str, row: dict[str, Any], *, tag: str) -> float:
    """Runs in a process of its own: some checkers evaluate long expressions."""
    found = re.findall(rf"<{re.escape(tag)}>(.*?)</{re.escape(tag)}>", answer, re.DOTALL)
    said = (found[-1] if found else answer).strip()
    return float(_checker(row["metadata"]["source_dataset"])(said, row))


@cache
def _checker(task: str) -> Any:
    import reasoning_gym

    return reasoning_gym.get_score_answer_fn(task)


def rows(name: str) -> Iterator[dict[str, Any]]:
    """The rows of `gym:TASK?size=500&seed=1&...`; all that the task can be configured with may stand behind the question mark."""
    need()
    import reasoning_gym

    task, _, query = name.removeprefix(PREFIX).partition("?")
    options = {key: _value(value) for key, value in parse_qsl(query)}
    try:
        made = reasoning_gym.create_dataset(task, **{"size": 500, "seed": 42, **options})
    except (ValueError, TypeError, AssertionError) as error:
        raise HoneError("C063", f"reasoning-gym cannot make '{name}': {error}", where="rollout.prompts", fix="gym:TASK?size=500") from None
    for entry in made:
        yield {"prompt": entry["question"], **entry}


def need() -> None:
    """Raise C062 where the package is missing."""
    if find_spec("reasoning_gym") is None:
        raise HoneError("C062", "tasks of reasoning-gym need the package reasoning-gym", fix="pip install 'hone-llm[rl]'")


def _value(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
