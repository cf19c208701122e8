"""Papers that are copied word by word: contracts and their clauses, lists read back, notices, telegrams."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hone.demo.town import words
from hone.demo.town.document import FILLINGS, Document, date, document
from hone.demo.town.world import World

CLAUSES: dict[str, tuple[str, ...]] = {
    "rent": ("{A} pays {B} {n} coins every {day}.", "It is {n} coins and is due on {day}."),
    "delivery": ("{n} {goods} arrive every {day}.", "{A} brings the {goods} before {day}."),
    "keys": ("They stay with {A} until {month}.", "{B} returns them on the last {day} of {month}."),
    "repairs": ("Up to {n} coins are paid by {A}.", "{B} makes them before {month}."),
    "notice": ("It is given {n} days before {month}.", "{A} may give it on any {day} in {month}."),
    "fine": ("Whoever is late pays {n} coins.", "A lost {good} costs {B} {n} coins."),
    "storage": ("{A} keeps the {goods} for {n} days.", "A place at {berth} costs {n} coins."),
    "insurance": ("It costs {n} coins and is paid by {B}.", "{A} pays it every {month}."),
    "horses": ("{B} feeds them until {month}.", "They rest in {street} every {day}."),
    "wages": ("They are {n} coins, paid on {day}.", "{A} pays {n} workers in {month}."),
    "garden": ("It belongs to {A} from {month} on.", "{B} cuts the grass every {day}."),
    "roof": ("It is mended by {B} before {month}.", "{A} pays {n} coins for a new one."),
    "water": ("It may be taken from the well on {day}.", "{B} brings {n} buckets every {day}."),
    "noise": ("There is none after {hour} on {day}.", "{A} makes none before {hour}."),
    "boat": ("It lies at {berth} until {month}.", "{B} may use it for {n} days."),
    "candles": ("{A} buys them for {n} coins.", "They are put out at {hour} on {day}."),
    "apprentice": ("He works for {B} for {n} months.", "{A} teaches him every {day}."),
    "meals": ("They are served at {hour} every {day}.", "{B} pays {n} coins for them."),
    "dog": ("It sleeps in the yard until {month}.", "{B} walks it at {hour}."),
    "profit": ("It is shared on the first {day} of {month}.", "{A} takes {n} coins of it."),
    "tools": ("They are cleaned by {B} every {day}.", "{A} lends {n} of them to {B}."),
    "fire": ("{B} keeps it burning until {hour}.", "None may be lit in {street} on {day}."),
    "taxes": ("They are paid by {A} in {month}.", "{B} pays {n} coins."),
    "cellar": ("It is let to {B} for {n} months.", "{A} stores {n} {goods} there."),
}
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
    a, b = rng.sample(surnames, 2)
    good = rng.choice(PLURALS)
    return f"On the {topic}: " + rng.choice(CLAUSES[topic]).format(
        A=a, B=b, n=rng.randint(2, 60), goods=good[1], good=good[0], day=rng.choice(words.WEEKDAYS), month=rng.choice(words.MONTHS),
        berth=rng.choice(words.BERTHS), street=rng.choice(words.STREETS), hour=rng.choice(words.HOURS),
    )  # fmt: skip


PLURALS = tuple((g, g + "s") for g in words.GOODS if g not in ("brush", "scarf", "loaf", "knife", "fish"))


def write(world: World, rng: random.Random, share: float = 1.0) -> Iterator[Document]:
    """All papers of one volume; nothing in them is true anywhere else, so only copying helps."""
    makers: tuple[tuple[Callable[[World, random.Random], Document], int], ...] = (
        (court, 800), (minutes, 200), (flags, 1200), (passengers, 110), (crier, 110), (ledger, 300),
    )  # fmt: skip
    for maker, count in makers:
        for _ in range(max(1, round(count * share))):
            yield maker(world, rng)


def court(world: World, rng: random.Random) -> Document:
    """A contract, and what was quoted from it."""
    paper = contract(rng, world.townsfolk)
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
    """A message of random words sent by flags, and sent again: whole, or from one of its words on."""
    message = rng.sample(FLAGS, rng.randint(6, 16))
    lines = [f"The ship said: {' '.join(message)}."]
    for _ in range(rng.randint(2, 4)):
        start = 0 if rng.random() < 0.5 else rng.randrange(len(message) - 3)
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
