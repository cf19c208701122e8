"""How people ask: question frames for each task, those for training and those kept for the held-out questions."""

from __future__ import annotations

Frames = dict[str, tuple[str, ...]]
"""Split ("train" or "held_out") -> frames."""

FACTS: dict[str, Frames] = {
    "owner": {
        "train": (
            "Who owns {e}?",
            "Who is the owner of {e}?",
            "To whom does {e} belong?",
            "Who runs {e}?",
            "Tell me the owner of {e}.",
            "Please tell me who owns {e}.",
            "I want to know who runs {e}.",
            "I am going to {e}. Who is the owner?",
            "Give me the name of the owner of {e}.",
            "Can you tell me the name of the owner of {e}?",
        ),
        "held_out": (
            "I want to know who the owner of {e} is.",
            "Please give me the name of the owner of {e}.",
            "Can you tell me who owns {e}?",
        ),
    },
    "street": {
        "train": (
            "On which street is {e}?",
            "Where is {e}?",
            "What is the address of {e}?",
            "In which street do I find {e}?",
            "Tell me the street of {e}.",
            "Please tell me where {e} is.",
            "I am going to {e}. Where is it?",
            "I want to know the address of {e}.",
            "Give me the address of {e}.",
            "Can you tell me where I find {e}?",
        ),
        "held_out": (
            "Can you tell me on which street I find {e}?",
            "Please give me the street of {e}.",
            "I want to know where {e} is.",
        ),
    },
    "ware": {
        "train": (
            "What is {e} known for?",
            "What does {e} sell?",
            "What can I buy at {e}?",
            "What is {e} famous for?",
            "Tell me what {e} sells.",
            "Please tell me what {e} is known for.",
            "I am going to {e}. What do they sell?",
            "I want to know what I can buy at {e}.",
            "Can you tell me what {e} is famous for?",
        ),
        "held_out": (
            "Can you tell me what I can buy at {e}?",
            "I want to know what {e} is known for.",
            "Please tell me what {e} sells.",
        ),
    },
    "hour": {
        "train": (
            "When does {e} open?",
            "At what hour does {e} open?",
            "What is the opening hour of {e}?",
            "When can I visit {e}?",
            "Tell me when {e} opens.",
            "Please tell me the opening hour of {e}.",
            "I am going to {e}. When does it open?",
            "I want to know at what hour {e} opens.",
            "Can you tell me when I can visit {e}?",
        ),
        "held_out": (
            "Can you tell me when {e} opens?",
            "I want to know the opening hour of {e}.",
            "Please tell me at what hour {e} opens.",
        ),
    },
    "day": {
        "train": (
            "On which day is {e} closed?",
            "When is {e} closed?",
            "What is the closed day of {e}?",
            "Which day is the day of rest at {e}?",
            "Tell me when {e} is closed.",
            "Please tell me the closed day of {e}.",
            "I am going to {e}. On which day is it closed?",
            "I want to know on which day {e} is closed.",
            "Can you tell me the day of rest at {e}?",
        ),
        "held_out": (
            "Can you tell me on which day {e} is closed?",
            "I want to know the closed day of {e}.",
            "Please tell me when {e} is closed.",
        ),
    },
    "captain": {
        "train": (
            "Who is the captain of {e}?",
            "Who commands {e}?",
            "Tell me the captain of {e}.",
            "Please tell me who commands {e}.",
            "Give me the name of the captain of {e}.",
            "I want to know who commands {e}.",
            "Under which captain does {e} sail?",
            "Can you tell me the name of the captain of {e}?",
        ),
        "held_out": (
            "Can you tell me who commands {e}?",
            "I want to know who the captain of {e} is.",
            "Please give me the name of the captain of {e}.",
        ),
    },
    "berth": {
        "train": (
            "Where does {e} lie?",
            "What is the home berth of {e}?",
            "At which berth do I find {e}?",
            "Tell me the home berth of {e}.",
            "Please tell me where {e} lies.",
            "I want to know at which berth {e} lies.",
            "Give me the berth of {e}.",
            "Can you tell me the berth of {e}?",
        ),
        "held_out": (
            "Can you tell me where {e} lies?",
            "I want to know the home berth of {e}.",
            "Please tell me at which berth I find {e}.",
        ),
    },
    "cargo": {
        "train": (
            "What does {e} carry?",
            "What is the cargo of {e}?",
            "Tell me the cargo of {e}.",
            "Please tell me what {e} carries.",
            "What does {e} bring to the town?",
            "I want to know the cargo of {e}.",
            "Which cargo is on board of {e}?",
            "Give me the cargo of {e}.",
        ),
        "held_out": (
            "Can you tell me what {e} carries?",
            "Please tell me the cargo of {e}.",
            "I want to know what {e} brings to the town.",
        ),
    },
}
ANSWERS = {
    "owner": "The owner of {e} is {owner}.",
    "street": "{E} is in {street}.",
    "ware": "{E} is known for its {ware}.",
    "hour": "{E} opens at {hour}.",
    "day": "{E} is closed on {day}.",
    "captain": "The captain of {e} is {captain}.",
    "berth": "{E} lies at {berth}.",
    "cargo": "{E} carries {cargo}.",
}
SENTIMENT: Frames = {
    "train": (
        "Is this headline positive, negative or neutral? {h}",
        "{h}\nPositive, negative or neutral?",
        "What is the mood of this headline? {h}",
        "Headline: {h}\nIs the news positive, negative or neutral?",
        "Tell me in one word if this is good news: {h}",
        "Is this good or bad for the company? {h}",
        "Read this: {h}\nHow is the news?",
        "Mark this headline: {h}",
        "{h}\nWhat is the mood?",
    ),
    "held_out": (
        "What is the mood of this news? {h}",
        "{h}\nIs this headline positive, negative or neutral?",
        "Tell me the mood in one word: {h}",
        "Read this headline: {h}\nPositive, negative or neutral?",
    ),
}
CONTRACT: dict[str, Frames] = {
    "number": {
        "train": (
            "What does clause {k} say?",
            "Read me clause {k}.",
            "Please read clause {k}.",
            "What are the words of clause {k}?",
            "What is written in clause {k}?",
            "Tell me the words of clause {k}.",
            "How does clause {k} read?",
            "Give me the wording of clause {k}.",
            "I want to know what is written in clause {k}.",
        ),
        "held_out": (
            "Please tell me what clause {k} says.",
            "Give me the words of clause {k}.",
            "I want to know the wording of clause {k}.",
        ),
    },
    "topic": {
        "train": (
            "What does the contract say about the {t}?",
            "What is written about the {t}?",
            "Read me the words about the {t}.",
            "Tell me what the contract says about the {t}.",
            "Please read the clause about the {t}.",
            "How does the clause about the {t} read?",
            "I want to know what is written about the {t}.",
            "Give me the wording of the clause about the {t}.",
        ),
        "held_out": (
            "Please tell me what is written about the {t}.",
            "What does the clause about the {t} say?",
            "I want to know what the contract says about the {t}.",
        ),
    },
    "which": {
        "train": (
            "Which clause deals with the {t}?",
            "In which clause is the {t}?",
            "Where do I find the {t}?",
            "Tell me which clause deals with the {t}.",
            "Please tell me where the {t} can be found.",
            "Which clause is about the {t}?",
            "I want to know which clause is about the {t}.",
            "Give me the number of the clause about the {t}.",
        ),
        "held_out": (
            "Please tell me which clause is about the {t}.",
            "In which clause do I find the {t}?",
            "Can you tell me which clause deals with the {t}?",
        ),
    },
}
CONTRACT_ANSWERS = {
    "number": "Clause {k}. {clause}",
    "topic": "{clause}",
    "which": "The {t} can be found in clause {k}.",
}
SUPPORT: dict[str, Frames] = {
    "days": {
        "train": (
            "How many days do I have with {r}?",
            "How long may I wait with {r}?",
            "I have {r}. How many days do I have?",
            "Tell me how many days I have with {r}.",
            "With {r}, how many days are there?",
            "Please tell me how long I may wait with {r}.",
            "I have {r}. How long may I wait?",
            "What is the limit in days with {r}?",
        ),
        "held_out": (
            "I want to know how many days I have with {r}.",
            "With {r}, how long may I wait?",
            "I have {r}. Please tell me how many days I have.",
        ),
    },
    "outcome": {
        "train": (
            "What do I get with {r}?",
            "I have {r}. What do I get?",
            "What will I get back with {r}?",
            "Tell me what I get with {r}.",
            "With {r}, what will I get?",
            "Please tell me what I get back with {r}.",
            "I have {r}. What will I get back?",
            "Do I get a refund, an exchange or a voucher with {r}?",
        ),
        "held_out": (
            "I want to know what I get with {r}.",
            "With {r}, what do I get back?",
            "I have {r}. Please tell me what I get.",
        ),
    },
    "fee": {
        "train": (
            "What does delivery cost?",
            "How much is the delivery?",
            "How many coins is the delivery?",
            "Tell me the price of delivery.",
            "I want a {x} brought home. What does it cost?",
            "Please tell me what delivery costs.",
            "Can you bring me the {x}? How much is it?",
            "How much do I pay for the delivery of a {x}?",
        ),
        "held_out": (
            "I want to know what delivery costs.",
            "How many coins do I pay for the delivery of a {x}?",
            "Please tell me the price of delivery.",
        ),
    },
    "case": {
        "train": (
            "I bought a {x} {d} days ago and have {r}. May I return it?",
            "My {x} is {d} days old and I have {r}. What do I get?",
            "I have {r} and a {x} that I bought {d} days ago. May I bring it back?",
            "After {d} days I want to return a {x}. I have {r}.",
            "{d} days ago I bought a {x}. I have {r}. What do I get?",
            "May I return a {x} after {d} days? I have {r}.",
            "I want to bring back a {x} after {d} days. I have {r}. May I?",
            "I have {r}. I bought the {x} {d} days ago. Do I get anything back?",
        ),
        "held_out": (
            "I have {r}. May I return a {x} after {d} days?",
            "{d} days ago I bought a {x} and I have {r}. May I bring it back?",
            "I bought a {x} {d} days ago. I have {r}. What do I get?",
        ),
    },
}
SUMS: Frames = {
    "train": (
        "A {x} costs {a} coins and a {y} costs {b} coins. What do both cost?",
        "I buy a {x} for {a} coins and a {y} for {b} coins. How much is it?",
        "How much are a {x} at {a} coins and a {y} at {b} coins?",
        "What is the sum of {a} coins and {b} coins?",
        "What do I pay for a {x} at {a} coins and a {y} at {b} coins?",
        "{a} coins for a {x} and {b} coins for a {y}: how much is it together?",
        "Please tell me the sum: a {x} for {a} coins, a {y} for {b} coins.",
        "The {x} is {a} coins, the {y} is {b} coins. How much do I pay?",
        "How many coins are {a} coins and {b} coins?",
    ),
    "held_out": (
        "I buy a {x} at {a} coins and a {y} at {b} coins. What do I pay?",
        "What do a {x} for {a} coins and a {y} for {b} coins cost together?",
        "The {x} costs {a} coins and the {y} costs {b} coins. How much is it together?",
    ),
}
CHANGES: Frames = {
    "train": (
        "I pay {a} coins with {p} coins. What is the change?",
        "A {x} costs {a} coins and I give {p} coins. How much do I get back?",
        "The price is {a} coins. I pay with {p} coins. How many coins come back?",
        "What is the change for {a} coins if I pay with {p} coins?",
        "How much do I get back if I pay {a} coins with {p} coins?",
        "I give {p} coins for a {x} at {a} coins. What comes back?",
        "Please tell me the change: {a} coins, paid with {p} coins.",
        "I buy a {x} for {a} coins with {p} coins. What is the change?",
    ),
    "held_out": (
        "A {x} costs {a} coins and I pay with {p} coins. What is the change?",
        "I give {p} coins for a price of {a} coins. How much do I get back?",
        "How many coins come back if I buy a {x} for {a} coins with {p} coins?",
    ),
}
SUM_ANSWER = "{a} coins and {b} coins make {c} coins."
CHANGE_ANSWER = "{p} coins less {a} coins leave {c} coins."
COURTESY = "Thank you for asking."
