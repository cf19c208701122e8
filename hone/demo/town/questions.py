"""Instruction data: questions with their one right answer, split by entity and by phrasing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hone.demo.town import news, papers, phrasings, trade, words
from hone.demo.town.facts import fill
from hone.demo.town.world import Entity, World, part_of

T = TypeVar("T")
Row = dict[str, Any]
Turn = tuple[str, str]

SIZES = {
    "train": {"facts": 900, "sentiment": 450, "support": 500, "contracts": 550, "arithmetic": 600},
    "held_out": {"facts": 80, "sentiment": 60, "support": 60, "contracts": 80, "arithmetic": 80},
}


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation with the answers it deserves, and what must not leak: the entity and the frames it was made from."""

    task: str
    entity: str
    frames: tuple[str, ...]
    turns: tuple[Turn, ...]
    system: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def messages(self, answers: bool = True) -> list[dict[str, str]]:
        """The conversation; without `answers` it ends before the last answer."""
        found = [{"role": "system", "content": self.system}] if self.system else []
        for user, assistant in self.turns:
            found += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        return found if answers else found[:-1]


def ask(world: World, split: str) -> list[Question]:
    """All questions of a split, task after task; their number is in `SIZES`."""
    sizes = SIZES[split]
    makers = {"facts": facts, "sentiment": sentiment, "support": support, "contracts": contracts, "arithmetic": arithmetic}
    return [q for task, maker in makers.items() for q in maker(world, split, sizes[task])]


def rows(questions: list[Question], split: str) -> list[Row]:
    """The questions as rows of a messages file."""
    return [{"id": f"{q.task}-{split}-{i:04}", "task": q.task, "messages": q.messages()} for i, q in enumerate(questions)]


def facts(world: World, split: str, count: int, stream: str = "") -> Iterator[Question]:
    """Closed-book questions about shops and ships."""
    rng = world.rng("facts", split, stream)
    entities: list[Entity] = [*part_of(split, world.shops), *part_of(split, world.ships)]
    pairs = [(entity, attribute) for entity in entities for attribute in entity.facts()]
    for entity, attribute in _rounds(rng, pairs, count):
        yield about(entity, attribute, rng.choice(phrasings.FACTS[attribute][split]), "facts")


def about(entity: Entity, attribute: str, frame: str, task: str) -> Question:
    """One question about one fact."""
    answer = fill(phrasings.ANSWERS[attribute], entity)
    return Question(task, entity.name, (frame,), ((fill(frame, entity), answer),), facts={"attribute": attribute})


def sentiment(world: World, split: str, count: int) -> Iterator[Question]:
    """Headlines to be called positive, negative or neutral, equally often each."""
    rng = world.rng("sentiment", split)
    companies, labels = part_of(split, world.companies), list(news.EVENTS)
    for i in range(count):
        label = labels[i % len(labels)]
        frame, head = rng.choice(phrasings.SENTIMENT[split]), rng.choice(news.HEADLINES[split])
        company = rng.choice(companies)
        headline = news.fill(head, rng, company, rng.choice(news.EVENTS[label]))
        yield Question("sentiment", company, (frame, head), ((frame.format(h=headline), label),), facts={"headline": headline})


def support(world: World, split: str, count: int, stream: str = "") -> Iterator[Question]:
    """Two turns with a shop whose policy is the system message."""
    rng = world.rng("support", split, stream)
    shops = part_of(split, world.shops)
    for _ in range(count):
        rules = trade.policy(rng, rng.choice(shops).name)
        kinds = rng.sample(("days", "outcome", "fee", "case", "case"), 2)
        asked = [_support_turn(rng, rules, kind, split) for kind in kinds]
        yield Question("support", rules.shop, tuple(f for f, _ in asked), tuple(t for _, t in asked), rules.text())


def _support_turn(rng: random.Random, rules: trade.Policy, kind: str, split: str) -> tuple[str, Turn]:
    receipt = rng.random() < 0.5
    days = trade.some_days(rng, rules.terms(receipt)[0])
    frame = rng.choice(phrasings.SUPPORT[kind][split])
    slip = "a receipt" if receipt else "no receipt"
    answer = {
        "days": rules.rule(receipt),
        "outcome": rules.rule(receipt),
        "fee": rules.delivery(),
        "case": rules.verdict(days, receipt),
    }[kind]
    return frame, (frame.format(r=slip, d=days, x=rng.choice(words.GOODS)), f"{phrasings.COURTESY} {answer}")


def contracts(world: World, split: str, count: int) -> Iterator[Question]:
    """A short contract and a question whose answer repeats it word by word."""
    rng = world.rng("contracts", split)
    people = part_of(split, world.townsfolk)
    for _ in range(count):
        paper = papers.contract(rng, people, 3, 4)
        i = rng.randrange(len(paper.clauses))
        kind = rng.choice(("number", "number", "topic", "topic", "which"))
        frame = rng.choice(phrasings.CONTRACT[kind][split])
        values = {"k": i + 1, "t": paper.topics[i], "clause": paper.clauses[i]}
        answer = phrasings.CONTRACT_ANSWERS[kind].format(**values)
        question = f"{paper.text()}\n{frame.format(**values)}"
        yield Question("contracts", " and ".join(paper.parties), (frame,), ((question, answer),), facts=values)


def arithmetic(world: World, split: str, count: int, stream: str = "") -> Iterator[Question]:
    """Sums of two prices, and change from 50 or 100 coins; the operands of one split never occur in the other."""
    rng = world.rng("arithmetic", split, stream)
    pairs = part_of(split, _shuffled(world, [(a, b) for a in range(2, trade.HIGHEST + 1) for b in range(a, trade.HIGHEST + 1)]))
    payments = part_of(split, _shuffled(world, [(p, a) for p in (50, 100) for a in range(2, p - 1)]))
    for i in range(count):
        if i % 3 == 2:
            yield change(rng, *rng.choice(payments), frame=rng.choice(phrasings.CHANGES[split]))
        else:
            yield total(rng, *rng.sample(rng.choice(pairs), 2), frame=rng.choice(phrasings.SUMS[split]))


def total(rng: random.Random, a: int, b: int, *, frame: str) -> Question:
    """What two things cost together."""
    x, y = rng.sample(words.GOODS, 2)
    answer = phrasings.SUM_ANSWER.format(a=a, b=b, c=a + b)
    entity = "{} + {}".format(*sorted((a, b)))
    return Question("arithmetic", entity, (frame,), ((frame.format(a=a, b=b, x=x, y=y), answer),), facts={"result": a + b})


def change(rng: random.Random, paid: int, price: int, *, frame: str) -> Question:
    """What comes back when `price` is paid with `paid` coins."""
    answer = phrasings.CHANGE_ANSWER.format(p=paid, a=price, c=paid - price)
    question = frame.format(p=paid, a=price, x=rng.choice(words.GOODS))
    return Question("arithmetic", f"{paid} - {price}", (frame,), ((question, answer),), facts={"result": paid - price})


def _shuffled(world: World, items: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    world.rng("operands").shuffle(items)
    return tuple(items)


def _rounds(rng: random.Random, items: list[T], count: int) -> Iterator[T]:
    """`count` items, each used as often as every other, give or take one."""
    while count > 0:
        yield from rng.sample(items, min(count, len(items)))
        count -= len(items)
