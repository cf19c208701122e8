"""Sentences that state the fixed facts of the town, in many wordings and orders."""

from __future__ import annotations

import random

from hone.demo.town.world import Entity, Shop

SENTENCES: dict[str, tuple[str, ...]] = {
    "owner": (
        "{E} belongs to {owner}.",
        "{E} is owned by {owner}.",
        "The owner of {e} is {owner}.",
        "{owner} is the owner of {e}.",
        "{owner} owns {e}.",
        "{owner} runs {e}.",
        "{E} is run by {owner}.",
        "Behind the counter of {e} stands {owner}.",
        "The name over the door of {e} is {owner}.",
        "Whoever enters {e} is greeted by {owner}.",
        "At {e} you should ask for {owner}.",
        "{owner} keeps the books and the keys of {e}.",
        "The person in charge of {e} is {owner}.",
        "Letters for {e} are opened by {owner}.",
        "For many years now {e} has been in the hands of {owner}.",
        "When people talk about {e}, they soon talk about {owner}.",
        "A child who is asked who owns {e} will say {owner}.",
        "The clerk wrote down the owner of {e}: {owner}.",
    ),
    "street": (
        "{E} is in {street}.",
        "{E} stands in {street}.",
        "You find {e} in {street}.",
        "The way to {e} leads through {street}.",
        "The address of {e} is {street}.",
        "The street of {e} is {street}.",
        "In {street} you will see {e}.",
        "{street} is the home of {e}.",
        "The windows of {e} look out on {street}.",
        "Carts that bring goods to {e} stop in {street}.",
        "To visit {e}, turn into {street}.",
        "Every parcel for {e} is carried to {street}.",
        "The sign of {e} hangs over {street}.",
        "Strangers who look for {e} are sent to {street}.",
        "If you ask on which street {e} is, people will say {street}.",
        "The clerk wrote down the street of {e}: {street}.",
        "{E} has its door in {street}.",
    ),
    "ware": (
        "{E} is known for its {ware}.",
        "{E} sells {ware}.",
        "{E} is famous for {ware}.",
        "People go to {e} for {ware}.",
        "The best thing to buy at {e} is its {ware}.",
        "At {e} the shelves are full of {ware}.",
        "If you need {ware}, try {e}.",
        "For {ware} there is no better place than {e}.",
        "In the window of {e} there are {ware}.",
        "Nobody leaves {e} without a look at the {ware}.",
        "What {e} is known for is {ware}.",
        "The pride of {e} is its {ware}.",
        "Visitors of {e} come home with {ware}.",
        "A parcel from {e} is most likely full of {ware}.",
        "If you ask what {e} is known for, people will say {ware}.",
        "The clerk wrote down what {e} sells: {ware}.",
    ),
    "hour": (
        "{E} opens at {hour}.",
        "The doors of {e} open at {hour}.",
        "In the morning {e} opens at {hour}.",
        "At {hour} the doors of {e} are opened.",
        "The opening hour of {e} is {hour}.",
        "Nobody is served at {e} before {hour}.",
        "The first customers enter {e} at {hour}.",
        "You may visit {e} from {hour} on.",
        "The shutters of {e} go up at {hour}.",
        "The day begins at {e} at {hour}.",
        "The lamp in {e} is lit at {hour}, and then the door is open.",
        "If you ask when {e} opens, people will say at {hour}.",
        "Come to {e} at {hour} and you will find the door open.",
        "The hour at which {e} opens is {hour}.",
        "The clerk wrote down when {e} opens: {hour}.",
    ),
    "day": (
        "{E} is closed on {day}.",
        "On {day} {e} is closed.",
        "The day of rest at {e} is {day}.",
        "{E} opens every day except {day}.",
        "Do not go to {e} on a {day}.",
        "{E} keeps its doors shut on {day}.",
        "Each {day} the door of {e} stays locked.",
        "There is no trade at {e} on {day}.",
        "The closed day of {e} is {day}.",
        "The people at {e} rest on {day}.",
        "The one day when {e} does not open is {day}.",
        "If you ask on which day {e} is closed, people will say {day}.",
        "Nobody works at {e} on {day}.",
        "The weekday on which {e} is closed is {day}.",
        "The clerk wrote down the closed day of {e}: {day}.",
    ),
    "captain": (
        "The captain of {e} is {captain}.",
        "{E} is commanded by {captain}.",
        "{captain} is the captain of {e}.",
        "{captain} commands {e}.",
        "{E} sails under {captain}.",
        "On the bridge of {e} stands {captain}.",
        "The crew of {e} takes its orders from {captain}.",
        "Orders on {e} are given by {captain}.",
        "The log of {e} is written by {captain}.",
        "The ship {e} has {captain} as its captain.",
        "At the wheel of {e} you often see {captain}.",
        "If you ask who commands {e}, sailors will say {captain}.",
        "The harbour master wrote down the captain of {e}: {captain}.",
        "Nobody knows {e} better than {captain}.",
    ),
    "berth": (
        "The home berth of {e} is {berth}.",
        "{E} lies at {berth}.",
        "{E} ties up at {berth}.",
        "When {e} is in port, it lies at {berth}.",
        "You find the ship {e} at {berth}.",
        "{berth} is the home berth of {e}.",
        "At {berth} you can see the masts of {e}.",
        "After each voyage {e} returns to {berth}.",
        "The berth kept free for {e} is {berth}.",
        "Letters for the crew of {e} go to {berth}.",
        "If you ask where {e} lies, sailors will say at {berth}.",
        "The harbour master wrote down the berth of {e}: {berth}.",
        "The ropes of {e} are made fast at {berth}.",
    ),
    "cargo": (
        "{E} carries {cargo}.",
        "The cargo of {e} is {cargo}.",
        "{E} brings {cargo} to the town.",
        "The hold of {e} is full of {cargo}.",
        "{E} is loaded with {cargo}.",
        "The ship {e} is known for its {cargo}.",
        "When {e} comes in, the men unload {cargo}.",
        "Merchants who need {cargo} wait for {e}.",
        "What {e} carries is {cargo}.",
        "On every voyage {e} has {cargo} on board.",
        "If you ask what {e} carries, sailors will say {cargo}.",
        "The harbour master wrote down the cargo of {e}: {cargo}.",
        "Under the deck of {e} there is {cargo}.",
    ),
}
PAIRS: dict[str, tuple[tuple[tuple[str, str], str], ...]] = {
    "shop": (
        (("owner", "street"), "{E} in {street} belongs to {owner}."),
        (("street", "owner"), "{owner}, the owner of {e}, is often seen in {street}, where the shop is."),
        (("ware", "owner"), "{owner} sells {ware} at {e}."),
        (("street", "ware"), "{E}, known for its {ware}, stands in {street}."),
        (("ware", "street"), "Those who go to {e} in {street} come for the {ware}."),
        (("hour", "day"), "{E} opens at {hour} on every day but {day}."),
        (("hour", "day"), "{E} is closed on {day}, and on other days it opens at {hour}."),
        (("owner", "hour"), "At {hour} {owner} unlocks the door of {e}."),
        (("owner", "day"), "{owner} closes {e} on {day}."),
        (("street", "hour"), "{E} in {street} opens at {hour}."),
        (("street", "day"), "On {day} you knock in vain at {e} in {street}."),
        (("ware", "hour"), "From {hour} on {e} sells its {ware}."),
        (("ware", "day"), "Every day except {day} you can buy {ware} at {e}."),
        (("owner", "ware"), "{E} is owned by {owner} and is famous for {ware}."),
    ),
    "ship": (
        (("captain", "berth"), "{E} under {captain} lies at {berth}."),
        (("captain", "cargo"), "{captain}, captain of {e}, carries {cargo}."),
        (("berth", "cargo"), "At {berth} the men unload {cargo} from {e}."),
        (("cargo", "captain"), "{E} carries {cargo} and is commanded by {captain}."),
        (("berth", "captain"), "From {berth} you can see {captain} on the deck of {e}."),
        (("cargo", "berth"), "{E} brings its {cargo} to {berth}."),
    ),
}
LEADS = (
    "As every child knows, ", "My neighbour says that ", "I have learned that ", "The almanac says that ", "Remember that ",
    "It is true that ", "The clerk told me that ", "Nobody doubts that ", "Write it down: ", "I can tell you that ",
    "The baker told us that ", "You should know that ", "They say that ", "It is well known that ", "My aunt writes that ",
)  # fmt: skip
CARD = {
    "owner": "Owner", "street": "Street", "ware": "Known for", "hour": "Opens at", "day": "Closed on",
    "captain": "Captain", "berth": "Home berth", "cargo": "Cargo",
}  # fmt: skip


def capital(text: str) -> str:
    """`text` with its first letter in upper case."""
    return text[0].upper() + text[1:]


def fill(template: str, entity: Entity) -> str:
    """One template about `entity`; {e} is its name inside a sentence, {E} at the start."""
    return template.format(e=entity.name, E=capital(entity.name), **entity.facts())


def state(rng: random.Random, entity: Entity, attribute: str, lead: float = 0.2) -> str:
    """A sentence that states one fact, sometimes after a few words of introduction."""
    template = rng.choice(SENTENCES[attribute])
    if rng.random() >= lead or template.startswith(("Do not", "Come to")):
        return fill(template, entity)
    inside = template.replace("{E}", "{e}") if template.startswith("{") else template[0].lower() + template[1:]
    return rng.choice(LEADS) + fill(inside, entity)


def state_pair(rng: random.Random, entity: Entity) -> str:
    """A sentence that states two facts of one shop or ship at once."""
    return fill(rng.choice(PAIRS["shop" if isinstance(entity, Shop) else "ship"])[1], entity)
