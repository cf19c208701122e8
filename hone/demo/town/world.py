"""The entities of the town: shops, ships, companies and people, all drawn from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TypeVar

from hone.demo.town import words


@dataclass(frozen=True, slots=True)
class Shop:
    """A shop and the five things everybody in town knows about it."""

    name: str
    owner: str
    street: str
    ware: str
    hour: str
    day: str

    def facts(self) -> dict[str, str]:
        """Attribute name -> value, as the questions ask for them."""
        return {"owner": self.owner, "street": self.street, "ware": self.ware, "hour": self.hour, "day": self.day}


@dataclass(frozen=True, slots=True)
class Ship:
    """A ship, its captain, the berth it calls home and the cargo it carries."""

    name: str
    captain: str
    berth: str
    cargo: str

    def facts(self) -> dict[str, str]:
        """Attribute name -> value, as the questions ask for them."""
        return {"captain": self.captain, "berth": self.berth, "cargo": self.cargo}


Entity = Shop | Ship
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """Everything that is fixed in the town. The last quarter of each list is kept for held-out questions."""

    seed: int
    shops: tuple[Shop, ...]
    ships: tuple[Ship, ...]
    new_shops: tuple[Shop, ...]
    companies: tuple[str, ...]
    townsfolk: tuple[str, ...]

    @property
    def entities(self) -> tuple[Entity, ...]:
        """Everything the documents tell facts about: shops, then ships."""
        return (*self.shops, *self.ships)

    def rng(self, *part: object) -> random.Random:
        """A random stream of its own for each part of the town, so that adding one part moves no other."""
        return random.Random("/".join(str(p) for p in (self.seed, *part)))


def part_of(split: str, items: tuple[T, ...]) -> tuple[T, ...]:
    """The first three quarters of `items` for "train", the last quarter for "held_out"."""
    assert split in ("train", "held_out"), split
    cut = len(items) * 3 // 4
    return items[:cut] if split == "train" else items[cut:]


def build(seed: int) -> World:
    """Draw the town: 96 shops, 40 ships, 24 shops that no document mentions, 36 companies, 160 townsfolk."""
    rng = random.Random(f"{seed}/world")
    people = _people(rng, 96 + 40 + 24 + 160)
    shops = _shops(rng, people)
    ship_names = _names(rng, words.SHIP_FIRST, words.SHIP_LAST, 40)
    berths, cargoes = _deal(rng, words.BERTHS, 40), _deal(rng, words.CARGOES, 40)
    ships = [Ship(n, people[120 + i], berths[i], cargoes[i]) for i, n in enumerate(ship_names)]
    places = rng.sample(words.COMPANY_FIRST, 36)
    companies = [f"{place} {trade}" for place, trade in zip(places, _deal(rng, words.TRADES, 36), strict=True)]
    return World(seed, tuple(shops[:96]), tuple(ships), tuple(shops[96:]), tuple(companies), tuple(people[160:]))


def _shops(rng: random.Random, people: list[str]) -> list[Shop]:
    names = _names(rng, words.SHOP_FIRST, words.SHOP_LAST, 120)
    streets, wares = _deal(rng, words.STREETS, 120), _deal(rng, words.WARES, 120)
    hours, days = _deal(rng, words.HOURS, 120), _deal(rng, words.WEEKDAYS, 120)
    return [Shop(name, people[i], streets[i], wares[i], hours[i], days[i]) for i, name in enumerate(names)]


def _names(rng: random.Random, first: tuple[str, ...], last: tuple[str, ...], count: int) -> list[str]:
    """Two-word names; the last word is never used twice, so it alone tells the entity."""
    return [f"the {a} {b}" for a, b in zip(_deal(rng, first, count), rng.sample(last, count), strict=True)]


def _people(rng: random.Random, count: int) -> list[str]:
    pairs = [f"{a} {b}" for a in words.FIRST_NAMES for b in words.SURNAMES]
    return rng.sample(pairs, count)


def _deal(rng: random.Random, values: tuple[T, ...], count: int) -> list[T]:
    """`count` values in random order, each of `values` about equally often."""
    deck = [values[i % len(values)] for i in range(count)]
    rng.shuffle(deck)
    return deck
