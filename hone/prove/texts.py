"""What is learned, read back as text: the assistant's words and their end, under the template that will ask for them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hone.core.types import Conversation, Message
from hone.core.types import Sequence as Tokens
from hone.prove.base import Found, Mute, proof
from hone.prove.plain import EVERYTHING, learned
from hone.prove.subject import Row, Subject, Texts

_EMPTY = re.compile(r"<([a-z_]+)></\1>")
"""A pair of tags with nothing inside, which some templates put before a plain answer."""
NO_TALK = "no conversation is learned here"


@proof("V017", bound=0, unit="rows")
def learned_text(s: Subject) -> Found | Mute:
    """Decoded, the learned tokens of every row are what its assistant says and the end marker, nothing less and nothing more."""
    talks = list(_talks(s))
    if not talks or s.texts.learn == "all":
        return Mute(NO_TALK if not talks else "all text is learned")
    wrong = [(one, fault) for said, one in talks if (fault := _fault(s.texts, said, one))]
    return Found(len(wrong), f"{wrong[0][0].origin}: {wrong[0][1]}" if wrong else "")


def _talks(s: Subject) -> Iterator[tuple[Conversation, Tokens]]:
    """Every conversation with the sequence that was made of it."""
    for row in s.rows:
        yield from zip(row.said, row.group, strict=False)


def _fault(texts: Texts, said: Conversation, one: Tokens) -> str:
    """What is wrong with what is learned of a conversation, or nothing. White space does not count: decoders add and drop it."""
    text = _squeezed(texts.decode([token for token, weight in zip(one.tokens, one.weights, strict=True) if weight]))
    ends = sorted({_squeezed(end) for end in (texts.end, *(texts.decode([stop]) for stop in texts.stops))} - {""}, key=len, reverse=True)
    for message in _answers(texts, said):
        plain, content = not message.tool_calls and not message.reasoning, _squeezed(message.content)
        at = text.find(content)
        if at < 0 or (plain and at and not _EMPTY.fullmatch(text[:at])):
            return f"'{message.content[:40]}' is not learned as it stands"
        text = text[at + len(content) :]
        end = next((end for end in ends if (text.startswith(end) if plain else end in text)), None)
        if end is None:
            return f"behind '{message.content[-40:]}' no end marker is learned"
        text = text[text.index(end) + len(end) :]
    return f"'{text[:40]}' is learned, which the assistant does not say" if text else ""


def _answers(texts: Texts, said: Conversation) -> list[Message]:
    """The messages that are to be learned."""
    answers = [message for message in said if message.role == "assistant"]
    usual = answers[-1:] if texts.learn == "last" else answers
    return [m for m in answers if (m.weight if m.weight is not None else float(any(m is one for one in usual)))]


def _squeezed(text: str) -> str:
    return "".join(text.split())


@proof("V018", bound=0, unit="rows")
def stops(s: Subject) -> Found | Mute:
    """The last token that is learned of an answer is one at which a server stops."""
    talks = [(said, one) for said, one in _talks(s) if said and said[-1].role == "assistant" and one.learned and s.texts.learn != "all"]
    if not talks:
        return Mute(NO_TALK)
    wrong = [one for said, one in talks if said[-1].weight != 0 and one.tokens[learned(one)[-1]] not in s.texts.stops]
    first = f"{wrong[0].origin} ends with {s.texts.decode(wrong[0].tokens[-1:])!r}" if wrong else ""
    return Found(len(wrong), first)


@proof("V019", bound=0, unit="rows")
def served(s: Subject) -> Found | Mute:
    """Before an answer, training shows the model the very tokens that a server will show it."""
    talks = [(row, *pair) for row in s.rows for pair in zip(row.said, row.group, strict=False) if _asks(s.texts, pair[0])]
    if not talks:
        return Mute(NO_TALK)
    wrong: list[str] = []
    for row, said, one in talks:
        prompt = s.texts.serve(said[:-1], row.tools)
        if one.tokens[: len(prompt)] != prompt:
            wrong.append(f"{one.origin}: {_parting(s.texts, one.tokens, prompt)}")
        elif s.texts.learn != "all" and any(one.weights[1 : len(prompt)][len(prompt) - 2 :]):
            wrong.append(f"{one.origin}: the end of the prompt is learned")
    return Found(len(wrong), wrong[0] if wrong else "")


def _asks(texts: Texts, said: Conversation) -> bool:
    """Whether it ends with an answer, and nobody wrote control tokens, which a server could not tell from real ones."""
    written = any(control in message.content for message in said for control in texts.controls)
    return len(said) > 1 and said[-1].role == "assistant" and not written


def _parting(texts: Texts, tokens: list[int], prompt: list[int]) -> str:
    """Where two texts part company."""
    at = next((i for i, pair in enumerate(zip(tokens, prompt, strict=False)) if pair[0] != pair[1]), min(len(tokens), len(prompt)))
    return f"training has {texts.decode(tokens[at : at + 6])!r} where serving has {texts.decode(prompt[at : at + 6])!r}"


@proof("V020", bound=0, unit="rows")
def beginnings(s: Subject) -> Found | Mute:
    """No sequence begins with the beginning-of-sequence token twice."""
    if s.texts.bos is None:
        return Mute("the tokenizer has no such token")
    wrong = [one for row in s.rows for one in row.group if one.tokens[:2] == [s.texts.bos] * 2]
    return Found(len(wrong), str(wrong[0].origin) if wrong else "")


@proof("V021", bound=0, unit="tokens")
def ledger(s: Subject) -> Found | Mute:
    """The loss is over the tokens that the ledger says are learned: as many, and these."""
    rows = [row for row in s.rows if row.fate is not None]
    if not rows:
        return Mute("the model writes what it learns from, so no row has tokens to count")
    wrong = {str(row.group[0].origin): _missing(s, row) for row in rows}
    origin = max(wrong, key=lambda name: wrong[name])
    return Found(sum(wrong.values()), origin if wrong[origin] else "")


def _missing(s: Subject, row: Row) -> int:
    """Tokens of a row that are read and should not be, or should be and are not."""
    found: list[tuple[int, int]] = []
    for batch in s.batches([row.group], EVERYTHING, True):
        if not batch.aside:
            pairs = zip(batch.row_N.tolist(), batch.target_N.tolist(), batch.weight_N.tolist(), strict=True)
            found += [(number, target) for number, target, weight in pairs if weight]
    expected = [(number, one.tokens[j]) for number, one in enumerate(row.group) for j in learned(one)]
    odd = sum(a != b for a, b in zip(found, expected, strict=False)) + abs(len(found) - len(expected))
    return max(odd, abs(len(found) - (row.fate or 0)))
