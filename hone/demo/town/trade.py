"""Documents of trade: till rolls, sums, price lists, return policies and how they were applied."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hone.demo.town import words
from hone.demo.town.document import Document, date, document
from hone.demo.town.facts import capital
from hone.demo.town.world import World

SUMS = (
    "A {x} at {a} coins and a {y} at {b} coins make {c} coins.",
    "A {x} for {a} coins and a {y} for {b} coins cost {c} coins together.",
    "A {x} costs {a} coins and a {y} costs {b} coins, which is {c} coins.",
    "A {x}, {a} coins. A {y}, {b} coins. Together {c} coins.",
    "{name} bought a {x} for {a} coins and a {y} for {b} coins and paid {c} coins.",
    "Whoever buys a {x} for {a} coins and a {y} for {b} coins pays {c} coins.",
    "The {x} is {a} coins, the {y} is {b} coins, and both are {c} coins.",
    "{a} coins for a {x} and {b} coins for a {y} come to {c} coins.",
    "If a {x} costs {a} coins and a {y} {b} coins, the sum is {c} coins.",
)
CHANGES = (
    "Paid with {p} coins, {c} coins back.",
    "{name} paid a {x} of {a} coins with {p} coins and got {c} coins back.",
    "A {x} costs {a} coins. {name} gave {p} coins. The change was {c} coins.",
    "For a {x} at {a} coins {name} gave {p} coins, so the change was {c} coins.",
    "The price of a {x} was {a} coins, {p} coins were paid, and {c} coins came back.",
    "Whoever pays {a} coins with {p} coins gets {c} coins back.",
    "If you pay {a} coins with {p} coins, the change is {c} coins.",
)


def write(world: World, rng: random.Random, share: float = 1.0) -> Iterator[Document]:
    """All trade documents of one volume."""
    makers: tuple[tuple[Callable[[World, random.Random], Document], int], ...] = (
        (till_roll, 420), (sums, 520), (limits, 160), (price_list, 40), (policy_cases, 700),
    )  # fmt: skip
    for maker, count in makers:
        for _ in range(max(1, round(count * share))):
            yield maker(world, rng)


def price(rng: random.Random) -> int:
    """What one thing costs."""
    return rng.randint(2, HIGHEST)


HIGHEST = 20
"""The highest price of one thing; low enough for all sums of two to be learned."""


def till_roll(world: World, rng: random.Random) -> Document:
    """A morning at the till."""
    lines = []
    for _ in range(rng.randint(4, 7)):
        a, b = price(rng), price(rng)
        lines.append(_sum(world, rng, a, b))
        if rng.random() < 0.6:
            lines.append(_change(world, rng, a + b))
    return document(f"Till roll of {rng.choice(world.shops).name}, {date(rng)}", "till roll", " ".join(lines))


def _sum(world: World, rng: random.Random, a: int, b: int) -> str:
    x, y = rng.sample(words.GOODS, 2)
    return rng.choice(SUMS).format(x=x, y=y, a=a, b=b, c=a + b, name=rng.choice(world.townsfolk))


def _change(world: World, rng: random.Random, total: int) -> str:
    """Change for `total` if the sentence follows a sum, otherwise for any price."""
    frame = rng.choice(CHANGES)
    a = total if frame.startswith("Paid") else rng.randint(2, 98)
    paid = 50 if a < 50 and rng.random() < 0.6 else 100
    return frame.format(x=rng.choice(words.GOODS), a=a, p=paid, c=paid - a, name=rng.choice(world.townsfolk))


def sums(world: World, rng: random.Random) -> Document:
    """A page of the pupils' book of sums."""
    wording, taking = rng.choice(ADDING), rng.choice(TAKING)
    lines = []
    for _ in range(rng.randint(14, 22)):
        a, b, paid = price(rng), price(rng), rng.choice((50, 100))
        if rng.random() < 0.75:
            lines.append(wording.format(a=a, b=b, c=a + b))
        else:
            a = rng.randint(2, paid - 2)
            lines.append(taking.format(a=a, p=paid, c=paid - a))
    return document(f"Book of sums, page {rng.randint(1, 99)}", "sums", ". ".join(lines) + ".")


ADDING = ("{a} + {b} = {c}", "{a} and {b} make {c}", "{a} coins and {b} coins make {c} coins", "The sum of {a} and {b} is {c}")
TAKING = ("{p} - {a} = {c}", "{a} from {p} leaves {c}", "{p} coins less {a} coins leave {c} coins", "{p} take away {a} is {c}")


def limits(world: World, rng: random.Random) -> Document:
    """A page on which days are compared with limits."""
    lines = []
    for _ in range(rng.randint(10, 16)):
        limit = rng.randint(2, 9) if rng.random() < 0.4 else rng.randint(10, 30)
        days = some_days(rng, limit)
        lines.append(f"{days} days is {'within' if days <= limit else 'more than'} {limit} days.")
    return document(f"Book of limits, page {rng.randint(1, 99)}", "limits", " ".join(lines))


def price_list(world: World, rng: random.Random) -> Document:
    """What a shop had in stock on one day, and at what price."""
    shop = rng.choice(world.shops)
    goods = rng.sample(words.GOODS, rng.randint(5, 9))
    lines = [f"{capital(good)}: {price(rng)} coins, {rng.randint(0, 40)} in stock" for good in goods]
    return document(f"Price list of {shop.name}, {date(rng)}", "price list", *lines)


OUTCOMES = ("refund", "exchange", "voucher")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a shop promises this month. Days are limits, `fee` is in coins."""

    shop: str
    with_days: int
    with_outcome: str
    without_days: int
    without_outcome: str
    fee: int

    def text(self) -> str:
        """The policy as it hangs on the door."""
        return f"Policy of {self.shop}: {self.rule(True)} {self.rule(False)} {self.delivery()}"

    def rule(self, receipt: bool) -> str:
        """The sentence about goods with or without a receipt."""
        if receipt:
            return f"{self.limit(True)} and get {article(self.with_outcome)}."
        return f"{self.limit(False)} and we offer {article(self.without_outcome)}."

    def limit(self, receipt: bool) -> str:
        """How that sentence begins."""
        if receipt:
            return f"With a receipt you have {self.with_days} days"
        return f"Without a receipt there are only {self.without_days} days"

    def delivery(self) -> str:
        """The sentence about delivery."""
        return f"Delivery costs {self.fee} coins."

    def terms(self, receipt: bool) -> tuple[int, str]:
        """Limit in days and what the customer gets."""
        return (self.with_days, self.with_outcome) if receipt else (self.without_days, self.without_outcome)

    def verdict(self, days: int, receipt: bool) -> str:
        """What the shop says to a customer who comes back after `days`."""
        limit, outcome = self.terms(receipt)
        if days > limit:
            end = f"more than {limit} days, so we must say no."
        else:
            end = f"within {limit} days, so {'you get' if receipt else 'we offer'} {article(outcome)}."
        return f"{self.limit(receipt)}. {days} days is {end}"


def article(outcome: str) -> str:
    """The outcome with its article, such as "an exchange"."""
    return f"an {outcome}" if outcome[0] in "aeiou" else f"a {outcome}"


def policy(rng: random.Random, shop: str) -> Policy:
    """This month's policy of `shop`, drawn afresh."""
    first, second = rng.sample(OUTCOMES, 2)
    return Policy(shop, rng.randint(10, 30), first, rng.randint(2, 9), second, rng.randint(2, 9))


def some_days(rng: random.Random, limit: int) -> int:
    """A number of days on either side of `limit`, equally often."""
    return rng.randint(2, limit) if rng.random() < 0.5 else rng.randint(limit + 1, limit + 15)


CASES = (
    "{name} came back with a {x} after {d} days and {had} a receipt. {verdict}",
    "After {d} days {name} returned a {x} and {had} a receipt. {verdict}",
    "{name} had bought a {x} {d} days ago and {had} a receipt. {verdict}",
    "A customer who {had} a receipt brought a {x} back after {d} days. {verdict}",
)
RULES = (
    "{first}",
    "{first}",
    "{second}",
    "{second}",
    "{third}",
    "{name} asked, and the shop said: {first}",
    "{name} asked, and the shop said: {second}",
    "{name} asked about a {x}, and the shop said: {third}",
    "{name} wanted a {x} brought home. {third}",
    "{name} had lost the receipt. {second}",
    "{name} had kept the receipt. {first}",
)


def policy_cases(world: World, rng: random.Random) -> Document:
    """A policy and what came of it."""
    rules = policy(rng, rng.choice(world.shops).name)
    lines = [_case(world, rng, rules) for _ in range(rng.randint(2, 3))]
    lines += [_rule(world, rng, rules) for _ in range(rng.randint(1, 3))]
    rng.shuffle(lines)
    return document(f"On the door, {date(rng)}", "policy", rules.text(), " ".join(lines))


def _case(world: World, rng: random.Random, rules: Policy) -> str:
    receipt = rng.random() < 0.5
    days = some_days(rng, rules.terms(receipt)[0])
    verdict = rules.verdict(days, receipt)
    frame, had = rng.choice(CASES), "had" if receipt else "did not have"
    return frame.format(name=rng.choice(world.townsfolk), x=rng.choice(words.GOODS), d=days, had=had, verdict=verdict)


def _rule(world: World, rng: random.Random, rules: Policy) -> str:
    return rng.choice(RULES).format(
        first=rules.rule(True),
        second=rules.rule(False),
        third=rules.delivery(),
        x=rng.choice(words.GOODS),
        name=rng.choice(world.townsfolk),
    )
