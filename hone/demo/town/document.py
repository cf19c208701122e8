"""A document of the town, and the small talk that fills the space between facts."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hone.demo.town import words


@dataclass(frozen=True, slots=True)
class Document:
    """A piece of plain text; `text` begins with the title."""

    title: str
    kind: str
    text: str


def document(title: str, kind: str, *paragraphs: str) -> Document:
    """Title and paragraphs joined by line ends."""
    return Document(title, kind, "\n".join((title, *paragraphs)))


SMALL_TALK = (
    "The wind came from the {wind} and the {boats} stayed in the harbour.",
    "It rained {much} in the {time}, and the {children} ran home.",
    "The {children} played with a {thing} near the {place} until the {time}.",
    "I sat by the {place} and ate a {food} while the gulls cried.",
    "In the {time} the {place} was {state}.",
    "A {animal} slept in front of the {place} all {time}.",
    "We drank tea and talked about the {season}.",
    "The {season} was {state} this year, and the {boats} came back late.",
    "Somebody left a {thing} on the bench by the {place}.",
    "My {kin} baked a {food} and gave half of it to the {animal}.",
    "The bells rang in the {time}, and the {place} became {state}.",
    "An old {worker} told us a story about a {animal} and a {thing}.",
    "The {worker} mended a {thing} and asked for nothing.",
    "From the {place} one could see the {boats} far out in the {wind}.",
    "I lost my {thing} near the {place}, but a {worker} found it.",
    "The {worker} and the {kin} of the mayor danced by the {place}.",
    "There was a smell of {smell} in the air all {time}.",
    "After the rain the {place} looked {state}.",
    "The {animal} of the {worker} has run away again.",
    "Next {season} the town will paint the {place}.",
    "Who painted the {place}? Nobody knows.",
    "Where is my {thing}? I cannot find it.",
    "What does the {animal} want? Please tell me.",
    "When does the {season} begin? I want to know.",
    "Which {thing} is the best? I cannot say.",
    "How much is a {thing}? How many do you need?",
    "Can you tell me the way to the {place}?",
    "Could you please give me your {thing}? I need it.",
    "Tell me about the {place}, and give me the name of the {worker}.",
    "To whom does the {animal} belong? Is it yours?",
    "On which day do we meet? In which week? At what hour?",
    "May I keep the {thing}? I bought it two days ago.",
    "Do I have to pay for the {food}? Does it cost much?",
    "Today the {place} is {state}, and I have no {thing} with me.",
    "I am going to the {place}. Will you come with me?",
    "Thank you for asking. I am well, and so is the {animal}.",
    "Read me the letter again, please. How does it end?",
    "What will I get back for the {thing}, and how long must I wait?",
    "For which {children} is the {food}? For all of them.",
    "The mayor says it is {state} today. Mayor or not, I stay at home.",
)
FILLINGS = {
    "wind": ("north", "south", "east", "west"),
    "boats": ("boats", "fishing boats", "small ships", "sailors", "ferries"),
    "much": ("a little", "hard", "without a pause", "softly"),
    "time": ("morning", "afternoon", "evening", "night"),
    "children": ("children", "pupils", "girls", "boys", "apprentices"),
    "thing": ("kite", "hat", "rope", "ball", "lantern", "penknife", "basket", "letter", "whistle", "blanket"),
    "place": ("fountain", "bridge", "lighthouse", "chapel", "mill", "town hall", "school", "old wall", "harbour gate", "well"),
    "food": ("plum cake", "smoked herring", "warm loaf", "bowl of soup", "pancake", "apple pie", "piece of cheese", "pear"),
    "smell": ("fresh bread", "tar", "smoke", "roses", "salt", "apples"),
    "state": ("quiet", "full of people", "cold", "bright", "wet", "cheerful", "grey", "busy"),
    "animal": ("cat", "dog", "goat", "donkey", "seagull", "goose", "parrot"),
    "season": ("spring", "summer", "autumn", "winter", "harvest", "fair"),
    "kin": ("aunt", "uncle", "sister", "brother", "cousin", "grandmother", "grandfather"),
    "worker": ("sailor", "baker", "fisherman", "carpenter", "teacher", "smith", "gardener", "postman", "tailor"),
}


def small_talk(rng: random.Random) -> str:
    """One harmless sentence about nothing in particular."""
    sentence = rng.choice(SMALL_TALK)
    return sentence.format(**{name: rng.choice(values) for name, values in FILLINGS.items()})


def date(rng: random.Random) -> str:
    """A day of the year in words, such as "Monday, 3 May"."""
    return f"{rng.choice(words.WEEKDAYS)}, {rng.randint(1, 28)} {rng.choice(words.MONTHS)}"
