"""Documents about the fixed facts: almanac, directory, guide, letters, diary, notices."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TypeVar

from hone.demo.town import words
from hone.demo.town.document import Document, date, document, small_talk
from hone.demo.town.facts import CARD, capital, state, state_pair
from hone.demo.town.world import Entity, World

Fact = tuple[Entity, str]
T = TypeVar("T")


def write(world: World, rng: random.Random, share: float = 1.0) -> Iterator[Document]:
    """All fact documents of one volume. With share 1 each fact is stated more than thirty times."""
    entities = list(world.entities)

    def deal(rounds: int) -> list[Entity]:
        return _sample(rng, [e for _ in range(rounds) for e in rng.sample(entities, len(entities))], share)

    yield from (almanac(rng, entity) for entity in deal(5))
    yield from (directory(rng, group) for group in _groups(rng, deal(4), 2, 5))
    yield from (registers(rng, group) for group in _groups(rng, deal(4), 5, 9))
    yield from (pairs(world, rng, group) for group in _groups(rng, deal(10), 4, 7))
    for maker, rounds in ((letter, 4), (diary, 3), (guide, 11), (gossip, 2)):
        facts = [fact for _ in range(rounds) for fact in _facts(rng, entities)]
        yield from (maker(world, rng, group) for group in _groups(rng, _sample(rng, facts, share), 4, 8))


def almanac(rng: random.Random, entity: Entity) -> Document:
    """Everything about one shop or ship, in any order."""
    attributes = list(entity.facts())
    rng.shuffle(attributes)
    sentences = [state(rng, entity, attribute, lead=0.0) for attribute in attributes]
    again = rng.choice(attributes[:-1])
    sentences.append(f"{rng.choice(REPEATS)} {state(rng, entity, again, lead=0.0)}")
    year = rng.randint(10, 99)
    return document(f"Almanac of {words.TOWN}, year {year}: {entity.name}", "almanac", " ".join(sentences))


REPEATS = ("Once more:", "To repeat it:", "In short:", "And again:", "Do not forget:")


def directory(rng: random.Random, group: list[Entity]) -> Document:
    """Cards with one line per fact."""
    cards = []
    for entity in group:
        items = list(entity.facts().items())
        rng.shuffle(items)
        cards.append("\n".join([capital(entity.name), *(f"{CARD[key]}: {value}" for key, value in items)]))
    return document(f"Directory of {words.TOWN}, page {rng.randint(1, 99)}", "directory", *cards)


LISTS = {
    "owner": ("Owners of shops", "{e}, {v}"),
    "street": ("Streets of shops", "{e}, {v}"),
    "ware": ("What the shops are known for", "{e}, {v}"),
    "hour": ("When the shops open", "{e}, {v}"),
    "day": ("When the shops are closed", "{e}, {v}"),
    "captain": ("Captains of ships", "{e}, {v}"),
    "berth": ("Berths of ships", "{e}, {v}"),
    "cargo": ("Cargoes of ships", "{e}, {v}"),
}


def registers(rng: random.Random, group: list[Entity]) -> Document:
    """Lists by attribute: for each kind of fact, every entity and its value."""
    lines = []
    for attribute, (heading, line) in LISTS.items():
        known = [e for e in rng.sample(group, len(group)) if attribute in e.facts()]
        if known:
            lines.append(f"{heading}: " + "; ".join(line.format(e=e.name, v=e.facts()[attribute]) for e in known) + ".")
    rng.shuffle(lines)
    return document(f"Register of the town hall, sheet {rng.randint(1, 99)}", "register", *lines)


def pairs(world: World, rng: random.Random, group: list[Entity]) -> Document:
    """News in brief: two facts a sentence."""
    sentences = [state_pair(rng, e) for e in group]
    sentences.insert(rng.randrange(len(sentences)), small_talk(rng))
    return document(f"{words.TOWN} Post, {date(rng)}", "news", " ".join(sentences))


def letter(world: World, rng: random.Random, facts: list[Fact]) -> Document:
    """A letter from one person of the town to another, full of news."""
    sender, friend = rng.sample(world.townsfolk, 2)
    body = [rng.choice(OPENINGS), *_mixed(rng, facts, 0.25), rng.choice(CLOSINGS)]
    return document(
        f"Letter of {sender}, {date(rng)}", "letter", f"Dear {friend.split()[0]},", " ".join(body), f"Yours, {sender.split()[0]}"
    )


OPENINGS = (
    "I hope this letter finds you well.", "Thank you for your last letter.", "You asked me for news of the town.",
    "It is late, but I want to write to you.", "You will visit us soon, so here is what you should know.",
    "The post leaves in an hour, so I will be quick.",
)  # fmt: skip
CLOSINGS = (
    "Write to me soon.", "Give my love to your family.", "I hope to see you at the fair.", "The lamp is going out, so I stop here.",
    "That is all for today.", "Come and see it all with your own eyes.",
)  # fmt: skip


def diary(world: World, rng: random.Random, facts: list[Fact]) -> Document:
    """A page of a diary."""
    writer = rng.choice(world.townsfolk)
    return document(f"Diary of {writer}, {date(rng)}", "diary", " ".join([small_talk(rng), *_mixed(rng, facts, 0.3)]))


def guide(world: World, rng: random.Random, facts: list[Fact]) -> Document:
    """A page for visitors."""
    title = rng.choice(("A guide for visitors", "A walk through the town", "What to see", "Advice for travellers"))
    return document(f"{title}, page {rng.randint(1, 99)}", "guide", " ".join(state(rng, e, a, lead=0.1) for e, a in facts))


def gossip(world: World, rng: random.Random, facts: list[Fact]) -> Document:
    """What people tell each other, one saying a line."""
    lines = [f"{rng.choice(world.townsfolk)} {rng.choice(SAYINGS)}: {state(rng, e, a, lead=0.0)}" for e, a in facts]
    return document(f"Heard at the {rng.choice(('well', 'market', 'harbour', 'bridge', 'mill'))}, {date(rng)}", "gossip", *lines)


SAYINGS = ("said", "remembered", "wrote", "told the children", "explained to a stranger", "answered", "repeated", "told a sailor")


def _mixed(rng: random.Random, facts: list[Fact], talk: float) -> Iterator[str]:
    for entity, attribute in facts:
        yield state(rng, entity, attribute)
        if rng.random() < talk:
            yield small_talk(rng)


def _facts(rng: random.Random, entities: list[Entity]) -> list[Fact]:
    facts = [(entity, attribute) for entity in entities for attribute in entity.facts()]
    rng.shuffle(facts)
    return facts


def _sample(rng: random.Random, items: list[T], share: float) -> list[T]:
    return items if share >= 1 else rng.sample(items, max(1, round(len(items) * share)))


def _groups(rng: random.Random, items: list[T], low: int, high: int) -> Iterator[list[T]]:
    start = 0
    while start < len(items):
        size = rng.randint(low, high)
        yield items[start : start + size]
        start += size
