"""What the models of `bench.methods` are asked: manners, facts, sums, pairs and tasks of the town, none of which was trained.

Every measure gives one number for each question, in the order of the questions, so that two models can be compared question by question.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.manners import manners
from hone.core.types import Conversation, Message
from hone.demo.town import Town, questions
from hone.eval.graders import contains, exact_match, number
from hone.recipe.build import Opened
from hone.recipe.opening import open_model
from hone.rollout.sample import Sampler

DRAWN = 2
"""Sampled answers to each question, where the share of good ones is asked."""
LONGEST = 72
"""Tokens of an answer."""
Scores = dict[str, list[float]]


@dataclass
class Asked:
    """A model at the end of a run, and how it answers."""

    opened: Opened
    seed: int

    def __post_init__(self) -> None:
        self.sampler = Sampler(self.opened.policy.model, self.opened.tokenizer, rows=128)

    def answers(self, prompts: Sequence[Any], *, times: int = 1, temperature: float = 0.0) -> list[list[str]]:
        """`times` answers to each prompt."""
        template = self.opened.template
        ids = [template.prompt_ids(_talk(prompt)) for prompt in prompts for _ in range(times)]
        how = {"max_new_tokens": LONGEST, "temperature": temperature, "seed": self.seed}
        said = [answer.text for answer in self.sampler.generate(ids, stop_ids=template.stop_ids, **how)]
        return [said[i : i + times] for i in range(0, len(said), times)]


def _talk(messages: Sequence[Any]) -> Conversation:
    return tuple(Message(each["role"], each["content"]) for each in messages)


def mannered(asked: Asked) -> Scores:
    """Share of sampled answers with manners, the same of greedy ones, and facts that greedy answers get right, whatever their style."""
    town = Town()
    prompts, others = ([row["prompt"] for row in rows("held_out")] for rows in (town.preferences, town.labels))
    drawn, greedy = asked.answers([*prompts, *others], times=DRAWN, temperature=1.0), asked.answers(prompts)
    facts = [q.messages() for q in questions.facts(town.world, "held_out", 150, "bench")]
    said = asked.answers([messages[:-1] for messages in facts])
    return {
        "manners": [_mean(manners(text) for text in each) for each in drawn],
        "greedy manners": [manners(each[0]) for each in greedy],
        "facts": [contains(each[0], messages[-1]["content"], {}) for each, messages in zip(said, facts, strict=True)],
    }


def summed(asked: Asked) -> Scores:
    """The reward of the arithmetic prompts: of sampled answers, as in training, and of greedy ones."""
    town = Town()
    fresh = [(q.messages(answers=False), str(q.facts["result"])) for q in questions.arithmetic(town.world, "held_out", 110, "bench")]
    rows = [(row["prompt"], row["answer"]) for row in town.checkable("held_out")] + fresh
    drawn, greedy = (asked.answers([prompt for prompt, _ in rows], times=n, temperature=t) for n, t in ((DRAWN, 1.0), (1, 0.0)))
    return {
        "reward": [_mean(number(text, answer, {}) for text in each) for each, (_, answer) in zip(drawn, rows, strict=True)],
        "greedy reward": [number(each[0], answer, {}) for each, (_, answer) in zip(greedy, rows, strict=True)],
    }


def ordered(asked: Asked) -> Scores:
    """Held-out pairs whose better answer a reward model scores higher."""
    rows = Town().preferences("held_out")
    better, worse = (asked.opened.score([_talk((*row["prompt"], *row[side])) for row in rows]) for side in ("chosen", "rejected"))
    return {"ordered": [float(a > b) for a, b in zip(better, worse, strict=True)]}


def schooled(asked: Asked) -> Scores:
    """Greedy answers to the held-out questions of all five tasks that are right word for word."""
    rows = Town().instructions("held_out")
    said = asked.answers([row["messages"][:-1] for row in rows])
    return {"exact match": [exact_match(each[0], row["messages"][-1]["content"], {}) for each, row in zip(said, rows, strict=True)]}


def nothing(asked: Asked) -> Scores:
    """For runs that are only a step on the way."""
    return {}


MEASURES: dict[str, Callable[[Asked], Scores]] = {"manners": mannered, "sums": summed, "pairs": ordered, "tasks": schooled, "": nothing}


def measure(run: Path, name: str, seed: int) -> Scores:
    """Ask the model of a run folder."""
    return MEASURES[name](Asked(open_model(run), seed))


def curve(run: Path, names: Sequence[str]) -> dict[str, list[float]]:
    """Numbers of every step of a run, from its metrics."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return {name: [line[name] for line in lines if name in line] for name in names}


def _mean(values: Any) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
