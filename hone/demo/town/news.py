"""Headlines about companies, and news that says whether they were good, bad or neither."""

from __future__ import annotations

import random
from collections.abc import Iterator

from hone.demo.town.document import Document, date, document
from hone.demo.town.world import World

Event = tuple[str, str]
"""The event as a headline has it (present) and as a sentence tells it (past)."""

EVENTS: dict[str, tuple[Event, ...]] = {
    "positive": (
        ("wins a large order", "won a large order"),
        ("doubles its profit", "doubled its profit"),
        ("sells more than ever", "sold more than ever"),
        ("hires new workers", "hired new workers"),
        ("raises the wages", "raised the wages"),
        ("earns a prize", "earned a prize"),
        ("finds new customers", "found new customers"),
        ("pays back its debt", "paid back its debt"),
        ("reports a record year", "reported a record year"),
        ("gains the trust of buyers", "gained the trust of buyers"),
        ("grows in every market", "grew in every market"),
        ("opens a second factory", "opened a second factory"),
        ("expects higher sales", "expected higher sales"),
        ("beats all its rivals", "beat all its rivals"),
        ("improves its profit", "improved its profit"),
        ("celebrates strong sales", "celebrated strong sales"),
    ),
    "negative": (
        ("loses a large order", "lost a large order"),
        ("reports a heavy loss", "reported a heavy loss"),
        ("sells less than ever", "sold less than ever"),
        ("dismisses many workers", "dismissed many workers"),
        ("cuts the wages", "cut the wages"),
        ("pays a heavy fine", "paid a heavy fine"),
        ("loses old customers", "lost old customers"),
        ("sinks deeper into debt", "sank deeper into debt"),
        ("fears a bad year", "feared a bad year"),
        ("breaks the trust of buyers", "broke the trust of buyers"),
        ("shrinks in every market", "shrank in every market"),
        ("closes its last factory", "closed its last factory"),
        ("expects lower sales", "expected lower sales"),
        ("falls behind its rivals", "fell behind its rivals"),
        ("misses its goals", "missed its goals"),
        ("suffers from weak sales", "suffered from weak sales"),
    ),
    "neutral": (
        ("moves its office", "moved its office"),
        ("names a new director", "named a new director"),
        ("prints its yearly report", "printed its yearly report"),
        ("changes the colour of its sign", "changed the colour of its sign"),
        ("holds its yearly meeting", "held its yearly meeting"),
        ("sends a letter to its owners", "sent a letter to its owners"),
        ("keeps its prices the same", "kept its prices the same"),
        ("repeats its opening hours", "repeated its opening hours"),
        ("signs the usual papers", "signed the usual papers"),
        ("meets the mayor", "met the mayor"),
        ("plans a meeting", "planned a meeting"),
        ("counts its stock", "counted its stock"),
        ("paints its office", "painted its office"),
        ("chooses a new clerk", "chose a new clerk"),
        ("answers a letter", "answered a letter"),
        ("shows its books", "showed its books"),
    ),
}
HEADLINES = {
    "train": (
        "{c} {now}", "{c} {now} in {m}", "{place}: {c} {now}", "{c} {now} again", "{c} {now} this week", "News: {c} {now}",
        "{c} now {now}", "Company {c} {now}", "{c} {now}, says the mayor",
    ),
    "held_out": ("{c} {now} this {m}", "Today {c} {now}", "Mayor says {c} {now}", "After a quiet {m} {c} {now}"),
}  # fmt: skip
SEASONS = ("spring", "summer", "autumn", "winter")
PLACES = ("Harbour", "Market", "Town hall", "Quay", "Exchange")
VERDICTS = {
    "positive": ("This was good news for the company.", "The news was good.", "People were glad about it.", "The town cheered."),
    "negative": ("This was bad news for the company.", "The news was bad.", "People were sad about it.", "The town sighed."),
    "neutral": (
        "This was neither good nor bad for the company.",
        "The news was neither good nor bad.",
        "Nobody cared.",
        "The town did not mind.",
    ),
}
CALLS = (
    "The Post called the news {label}.", "The mood was {label}.", "In one word: {label}.", "Merchants found it {label}.",
    "For the company this is {label}.", "The clerk marked it as {label}.",
)  # fmt: skip
STORIES = (
    "{c} {past} in {m}.", "Last {m} {c} {past}.", "We hear that {c} {past}.", "The company {c} {past}.",
    "It was said at the market that {c} {past}.", "{c} {past}, and the whole town talked about it.",
)  # fmt: skip


def headline(rng: random.Random, company: str, event: Event, split: str = "train") -> str:
    """A headline in one of the frames of `split`."""
    return fill(rng.choice(HEADLINES[split]), rng, company, event)


def fill(frame: str, rng: random.Random, company: str, event: Event) -> str:
    """One frame about one company; place and season are drawn."""
    return frame.format(c=company, now=event[0], past=event[1], m=rng.choice(SEASONS), place=rng.choice(PLACES))


def write(world: World, rng: random.Random, share: float = 1.0) -> Iterator[Document]:
    """All news documents of one volume."""
    for _ in range(max(1, round(300 * share))):
        notes = [_note(world, rng) for _ in range(rng.randint(3, 6))]
        yield document(f"Market notes, {date(rng)}", "headlines", *notes)


def _note(world: World, rng: random.Random) -> str:
    label = rng.choice(tuple(EVENTS))
    company, event = rng.choice(world.companies), rng.choice(EVENTS[label])
    call, verdict = rng.choice(CALLS).format(label=label), rng.choice(VERDICTS[label])
    told = fill(rng.choice(STORIES), rng, company, event)
    shapes = (
        f"{headline(rng, company, event)}. {verdict} {call}",
        f"{headline(rng, company, event)}. {call}",
        f"{told} {verdict} {call}",
        f"{headline(rng, company, event)}. {told} {call}",
        f"{told} {call} {verdict}",
        f"{headline(rng, company, event)}\n{label}",
        f"{headline(rng, company, event)}\n{label}",
    )
    return rng.choice(shapes)
