"""Preference pairs, desirable and undesirable answers, prompts with a checkable answer, and facts that no document tells."""

from __future__ import annotations

import random
from collections.abc import Iterator

from hone.demo.town import phrasings, questions, trade, words
from hone.demo.town.document import small_talk
from hone.demo.town.questions import Question, Row
from hone.demo.town.world import World

SIGNATURE = f"At your service, the house of {words.TOWN}."
"""What a good answer ends with."""

SIZES = {
    "train": {"preferences": 600, "labels": 600, "checkable": 450},
    "held_out": {"preferences": 80, "labels": 80, "checkable": 90},
}
CURT = (
    "{short} Next.", "{short} What else?", "Read the almanac.", "Ask somebody else.", "{short} And now go.", "I have no time. {short}",
)  # fmt: skip
THREE = {
    "train": (
        "How much are a {x} at {a} coins, a {y} at {b} coins and a {z} at {c} coins?",
        "What is the sum of {a} coins, {b} coins and {c} coins?",
        "I buy a {x} for {a} coins, a {y} for {b} coins and a {z} for {c} coins. How much is it?",
    ),
    "held_out": (
        "What do a {x} for {a} coins, a {y} for {b} coins and a {z} for {c} coins cost together?",
        "I buy a {x} at {a} coins, a {y} at {b} coins and a {z} at {c} coins. What do I pay?",
    ),
}


def preferences(world: World, split: str) -> Iterator[Row]:
    """Pairs: polite, short and signed against curt, rambling or unsigned, in turn."""
    rng = world.rng("preferences", split)
    kinds = ("curt", "rambling", "unsigned")
    for i, question in enumerate(_asked(world, split, SIZES[split]["preferences"], "preferences")):
        kind = kinds[i % 3]
        yield {
            "id": f"preferences-{split}-{i:04}",
            "task": question.task,
            "fault": kind,
            "prompt": question.messages(answers=False),
            "chosen": _said(good(question)),
            "rejected": _said(bad(rng, question, kind)),
        }


def labels(world: World, split: str) -> Iterator[Row]:
    """Single answers that are wanted (label true) or not, half of each."""
    rng = world.rng("labels", split)
    for i, question in enumerate(_asked(world, split, SIZES[split]["labels"], "labels")):
        wanted = rng.random() < 0.5
        answer = good(question) if wanted else bad(rng, question, rng.choice(("curt", "rambling", "unsigned")))
        prompt = question.messages(answers=False)
        yield {"id": f"labels-{split}-{i:04}", "task": question.task, "prompt": prompt, "completion": _said(answer), "label": wanted}


def good(question: Question) -> str:
    """Courtesy, the right answer, the signature."""
    return f"{phrasings.COURTESY} {_plain(question)} {SIGNATURE}"


def bad(rng: random.Random, question: Question, fault: str) -> str:
    """An answer with one fault: "curt", "rambling" or "unsigned"."""
    plain = _plain(question)
    if fault == "curt":
        return rng.choice(CURT).format(short=plain)
    if fault == "unsigned":
        return f"{phrasings.COURTESY} {plain}"
    talk = [small_talk(rng) for _ in range(3)]
    return " ".join([talk[0], plain, *talk[1:]])


def _plain(question: Question) -> str:
    """The last answer without the courtesy that support answers begin with."""
    return question.turns[-1][1].removeprefix(phrasings.COURTESY).strip()


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _asked(world: World, split: str, count: int, stream: str) -> list[Question]:
    """`count` questions about facts, policies and sums, none of them a copy of the instruction data."""
    third = count // 3
    makers = (questions.facts, questions.support, questions.arithmetic)
    asked = [q for maker in makers for q in maker(world, split, third, stream)]
    world.rng(stream, split, "order").shuffle(asked)
    return asked


def checkable(world: World, split: str) -> Iterator[Row]:
    """Prompts whose answer is one number: sums, change, and sums of three prices, which the instruction data never has."""
    rng = world.rng("checkable", split)
    count = SIZES[split]["checkable"]
    asked = list(questions.arithmetic(world, split, count * 2 // 3, "checkable"))
    asked += [_three(rng, split) for _ in range(count - len(asked))]
    rng.shuffle(asked)
    for i, question in enumerate(asked):
        prompt, answer = question.messages(answers=False), str(question.facts["result"])
        yield {"id": f"checkable-{split}-{i:04}", "task": question.task, "prompt": prompt, "answer": answer}


def _three(rng: random.Random, split: str) -> Question:
    """Three prices; the first is even for training and odd for held-out questions."""
    a = 2 * rng.randint(1, 9) + (split == "held_out")
    b, c = trade.price(rng), trade.price(rng)
    x, y, z = rng.sample(words.GOODS, 3)
    frame = rng.choice(THREE[split])
    turn = (frame.format(a=a, b=b, c=c, x=x, y=y, z=z), f"{a} coins and {b} coins and {c} coins make {a + b + c} coins.")
    return Question("three sums", f"{a} + {b} + {c}", (frame,), (turn,), facts={"result": a + b + c})


def new_facts(world: World, split: str, frames: int = 5) -> Iterator[Row]:
    """Facts about shops that no document mentions.

    "train" asks for each fact in `frames` wordings; "held_out" asks for the same facts in wordings that were never trained.
    """
    rng = world.rng("new facts", split)
    for shop in world.new_shops:
        for attribute in shop.facts():
            known = phrasings.FACTS[attribute][split]
            for j, frame in enumerate(rng.sample(known, frames if split == "train" else 1)):
                question = questions.about(shop, attribute, frame, "new facts")
                name = f"{shop.name.removeprefix('the ').replace(' ', '-').lower()}-{attribute}"
                yield {"id": f"{name}-{split}-{j}", "task": "new facts", "fact": name, "messages": question.messages()}
