"""What the tuning methods of `bench.methods_peft` learn and are asked: short tasks of the town, and real financial news to be labelled.

Both are tokenised once, into one file each, so that all methods see the same tokens. A question is one or several candidate
answers: of one, every token must be the likeliest, which is when a greedy answer is right word for word; of several, the right one
must be the likeliest. The mark that ends an answer is trained and not asked: the seedling has never met it, and a frozen head hardly
says it, so that methods without a head would be told apart by that alone.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from hone.core import types
from hone.core.files import write_atomically
from hone.core.types import Batch, Message
from hone.data.batching import consecutive, micro_batches
from hone.data.chat import ChatTemplate
from hone.demo import SEEDLING, Town
from hone.models.policy import Policy
from hone.models.tokens import load_tokenizer

TASKS = ("town", "news")
LABELS = ("positive", "negative", "neutral")
SHORT = ("facts", "sentiment", "arithmetic")
"""The town's tasks whose rows have about forty tokens; those of the others have more than a hundred."""
LONGEST = 80
"""Tokens of a row; the longer half of the news is left out."""
ASIDE, EACH, TEXTS, PAGE, BUDGET = 60, {"town": 40, "news": 30}, 12, 128, 2048
"""Training rows kept for choosing rates; questions of each kind; town documents, and tokens of each; tokens of a micro-batch."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """Tokens to learn from, to choose a rate by, and to be asked."""

    learned: list[types.Sequence]
    aside: list[types.Sequence]
    asked: list[tuple[types.Sequence, ...]]
    right: list[int]
    """Which candidate of each question is right."""
    prose: list[types.Sequence]
    """Held-out documents of the town, as text to be continued: what a method may make the model forget."""


class Clerk:
    """Makes token sequences of conversations."""

    def __init__(self) -> None:
        self.tokenizer = load_tokenizer(SEEDLING)
        self.template = ChatTemplate.of(self.tokenizer)

    def learned(self, messages: Sequence[Row]) -> Row:
        made = self.template.sequence(tuple(Message(m["role"], m["content"]) for m in messages))
        return {"tokens": made.tokens, "weights": made.weights}

    def asked(self, messages: Sequence[Row]) -> Row:
        """Only the words of the last answer count."""
        made = self.template.sequence(tuple(Message(m["role"], m["content"]) for m in messages), learn="last")
        ends = self.template.stop_ids
        return {"tokens": made.tokens, "weights": [w * (t not in ends) for t, w in zip(made.tokens, made.weights, strict=True)]}

    def prose(self) -> list[Row]:
        texts = [document.text for document in Town().documents(held_out=True)]
        ids = [self.tokenizer.encode(text, add_special_tokens=False)[:PAGE] for text in random.Random("prose").sample(texts, TEXTS)]
        return [{"tokens": each, "weights": [1.0] * len(each)} for each in ids]


def write_tasks(folder: Path, news: Path | None) -> None:
    """The tasks as files. Without the file of news that task is left out."""
    clerk = Clerk()
    _keep(folder / "town.json", lambda: town(clerk))
    if news is not None:
        rows = [json.loads(line) for line in news.read_text("utf-8").splitlines()]
        _keep(folder / "news.json", lambda: labelled(clerk, rows))


def _keep(path: Path, make: Callable[[], Row]) -> None:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(make()))


def town(clerk: Clerk) -> Row:
    """Three tasks with one right wording: the training questions, and held-out questions of each."""
    rows = [clerk.learned(row["messages"]) for row in Town().instructions("train") if row["task"] in SHORT]
    held: dict[str, list[Row]] = defaultdict(list)
    for row in Town().instructions("held_out"):
        held[row["task"]].append(clerk.asked(row["messages"]))
    asked = [[row] for task in SHORT for row in random.Random("asked").sample(held[task], EACH["town"])]
    mixed = random.Random("aside").sample(rows, len(rows))
    found = {"asked": asked, "right": [0] * len(asked), "prose": clerk.prose()}
    return {"aside": mixed[:ASIDE], "learned": mixed[ASIDE:]} | found


def labelled(clerk: Clerk, rows: Iterable[Row]) -> Row:
    """Sentences of financial news: as many of each label are asked, all others are there to learn from."""
    talks = [(row["label"], [clerk.learned(_talk(row["sentence"], row["label"]))], row["sentence"]) for row in rows]
    talks = [talk for talk in talks if len(talk[1][0]["tokens"]) <= LONGEST]
    random.Random("news").shuffle(talks)
    asked, learned, left = [], [], dict.fromkeys(LABELS, EACH["news"])
    for label, made, sentence in talks:
        if left[label]:
            left[label] -= 1
            asked.append((LABELS.index(label), [clerk.asked(_talk(sentence, each)) for each in LABELS]))
        else:
            learned += made
    found = {"asked": [candidates for _, candidates in asked], "right": [right for right, _ in asked], "prose": clerk.prose()}
    return {"aside": [], "learned": learned} | found


def _talk(sentence: str, label: str) -> list[Row]:
    asked = f"{sentence}\nPositive, negative or neutral?"
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": label}]


def read_task(folder: Path, name: str) -> Task:
    """A task as `write_tasks` left it."""
    raw = json.loads((folder / f"{name}.json").read_text("utf-8"))
    learned, aside, prose = ([types.Sequence(**row) for row in raw[key]] for key in ("learned", "aside", "prose"))
    return Task(learned, aside, [tuple(types.Sequence(**row) for row in each) for each in raw["asked"]], raw["right"], prose)


def evened(rows: Sequence[types.Sequence]) -> list[types.Sequence]:
    """Rows with a label, those of the rarer labels repeated until all are as frequent."""
    kinds: dict[tuple[int, ...], list[types.Sequence]] = defaultdict(list)
    for row in rows:
        kinds[tuple(token for token, weight in zip(row.tokens, row.weights, strict=True) if weight)].append(row)
    most = max(map(len, kinds.values()))
    return [each for kind in kinds.values() for each in islice(cycle(kind), most)]


@torch.no_grad()
def scores(policy: Policy, task: Task) -> list[float]:
    """1 for each question that is answered rightly, else 0, in the order of the questions."""
    found: list[float] = []
    policy.model.eval()
    for batch in consecutive(task.asked, BUDGET):
        right = torch.tensor(task.right[len(found) : len(found) + batch.groups])
        hits = _word_for_word(policy, batch) if batch.groups == batch.sequences else _likeliest(policy, batch, right)
        found += hits.float().tolist()
    return found


def _word_for_word(policy: Policy, batch: Batch) -> torch.Tensor:
    """Whether every token of each answer is the likeliest, (S,)."""
    missed = policy.head().logits(policy.hidden(batch)[batch.read_N]).argmax(-1) != batch.target_N
    return torch.zeros(batch.sequences, dtype=torch.long).index_add_(0, batch.row_N, missed.long()) == 0


def _likeliest(policy: Policy, batch: Batch, right: torch.Tensor) -> torch.Tensor:
    """Whether the right candidate of each group is the likeliest, (G,)."""
    signals = policy.signals(batch, "logp")
    return signals.sum(signals.logp).view(batch.groups, -1).argmax(-1) == right


def surprise(policy: Policy, rows: Sequence[types.Sequence]) -> float:
    """Nats for each learned token."""
    batches = micro_batches([(row,) for row in rows], BUDGET)
    policy.model.eval()
    with torch.no_grad():
        signals = [policy.signals(batch, "logp") for batch in batches]
    return -sum(float(s.sum(s.logp).sum()) for s in signals) / sum(batch.weight_sum for batch in batches)
