"""The shapes in which people write examples. The same conversation in any of them makes the same Example."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from math import isfinite
from typing import Any

from hone.core.errors import HoneError
from hone.core.registry import Registry
from hone.core.types import Conversation, Example, Message, Origin
from hone.data.layout import EXCHANGES, FLAG, LIST, MESSAGES, NUMBER, OBJECT, SHARES, TEXT, Field, Format, Layout, flag, recognise
from hone.data.rows import Row
from hone.data.turns import from_json, message, messages, text_of, tools

FORMATS: Registry[Format] = Registry("format")
"""In the order in which they are tried."""
CHATS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat")
ANSWERS = ("answer", "response", "output", "completion", "assistant", "reply", "solution", "target", "summary", "translation", "答", "答案")
ASKED = ("query", "q", "user", "human", "input", "problem", "source", "document", "article", "问", "问题", "text")
TEXTS = ("sentence", "utterance", "headline", "tweet", "review", "comment", "content", "title")
ANSWER = TEXT | MESSAGES | SHARES | OBJECT
"""Kinds of an answer that may also be a list of messages, or one of them."""
SYSTEM = Field("system", "system prompt", names=("system_prompt",), required=False)
TOOLS = Field("tools", "tools that may be called", TEXT | LIST, names=("functions",), required=False)
INPUT = Field("input", "below the prompt", names=("context",), required=False)
LABEL = Field("label", "wanted or not", FLAG, names=("kto_tag", "kto_label"))
WANTED = "wanted"
"""Column of an Example that says whether its answer is a good one, where rows are judged one by one."""
STEPS = "steps"
"""Column of an Example with the steps of its answer, and whether each is right: (texts, flags)."""
_MARK = re.compile(r"\n\n(Human|Assistant):[ ]?")
_SKIP = "mend the row, or leave such rows out with data.skip_bad=true"

Fields = Mapping[str, Any]
Reader = Callable[[Fields, Origin], Example]


def layout_of(rows: Sequence[Row], format: str = "auto", columns: Mapping[str, str] | None = None) -> Layout:
    """How the rows of a source are read, by its first rows. `columns` (ours -> theirs) comes before what is recognised.

    Raises C003 (no such format), D010 (none fits) and D011 (the asked one does not).
    """
    return recognise(rows, FORMATS, asked=format, columns=columns)


def detect(columns: Iterable[str], rows: Sequence[Row]) -> str:
    """The name of the format that some rows are in, looking only at `columns`. Raises D010 where none fits."""
    wanted = set(columns)
    return layout_of([Row(row.origin, {name: value for name, value in row.columns.items() if name in wanted}) for row in rows]).format.name


def read(row: Row, format: str = "auto", columns: Mapping[str, str] | None = None) -> Example:
    """The example that one row makes. Raises what `layout_of` and `Layout.read` raise."""
    return layout_of([row], format, columns).read(row)


def describe(format: str, columns: Iterable[str]) -> str:
    """What becomes of some columns in a format, a line each. Raises C003 and D011."""
    blank = Row(Origin("these columns", 1), dict.fromkeys(columns))
    return "\n".join(layout_of([blank], format).describe())


def _format(name: str, about: str, *fields: Field, alone: bool = False) -> Callable[[Reader], Reader]:
    """Files a reader under the name of its format."""

    def keep(reader: Reader) -> Reader:
        FORMATS.add(name)(Format(name, about, fields, reader, alone))
        return reader

    return keep


@_format(
    "openai_preference", "input with messages, preferred_output, non_preferred_output",
    Field("input", "prompt", OBJECT),
    Field("preferred_output", "the better answer", ANSWER), Field("non_preferred_output", "the worse answer", ANSWER),
)  # fmt: skip
def _openai_preference(row: Fields, origin: Origin) -> Example:
    asked = row["input"] or {}
    return _pair(_question(asked, "messages", origin), row["preferred_output"], row["non_preferred_output"], asked.get("tools"), origin)


@_format(
    "preference", "prompt, chosen, rejected (or the prompt inside both)",
    Field("prompt", "prompt", TEXT | MESSAGES | SHARES, names=("question", "query", "instruction", *CHATS, "input"), required=False),
    INPUT, Field("chosen", "the better answer", ANSWER), Field("rejected", "the worse answer", ANSWER), SYSTEM, TOOLS,
)  # fmt: skip
def _preference(row: Fields, origin: Origin) -> Example:
    return _pair(_question(row, "prompt", origin), row["chosen"], row["rejected"], row.get("tools"), origin)


@_format(
    "steps", "prompt, completions (the steps of an answer), and labels: true for each step that is right",
    Field("prompt", "prompt", TEXT | MESSAGES, names=("question", "problem", "instruction")),
    Field("completions", "steps of the answer", LIST, names=("steps",)), Field("labels", "right or wrong", LIST), INPUT, SYSTEM,
)  # fmt: skip
def _steps(row: Fields, origin: Origin) -> Example:
    texts, labels = from_json(row["completions"], origin), from_json(row["labels"], origin)
    if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels) or not texts:
        raise HoneError("P005", "each step needs exactly one label", where=str(origin), fix=_SKIP)
    steps = [text_of(text, origin, number) for number, text in enumerate(texts, start=1)]
    if not all(step.strip() for step in steps):
        raise HoneError("P005", "a step is empty", where=str(origin), fix=_SKIP)
    conversation = (*_question(row, "prompt", origin), Message("assistant", "\n".join(steps)))
    return Example((conversation,), columns={STEPS: (tuple(steps), tuple(flag(label, origin) for label in labels))})


@_format(
    "kto", "prompt, completion, and label: true for wanted, false for unwanted",
    Field("prompt", "prompt", TEXT | MESSAGES, names=("instruction", "question")),
    Field("completion", "answer", ANSWER, names=("response", "output", "answer")), LABEL, INPUT, SYSTEM, TOOLS,
)  # fmt: skip
def _kto(row: Fields, origin: Origin) -> Example:
    conversation = _question(row, "prompt", origin) + _answer(row["completion"], origin)
    return _judged(conversation, row, origin)


@_format("kto_messages", "messages and label", Field("messages", "conversation", MESSAGES | SHARES, names=CHATS), LABEL, SYSTEM, TOOLS)
def _kto_messages(row: Fields, origin: Origin) -> Example:
    return _judged(_question(row, "messages", origin), row, origin)


@_format("messages", "messages with role and content", Field("messages", "conversation", MESSAGES, names=CHATS), SYSTEM, TOOLS)
def _messages(row: Fields, origin: Origin) -> Example:
    return Example((_question(row, "messages", origin),), tools=tools(row.get("tools"), origin))


@_format("sharegpt", "conversations with from and value", Field("conversations", "conversation", SHARES, names=CHATS), SYSTEM, TOOLS)
def _sharegpt(row: Fields, origin: Origin) -> Example:
    return Example((_question(row, "conversations", origin),), tools=tools(row.get("tools"), origin))


@_format(
    "exchanges", "conversation with input and output (and system)", Field("conversation", "conversation", EXCHANGES, names=CHATS), SYSTEM
)
def _exchanges(row: Fields, origin: Origin) -> Example:
    found = from_json(row["conversation"], origin) or []
    said: Conversation = ()
    for number, turn in enumerate(found, start=1):
        prompt = next((turn[name] for name in ("input", "instruction", "question") if name in turn), None)
        answer = next((turn[name] for name in ("output", "answer", "response") if name in turn), None)
        said += _system(turn.get("system"), origin)
        said += (Message("user", text_of(prompt, origin, number)), Message("assistant", text_of(answer, origin, number)))
    return Example((_with_system(row.get("system"), said, origin),))


@_format(
    "alpaca", "instruction, output (and input, history, system)",
    Field("instruction", "user"), Field("output", "answer", TEXT | NUMBER, names=("response", "answer", "completion")),
    INPUT, Field("history", "earlier turns, pairs of question and answer", TEXT | LIST, required=False), SYSTEM,
)  # fmt: skip
def _alpaca(row: Fields, origin: Origin) -> Example:
    earlier: Conversation = ()
    for number, pair in enumerate(from_json(row.get("history"), origin) or (), start=1):
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise HoneError("D023", "history is a list of [question, answer]", where=f"{origin}, exchange {number}", fix=_SKIP)
        earlier += (Message("user", text_of(pair[0], origin, number)), Message("assistant", text_of(pair[1], origin, number)))
    asked = _question(row, "instruction", origin)
    system = asked[:1] if asked[:1] and asked[0].role == "system" else ()
    return Example((system + earlier + asked[len(system) :] + _answer(row["output"], origin),))


@_format(
    "prompt_completion", "prompt and completion, texts or lists of messages",
    Field("prompt", "user", TEXT | MESSAGES), Field("completion", "answer", ANSWER | NUMBER, names=ANSWERS), INPUT, SYSTEM, TOOLS,
)  # fmt: skip
def _prompt_completion(row: Fields, origin: Origin) -> Example:
    return Example((_question(row, "prompt", origin) + _answer(row["completion"], origin),), tools=tools(row.get("tools"), origin))


@_format(
    "question_answer", "two columns such as question and answer",
    Field("question", "user", names=ASKED),
    Field("answer", "answer", TEXT | NUMBER, names=(*ANSWERS, "a", "gpt", "bot")),
    Field("context", "above the question", names=("passage", "background"), required=False), SYSTEM,
)  # fmt: skip
def _question_answer(row: Fields, origin: Origin) -> Example:
    context = [text_of(row["context"], origin)] if row.get("context") else []
    asked = "\n\n".join([*context, text_of(row["question"], origin)])
    return Example((_with_system(row.get("system"), (Message("user", asked), *_answer(row["answer"], origin)), origin),))


@_format(
    "label", "a text and its label or category",
    Field("text", "user", names=TEXTS),
    Field("label", "answer", TEXT | NUMBER | FLAG, names=("intent", "category", "class", "sentiment", "label_text", "label_name")),
)  # fmt: skip
def _label(row: Fields, origin: Origin) -> Example:
    return Example(((Message("user", text_of(row["text"], origin)), *_answer(row["label"], origin)),))


@_format("text", "text to go on learning from", Field("text", "learned as it is", names=("content", "document", "story", "body")))
def _text(row: Fields, origin: Origin) -> Example:
    return Example(text=text_of(row["text"], origin))


@_format(
    "two_columns",
    "any two columns of text: what is asked, then the answer",
    Field("prompt", "user"),
    Field("completion", "answer"),
    alone=True,
)
def _two_columns(row: Fields, origin: Origin) -> Example:
    return Example((_question(row, "prompt", origin) + _answer(row["completion"], origin),))


def _question(row: Fields, name: str, origin: Origin) -> Conversation:
    """System prompt and what is asked: a conversation so far, or a text with the input below it."""
    asked = row.get(name)
    if isinstance(asked, str) and asked[:64].lstrip()[:1] == "[":
        asked = _conversation_or_text(asked, origin)
    if isinstance(asked, str):
        below = text_of(row["input"], origin) if row.get("input") else ""
        asked = "\n\n".join(part for part in (asked, below) if part)
        said: Conversation = (Message("user", asked),) if asked or name != "prompt" else ()
    else:
        said = messages(asked, origin)
    return _with_system(row.get("system"), said, origin)


def _conversation_or_text(value: str, origin: Origin) -> Any:
    """Tables hold conversations as JSON; a prompt may also just begin with a bracket."""
    return from_json(value, origin) if '"role"' in value or '"from"' in value else value


def _system(value: Any, origin: Origin) -> Conversation:
    return (Message("system", text_of(value, origin)),) if value else ()


def _with_system(value: Any, said: Conversation, origin: Origin) -> Conversation:
    return said if said and said[0].role == "system" else _system(value, origin) + said


def _answer(value: Any, origin: Origin) -> Conversation:
    """What is said to a prompt: a text, a number, one message, or several."""
    if isinstance(value, bool):
        return (Message("assistant", str(value).lower()),)
    if isinstance(value, int | float):
        if isinstance(value, float) and not isfinite(value):
            raise HoneError("D007", f"the answer is {value}, as tables write an empty cell", where=str(origin), fix=_SKIP)
        return (Message("assistant", str(value)),)
    if isinstance(value, Mapping):
        return (message(value, origin),)
    if isinstance(value, str) and value[:64].lstrip()[:1] == "[":
        value = _conversation_or_text(value, origin)
    return messages(value, origin) if isinstance(value, list) else (Message("assistant", text_of(value, origin)),)


def _judged(conversation: Conversation, row: Fields, origin: Origin) -> Example:
    """A conversation whose last answer is wanted or not: nothing before it is learned."""
    last = max((i for i, said in enumerate(conversation) if said.role == "assistant"), default=0)
    said = _context(conversation[:last]) + conversation[last:]
    return Example((said,), tools=tools(row.get("tools"), origin), columns={WANTED: flag(row["label"], origin)})


def _pair(prompt: Conversation, chosen: Any, rejected: Any, offered: Any, origin: Origin) -> Example:
    """Two answers to one prompt, which is learned in neither. Raises P002 where one is missing or they are not alike."""
    for name, value in (("chosen", chosen), ("rejected", rejected)):
        if value is None or not value or (isinstance(value, str) and not value.strip()):
            raise HoneError("P002", f"the {name} answer is missing or empty", where=str(origin), fix=_SKIP)
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise HoneError("P002", "one answer is a text and the other is a message or a list", where=str(origin), fix=_SKIP)
    sides = [_side(value, origin) for value in (chosen, rejected)]
    if not prompt:
        alike = list(takewhile(lambda both: both[0] == both[1], zip(*sides, strict=False)))
        prompt = sides[0][: min(len(alike), len(sides[0]) - 1, len(sides[1]) - 1)]
        while prompt and prompt[-1].role == "assistant":
            prompt = prompt[:-1]
    whole = [_context(prompt) + side[_overlap(prompt, side) :] for side in sides]
    return Example(tuple(whole), tools=tools(offered, origin))


def _side(value: Any, origin: Origin) -> Conversation:
    """One answer; a text may hold the whole dialogue, its turns marked as Human and Assistant."""
    if not isinstance(value, str) or not value.startswith("\n\nHuman:"):
        return _answer(value, origin)
    parts = _MARK.split(value)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(Message(roles[who], said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True))


def _overlap(prompt: Conversation, side: Conversation) -> int:
    """How many first messages of an answer repeat the prompt: all of it, what follows its system prompt, or nothing."""
    for asked in (prompt, prompt[1:] if prompt and prompt[0].role == "system" else prompt):
        if side[: len(asked)] == asked:
            return len(asked)
    return 0


def _context(said: Conversation) -> Conversation:
    return tuple(replace(one, weight=0.0) for one in said)
