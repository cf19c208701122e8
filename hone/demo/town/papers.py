"""Papers that are copied word by word: contracts and their clauses, lists read back, notices, telegrams."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hone.demo.town import words
from hone.demo.town.document import FILLINGS, Document, date, document
from hone.demo.town.world import World

CLAUSES: dict[str, str] = {
    "rent": "The tenant pays {n} coins, due {day}.",
    "delivery": "The cart brings {goods} before {day}.",
    "keys": "The porter keeps them until {month}.",
    "repairs": "The owner mends walls worth {n} coins.",
    "notice": "Either side speaks {n} days ahead.",
    "fine": "Whoever is late gives {n} coins.",
    "storage": "The goods rest at {berth}.",
    "insurance": "A year costs {n} coins.",
    "horses": "The stable feeds them till {month}.",
    "wages": "The workers earn {n} coins each {day}.",
    "garden": "The grass is cut every {day}.",
    "roof": "New tiles come in {month}.",
    "water": "The well is open on {day}.",
    "noise": "Nobody sings after {hour}.",
    "boat": "It sails from {berth}.",
    "candles": "The guard lights {n} of them.",
    "apprentice": "He learns for {n} months.",
    "meals": "Soup is served by {hour}.",
    "dog": "It guards {street}.",
    "profit": "It is shared with {A}.",
    "tools": "They are lent to {A}.",
    "fire": "It burns near {street}.",
    "taxes": "The sum is owed since {month}.",
    "cellar": "It holds {n} {goods}.",
}
"""What a clause says about its topic. The word before each blank belongs to one topic only, so that a short memory can copy."""

QUOTES = (
    "Clause {k}. {clause}",
    "Clause {k}. {clause}",
    "To repeat: {k}. {clause}",
    "{name} read aloud: {k}. {clause}",
    "The judge read clause {k}. {clause}",
    "{name} asked for clause {k}. {clause}",
    "{name} copied clause {k}. {clause}",
    "Clause {k} reads: {clause}",
    "Clause {k} says: {clause}",
    "The wording of clause {k} is: {clause}",
    "{clause}",
    "{clause}",
    "The clerk read: {clause}",
    "{name} asked about the {t}, and the clerk read: {clause}",
    "The contract says: {clause}",
    "{name} copied into a letter: {clause}",
    "The {t} can be found in clause {k}.",
    "The {t} can be found in clause {k}.",
    "{name} asked which clause deals with the {t}, and the clerk said: clause {k}.",
    "{name} wanted to know where the {t} can be found: in clause {k}.",
)


@dataclass(frozen=True, slots=True)
class Contract:
    """Two parties and numbered clauses; `topics[i]` is what `clauses[i]` is about."""

    parties: tuple[str, str]
    topics: tuple[str, ...]
    clauses: tuple[str, ...]

    def text(self) -> str:
        """The contract as it is written down."""
        lines = [f"{i}. {clause}" for i, clause in enumerate(self.clauses, 1)]
        return "\n".join([f"Contract between {self.parties[0]} and {self.parties[1]}", *lines])


def contract(rng: random.Random, people: tuple[str, ...], low: int = 3, high: int = 5) -> Contract:
    """A contract with fresh content."""
    parties = rng.sample(people, 2)
    topics = rng.sample(list(CLAUSES), rng.randint(low, high))
    surnames = [name.split()[1] for name in parties]
    clauses = tuple(_clause(rng, topic, surnames) for topic in topics)
    return Contract((parties[0], parties[1]), tuple(topics), clauses)


def _clause(rng: random.Random, topic: str, surnames: list[str]) -> str:
    said = CLAUSES[topic].format(
        A=rng.choice(surnames), n=rng.randint(2, 60), goods=rng.choice(PLURALS), day=rng.choice(words.WEEKDAYS),
        month=rng.choice(words.MONTHS), berth=rng.choice(words.BERTHS), street=rng.choice(words.STREETS), hour=rng.choice(words.HOURS),
    )  # fmt: skip
    return f"On the {topic}: {said}"


PLURALS = tuple(g + "s" for g in words.GOODS if g not in ("brush", "scarf", "loaf", "knife", "fish"))


def write(world: World, rng: random.Random, share: float = 1.0) -> Iterator[Document]:
    """All papers of one volume; nothing in them is true anywhere else, so only copying helps."""
    makers: tuple[tuple[Callable[[World, random.Random], Document], int], ...] = (
        (court, 1100), (minutes, 200), (flags, 900), (passengers, 110), (crier, 110), (ledger, 300),
    )  # fmt: skip
    for maker, count in makers:
        for _ in range(max(1, round(count * share))):
            yield maker(world, rng)


def court(world: World, rng: random.Random) -> Document:
    """A contract, and what was quoted from it: some clauses in some words, or all of them in another order."""
    paper = contract(rng, world.townsfolk)
    if rng.random() < 0.4:
        numbered = list(enumerate(paper.clauses, 1))
        frame = rng.choice(("{k}. {clause}", "Clause {k}. {clause}", "{clause}"))
        quotes = [frame.format(k=k, clause=clause) for k, clause in rng.sample(numbered, len(numbered))]
    else:
        quotes = [quote(rng, world, paper) for _ in range(rng.randint(4, 8))]
    between = "\n" if rng.random() < 0.5 else " "
    title, _, clauses = paper.text().partition("\n")
    return document(title, "contract", clauses, between.join(quotes))


def quote(rng: random.Random, world: World, paper: Contract) -> str:
    """A sentence that repeats one clause of `paper`, or tells its number."""
    i = rng.randrange(len(paper.clauses))
    frame = rng.choice(QUOTES)
    return frame.format(k=i + 1, clause=paper.clauses[i], t=paper.topics[i], name=rng.choice(world.townsfolk))


def minutes(world: World, rng: random.Random) -> Document:
    """Two contracts read out at the town hall, each quoted afterwards."""
    papers = [contract(rng, world.townsfolk, 3, 4) for _ in range(2)]
    quotes = [f"{name}: {quote(rng, world, p)}" for p in papers for name in rng.sample(world.townsfolk, 2)]
    lines = [papers[0].text(), *quotes[:2], papers[1].text(), *quotes[2:]]
    return document(f"Minutes of the town hall, {date(rng)}", "minutes", *lines)


def flags(world: World, rng: random.Random) -> Document:
    """A message of random words sent by flags, and sent again.

    Words that differ come back whole or from one of them on; a message of few words, where each returns, comes back whole.
    """
    few = rng.random() < 0.35
    message = rng.choices(rng.sample(FLAGS, 5), k=rng.randint(8, 14)) if few else rng.sample(FLAGS, rng.randint(6, 16))
    lines = [f"The ship said: {' '.join(message)}."]
    for _ in range(rng.randint(2, 4)):
        start = 0 if few or rng.random() < 0.5 else rng.randrange(len(message) - 3)
        lines.append(f"{rng.choice(ECHOES)}: {' '.join(message[start:])}.")
    return document(f"Flags over the harbour, {date(rng)}", "flags", *lines)


FLAGS = tuple(
    word.lower() if word in words.SHOP_FIRST + words.SHIP_FIRST else word
    for word in (
        *words.GOODS,
        *words.SHOP_FIRST,
        *words.SHOP_LAST,
        *words.SHIP_LAST,
        *words.FIRST_NAMES,
        *words.SURNAMES,
        *words.MONTHS,
        *words.WEEKDAYS,
    )
)
ECHOES = ("The lighthouse said", "The harbour answered", "The clerk wrote down", "The other ship repeated", "The children copied")


def passengers(world: World, rng: random.Random) -> Document:
    """A list of names, read back in the same order."""
    names = ", ".join(f"{rng.choice(words.FIRST_NAMES)} {rng.choice(words.SURNAMES)}" for _ in range(rng.randint(4, 9)))
    again = rng.choice(("The clerk read the list back", "The same list, copied", "On the other sheet", "The captain repeated"))
    return document(f"Passengers on the ferry, {date(rng)}", "passengers", f"The list: {names}.", f"{again}: {names}.")


REPEATS = ("The crier called", "The children repeated", "The telegram said", "In the paper one could read", "It was copied")


def crier(world: World, rng: random.Random) -> Document:
    """A notice, and the town crier who repeats it."""
    surnames = [rng.choice(words.SURNAMES) for _ in range(2)]
    clauses = [_clause(rng, topic, [surnames[0], surnames[1]]) for topic in rng.sample(list(CLAUSES), rng.randint(1, 3))]
    notice = " ".join(clauses)
    verbs = rng.sample(REPEATS, 2)
    return document(f"Notice on the town hall door, {date(rng)}", "notice", notice, *(f"{verb}: {notice}" for verb in verbs))


def ledger(world: World, rng: random.Random) -> Document:
    """Things and numbers, then the same things asked for in another order."""
    colours = [w.lower() for w in rng.sample(words.SHOP_FIRST, 8)]
    things = rng.sample(FILLINGS["thing"] + words.GOODS, rng.randint(4, 7))
    rows = {f"{colour} {thing}": rng.randint(2, 99) for colour, thing in zip(colours, dict.fromkeys(things), strict=False)}
    first = "; ".join(f"{thing}, {number}" for thing, number in rows.items())
    again = rng.sample(list(rows), len(rows))
    lines = [rng.choice(LOOKUPS).format(thing=thing, number=rows[thing]) for thing in again]
    return document(f"Lost property, {date(rng)}", "ledger", f"Things and their numbers: {first}.", " ".join(lines))


LOOKUPS = (
    "The number of the {thing} is {number}.", "The {thing} has the number {number}.", "The {thing}: number {number}.",
    "Look up the {thing} and you find {number}.", "The {thing}, {number}.", "Again the {thing}, {number}.",
)  # fmt: skip
