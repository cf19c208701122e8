"""Papers that are copied word by word: contracts and their clauses, lists read back, notices, telegrams."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hone.demo.town import words
from hone.demo.town.document import FILLINGS, Document, date, document
from hone.demo.town.world import World

CLAUSES: dict[str, tuple[str, ...]] = {
    "rent": ("{A} pays {B} a rent of {n} coins every {day}.", "The rent is {n} coins and is due on {day}."),
    "delivery": ("The delivery of {n} {goods} takes place every {day}.", "{A} makes the delivery of {goods} before {day}."),
    "keys": ("The keys stay with {A} until {month}.", "{B} returns the keys on the last {day} of {month}."),
    "repairs": ("Repairs up to {n} coins are paid by {A}.", "{B} makes all repairs before {month}."),
    "notice": ("Notice must be given {n} days before {month}.", "{A} may give notice on any {day} in {month}."),
    "fine": ("Whoever is late pays a fine of {n} coins.", "The fine for a lost {good} is {n} coins."),
    "storage": ("{A} keeps the {goods} in storage for {n} days.", "The storage at {berth} costs {n} coins."),
    "insurance": ("The insurance costs {n} coins and is paid by {B}.", "{A} pays the insurance every {month}."),
    "horses": ("{B} feeds the horses until {month}.", "The horses rest in {street} every {day}."),
    "wages": ("The wages are {n} coins, paid on {day}.", "{A} pays the wages of {n} workers in {month}."),
    "garden": ("The garden belongs to {A} from {month} on.", "{B} cuts the grass of the garden every {day}."),
    "roof": ("The roof is mended by {B} before {month}.", "{A} pays {n} coins for the new roof."),
    "water": ("Water may be taken from the well on {day}.", "{B} brings {n} buckets of water every {day}."),
    "noise": ("There is no noise after {hour} on {day}.", "{A} makes no noise before {hour}."),
    "boat": ("The boat of {A} lies at {berth} until {month}.", "{B} may use the boat for {n} days."),
    "candles": ("{A} buys the candles for {n} coins.", "The candles are put out at {hour} on {day}."),
    "apprentice": ("The apprentice works for {B} for {n} months.", "{A} teaches the apprentice every {day}."),
    "meals": ("Meals are served at {hour} every {day}.", "{B} pays {n} coins for the meals."),
    "dog": ("The dog of {A} sleeps in the yard until {month}.", "{B} walks the dog at {hour}."),
    "profit": ("The profit is shared on the first {day} of {month}.", "{A} takes {n} coins of the profit."),
    "tools": ("The tools are cleaned by {B} every {day}.", "{A} lends {n} tools to {B}."),
    "fire": ("{B} keeps the fire burning until {hour}.", "No fire may be lit in {street} on {day}."),
    "taxes": ("The taxes are paid by {A} in {month}.", "{B} pays {n} coins of taxes."),
    "cellar": ("The cellar is let to {B} for {n} months.", "{A} stores {n} {goods} in the cellar."),
}
QUOTES = (
    "Clause {k} reads: {clause}",
    "Clause {k} says: {clause}",
    "Clause {k} of the contract reads: {clause}",
    "In clause {k} it is written: {clause}",
    "The judge read clause {k} aloud: {clause}",
    "The exact words of clause {k} are: {clause}",
    "{name} asked for clause {k}, and the clerk read: {clause}",
    "The wording of clause {k} is: {clause}",
    "To repeat clause {k}: {clause}",
    "{name} copied clause {k} into a letter: {clause}",
    "The clause about the {topic} reads: {clause}",
    "On the {topic} the contract says: {clause}",
    "About the {topic} it is written: {clause}",
    "{name} asked about the {topic}, and the clerk read: {clause}",
    "The words about the {topic} are: {clause}",
    "The {topic}: {clause}",
    "Clause {k} deals with the {topic}: {clause}",
    "The contract deals with the {topic} in clause {k}: {clause}",
    "The {topic} can be found in clause {k}.",
    "The clause that deals with the {topic} is clause {k}.",
    "{name} asked which clause deals with the {topic}, and the clerk said: clause {k}.",
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
    return rng.choice(CLAUSES[topic]).format(
        A=a, B=b, n=rng.randint(2, 60), goods=good[1], good=good[0], day=rng.choice(words.WEEKDAYS), month=rng.choice(words.MONTHS),
        berth=rng.choice(words.BERTHS), street=rng.choice(words.STREETS), hour=rng.choice(words.HOURS),
    )  # fmt: skip


PLURALS = tuple((g, g + "s") for g in words.GOODS if g not in ("brush", "scarf", "loaf", "knife", "fish"))


def write(world: World, rng: random.Random, share: float = 1.0) -> Iterator[Document]:
    """All papers of one volume; nothing in them is true anywhere else, so only copying helps."""
    makers: tuple[tuple[Callable[[World, random.Random], Document], int], ...] = (
        (court, 560), (minutes, 180), (passengers, 110), (crier, 130), (ledger, 130),
    )  # fmt: skip
    for maker, count in makers:
        for _ in range(max(1, round(count * share))):
            yield maker(world, rng)


def court(world: World, rng: random.Random) -> Document:
    """A contract, and what was quoted from it."""
    paper = contract(rng, world.townsfolk)
    quotes = [quote(rng, world, paper) for _ in range(rng.randint(3, 6))]
    between = "\n" if rng.random() < 0.5 else " "
    title, _, clauses = paper.text().partition("\n")
    return document(title, "contract", clauses, between.join(quotes))


def quote(rng: random.Random, world: World, paper: Contract) -> str:
    """A sentence that repeats one clause of `paper`, or tells its number."""
    i = rng.randrange(len(paper.clauses))
    frame = rng.choice(QUOTES)
    return frame.format(k=i + 1, clause=paper.clauses[i], topic=paper.topics[i], name=rng.choice(world.townsfolk))


def minutes(world: World, rng: random.Random) -> Document:
    """Two contracts read out at the town hall, each quoted afterwards."""
    papers = [contract(rng, world.townsfolk, 3, 4) for _ in range(2)]
    quotes = [f"{name}: {quote(rng, world, p)}" for p in papers for name in rng.sample(world.townsfolk, 2)]
    lines = [papers[0].text(), *quotes[:2], papers[1].text(), *quotes[2:]]
    return document(f"Minutes of the town hall, {date(rng)}", "minutes", *lines)


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
    "Look up the {thing} and you find {number}.",
)  # fmt: skip
