"""Which characters of a rendered conversation the assistant says, found for any template by rendering it again with stand-ins.

A conversation is moulded (`mould.py`): everything that was said is replaced by stand-ins. Rendering the mould gives the *shape* of the
text. In it the answers are found by comparing renderings: an answer begins where the prompt for it ends (the messages before it, with the
generation prompt), and it ends where the text stops being the same whatever follows (the conversation cut off, or going on). Shapes
are studied once and kept. For each conversation its own rendering must equal the shape with what was said put back in; otherwise
the template rewrote something, and the conversation is refused rather than guessed at.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Literal

from hone.core.errors import HoneError
from hone.core.types import Message
from hone.data.mould import CALL, FOLLOW_UP, STAND_IN, Mould, either
from hone.data.rendering import Chat, Renderer, Tools

Learn = Literal["assistant", "last", "all"]
Range = tuple[int, int, float]
"""Characters from, to, and how much we want to learn to say them."""
_MANY = 4096
_MARKUP = re.compile(r"[<>\[\]{}|`]")
_ANSWER = {"role": "assistant", "content": FOLLOW_UP}
_QUESTION = {"role": "user", "content": "Hn99998Q"}
_RESULT = {"role": "tool", "content": "Hn99998Q", "tool_call_id": "123456789", "name": "Hn99997Q"}
_TAG = r"<[^<>\n]{1,60}>|\[/?[A-Z_]{2,30}\]"


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer in a text: from the first character after the header to the last of the end marker.

    `marker` is the end marker, or the last control token of it. `prompted` says whether the answer stands right behind its generation
    prompt, and `stable` whether the whole text before it is its prompt. A `fault` is why it cannot be learned.
    """

    start: int
    end: int
    marker: str = ""
    prompted: bool = True
    stable: bool = True
    fault: HoneError | None = None


@dataclass(frozen=True, slots=True)
class Located:
    """A rendered conversation: the answers, and where what the others said is (both by index of the message)."""

    text: str
    turns: dict[int, Turn]
    others: dict[int, tuple[int, int]]
    marks: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """The text of a mould: positions refer to it. `doubled`: part of a tool call stands there twice, so it cannot guide us."""

    text: str
    slots: tuple[tuple[int, int], ...]
    turns: dict[int, Turn]
    owners: tuple[int, ...]
    fault: HoneError | None
    doubled: bool

    def fill(self, text: str, said: dict[str, str]) -> list[int] | None:
        """Shifts of positions behind each slot if `text` is this shape with what was said put back in, else None."""
        at, end, shifts = 0, 0, [0]
        for index, (a, b) in enumerate(self.slots):
            if not text.startswith(self.text[end:a], at):
                return None
            at += a - end
            behind = self.text[b : self.slots[index + 1][0] if index + 1 < len(self.slots) else None]
            told = next(
                (form for form in _forms(said[self.text[a:b]]) if text.startswith(form, at) and text.startswith(behind, at + len(form))),
                None,
            )
            if told is None:
                return None
            at, end = at + len(told), b
            shifts.append(at - b)
        return shifts if text[at:] == self.text[end:] else None


def _forms(text: str) -> Iterable[str]:
    """What a template may write for a text: itself, or its inside of a JSON string."""
    yield text
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield json.dumps(text)[1:-1]


class Shapes:
    """Locates answers for one template. `controls` are the tokenizer's control tokens, by their text."""

    def __init__(self, renderer: Renderer, *, controls: Sequence[str], bos: str, eos: str) -> None:
        self.renderer, self.bos, self.eos, self.controls = renderer, bos, eos, tuple(controls)
        self.tags = re.compile(either(controls).pattern + "|" + _TAG)
        constants = renderer.literals()
        marks = {text.strip() for text in constants if _MARKUP.search(text) and len(text.strip()) > 2}
        self.sought = renderer.sought()
        self._levels = ((either(marks), True), (either(text for text in constants if text.strip()), False))
        self._known: dict[str, Shape | None] = {}

    def locate(self, chat: Chat, tools: Tools = ()) -> Located:
        """Where the answers are. Raises T007 (a message or the tools are left out), T010 (rewritten), and what rendering raises."""
        rendered = self.renderer.render(chat, tools)
        for literals, calls in self._levels:
            mould = Mould(chat, literals, calls=calls)
            shape = self._shape(mould, tools)
            shifts = shape.fill(rendered.text, mould.said) if shape else None
            if shape is None or shifts is None or shape.doubled:
                continue
            if shape.fault:
                raise shape.fault.with_traceback(None)
            return _located(shape, shifts, rendered.text, rendered.marks)
        what = f"the chat template '{self.renderer.name}' rewrites what is said here in a way that cannot be followed"
        raise HoneError("T010", what, fix="choose another template: data.template=chatml|alpaca|vicuna|llama3|zephyr|plain")

    def _shape(self, mould: Mould, tools: Tools) -> Shape | None:
        key = json.dumps([mould.chat, tools], default=str)
        if key not in self._known:
            if len(self._known) >= _MANY:
                self._known.clear()
            self._known[key] = _Study.of(self, mould, tools)
        return self._known[key]


def _located(shape: Shape, shifts: list[int], text: str, marks: tuple[tuple[int, int], ...]) -> Located:
    begins = [a for a, _ in shape.slots]

    def at(position: int) -> int:
        return position + shifts[bisect_right(begins, position - 1)]

    turns = {i: Turn(at(t.start), at(t.end), t.marker, t.prompted, t.stable, t.fault) for i, t in shape.turns.items()}
    others: dict[int, tuple[int, int]] = {}
    for (a, b), owner in zip(shape.slots, shape.owners, strict=True):
        start = others[owner][0] if owner in others else at(a)
        others[owner] = (start, at(b))
    return Located(text, turns, others, marks)


def ranges(located: Located, messages: Sequence[Message], learn: Learn) -> list[Range]:
    """What is learned of a conversation, in characters. Raises the fault of an answer that is to be learned and cannot be."""
    last = max(located.turns, default=-1)
    found: list[Range] = []
    for i, message in enumerate(messages):
        if i in located.turns:
            policy = 1.0 if learn != "last" or i == last else 0.0
            found += _answer(located, i, policy if message.weight is None else message.weight)
        elif message.weight is not None and i in located.others:
            found.append((*located.others[i], message.weight))
    if located.marks and not found:
        raise HoneError(
            "T010", "the {% generation %} marks of the chat template enclose none of the answers", fix="mend the marks, or remove them"
        )
    return found


def _answer(located: Located, i: int, weight: float) -> list[Range]:
    turn = located.turns[i]
    if weight and turn.fault:
        # One error serves all conversations of a shape; it must not gather their tracebacks.
        raise turn.fault.with_traceback(None)
    if not located.marks:
        return [(turn.start, turn.end, weight)]
    begin = max((other.end for j, other in located.turns.items() if j < i), default=0)
    marked = [(max(a, turn.start), min(b, turn.end)) for a, b in located.marks if begin <= a < turn.end and b > turn.start]
    # An author's marks may stop before the end marker, and then the model would not learn to stop.
    marked += [(max(b for _, b in marked), turn.end)] if marked else []
    return [(a, b, weight) for a, b in marked if a < b]


class _Study:
    """The study of one shape."""

    def __init__(self, shapes: Shapes, mould: Mould, tools: Tools, text: str) -> None:
        self.shapes, self.mould, self.tools, self.text = shapes, mould, tools, text
        self.where: dict[str, list[int]] = {}
        self.slots = tuple(found.span() for found in STAND_IN.finditer(text) if found[0] in mould.said)
        for a, b in self.slots:
            self.where.setdefault(text[a:b], []).append(a)

    @classmethod
    def of(cls, shapes: Shapes, mould: Mould, tools: Tools) -> Shape | None:
        text = shapes.renderer.attempt(mould.chat, tools)
        if text is None:
            return None
        study = cls(shapes, mould, tools, text)
        turns = {i: study.turn(i) for i, message in enumerate(mould.chat) if message["role"] == "assistant"}
        doubled = any(len(places) > 1 and mould.kinds[word] == CALL for word, places in study.where.items())
        return Shape(text, study.slots, turns, study.owners(), study.left_out(), doubled)

    def owners(self) -> tuple[int, ...]:
        """The message of each slot; equal messages own the equal stand-ins in their order."""
        queues = {word: [i for i, words in enumerate(self.mould.words) if word in words] for word in self.where}
        return tuple(queues[self.text[a:b]].pop(0) if len(queues[self.text[a:b]]) > 1 else queues[self.text[a:b]][0] for a, b in self.slots)

    def left_out(self) -> HoneError | None:
        """T007 if something that is not an answer does not appear in the text."""
        name = self.shapes.renderer.name
        for i, (message, words) in enumerate(zip(self.mould.chat, self.mould.words, strict=True)):
            if message["role"] != "assistant" and any(word not in self.where for word in words):
                what = f"the chat template '{name}' leaves out the {message['role']} message (number {i + 1} of the conversation)"
                return HoneError(
                    "T007", what, fix="put its text into the first user message, or choose another template: data.template=..."
                )
            if any(self.mould.kinds[word] == CALL and word not in self.where for word in words):
                return HoneError(
                    "T007", f"the chat template '{name}' leaves out tool calls", fix="choose a template that can: data.template=chatml"
                )
        if self.tools and self.shapes.renderer.attempt(self.mould.chat) == self.text:
            return HoneError(
                "T007", f"the chat template '{name}' leaves out the list of tools", fix="choose a template that can: data.template=chatml"
            )
        return None

    def turn(self, i: int) -> Turn:
        own = [a for word in self.mould.words[i] for a in self.where.get(word, ())]
        start, prompted, stable = self.start(i, min(own, default=None))
        if start is None:
            return Turn(0, 0, fault=self.fault("T010", i, "does not show where this answer begins"))
        marker, end = self.end(i, max((a + len(FOLLOW_UP) for a in own), default=None), start)
        return Turn(start, end, marker, prompted, stable, self.dropped(i, own) or self.unending(i, marker))

    def fault(self, code: str, i: int, said: str, fix: str = "choose another template: data.template=...") -> HoneError:
        return HoneError(
            code, f"the chat template '{self.shapes.renderer.name}' {said}", where=f"message {i + 1} of the conversation", fix=fix
        )

    def dropped(self, i: int, own: list[int]) -> HoneError | None:
        """T010 if part of the answer is missing from the text, or stands there twice."""
        missing = [self.mould.kinds[word] for word in self.mould.words[i] if word not in self.where]
        if not missing and len(own) == len(self.mould.words[i]):
            return None
        if not missing:
            return self.fault("T010", i, "writes this answer more than once")
        last = max(j for j, message in enumerate(self.mould.chat) if message["role"] == "assistant")
        part = "the reasoning" if missing == ["reasoning_content"] or "</think>" in self.mould.chat[i]["content"] else "a part"
        fix = (
            "learn the last answer only (data.learn=last), with one row for each answer"
            if i < last
            else "remove the reasoning, or choose another template"
        )
        return self.fault("T010", i, f"drops {part} of this answer{', as it is not the last' if i < last else ''}", fix)

    def unending(self, i: int, marker: str) -> HoneError | None:
        """T001 if no control token ends the answer."""
        if marker:
            return None
        said = "ends this answer with no control token that the tokenizer knows, so the model would never learn to stop"
        return self.fault(
            "T001", i, said, "data.template=auto+eos writes the end-of-sequence token after each answer; or choose another template"
        )

    def before(self, i: int, cut: str) -> tuple[int, int]:
        """The end of the last thing said before message `i`, in the whole text and in one that is cut off there."""
        for words in reversed(self.mould.words[:i]):
            last = max((cut.rfind(word) for word in words), default=-1)
            word = cut[last : last + len(FOLLOW_UP)]
            if last >= 0 and len(self.where.get(word, ())) >= cut.count(word):
                return self.where[word][cut.count(word) - 1] + len(word), last + len(word)
        return 0, 0

    def start(self, i: int, first: int | None) -> tuple[int | None, bool, bool]:
        """Where the answer begins; whether its generation prompt stands before it; and whether its whole prompt does."""
        history = self.mould.chat[:i]
        cut = self.shapes.renderer.attempt(history, self.tools, prompt=True) if history else None
        if cut is None:
            return self.headed(i, first), False, False
        a, b = self.before(i, cut)
        prompt = cut[b:]
        common = len(commonprefix([prompt, self.text[a:]]))
        if common == len(prompt):
            header = self.ignored(i, cut, prompt, self.text[a + common : first])
            return a + len(header or prompt), header is None, header is None and self.text.startswith(cut)
        common = self.floor(common, prompt, self.text[a:])
        behind = self.text[a + common : first]
        # Text and prompt must part company at a tag (`<think>` or `</think>`): inside a sentence nobody could say where the header ends.
        apart = not behind.strip() or all(self.shapes.tags.match(text) for text in (behind, prompt[common:]))
        return a + common if apart else self.headed(i, first), False, False

    def ignored(self, i: int, cut: str, prompt: str, rest: str) -> str | None:
        """The header before an answer, if the template does not write it when it is asked for a generation prompt."""
        if not rest.strip() or self.shapes.renderer.attempt(self.mould.chat[:i], self.tools) != cut:
            return None
        _, header = self.header(i)
        return header if header.startswith(prompt) and header != prompt else None

    def header(self, i: int) -> tuple[int, str]:
        """Where the last thing said before message `i` ends, and what would stand between it and a plain answer."""
        plain = self.shapes.renderer.attempt([*self.mould.chat[:i], _ANSWER], self.tools)
        if plain is None or FOLLOW_UP not in plain:
            return 0, ""
        a, b = self.before(i, plain)
        return a, plain[b : plain.rindex(FOLLOW_UP)]

    def headed(self, i: int, first: int | None) -> int | None:
        """Where the answer begins, judged by where a plain answer would begin in its place."""
        a, header = self.header(i)
        if header and self.text.startswith(header, a):
            return a + len(header)
        spoken = first is not None and self.mould.kinds[self.text[first : first + len(FOLLOW_UP)]] != CALL
        return first if spoken else None

    def floor(self, position: int, *texts: str) -> int:
        """The position, or the start of the tag that it would cut in two."""
        cuts = [found.start() for text in texts for found in self.shapes.tags.finditer(text) if found.start() < position < found.end()]
        return min(cuts, default=position)

    def end(self, i: int, last: int | None, start: int) -> tuple[str, int]:
        """The end marker (empty if there is none) and where it ends."""
        chat, whole = self.mould.chat, self.text[start if last is None else last :]
        follow = [[*chat[: i + 1], message] for message in (_QUESTION, _RESULT)]
        final = i == len(chat) - 1
        tails = self.continued(i, last, start, follow if final else [chat[: i + 1]])
        marker = self.common([whole, *tails]) if tails or final else ""
        if not self.control(marker) and final:
            marker = whole[: self.ended(whole)]
        elif not self.control(marker):
            # Some templates end the last answer otherwise: then the next turn, which begins like the text does, bounds the marker.
            marker = self.bounded([whole, *self.continued(i, last, start, follow)])
        end = len(self.text) - len(whole) + len(marker)
        if not chat[i].get("tool_calls"):
            return marker.lstrip() if self.control(marker) else "", end
        # What closes a call (`</tool_call>`) does not end the turn: a plain answer must have an end marker too.
        control = self.control(marker)
        closing = control.startswith("</") and control != self.shapes.eos
        return control if not closing and self.plainly_ends(i) else "", end

    def common(self, tails: Sequence[str]) -> str:
        """What stands behind an answer whatever follows."""
        shared = tails[0][: self.floor(len(commonprefix(list(tails))), *tails)].rstrip()
        if self.shapes.eos and self.shapes.eos in shared:
            return shared[: shared.rindex(self.shapes.eos) + len(self.shapes.eos)]
        # Some templates always write the header of a next turn.
        return self.bounded([shared]) or shared

    def bounded(self, tails: Sequence[str]) -> str:
        """What stands before the next turn; nothing if none can be seen."""
        shared, opener = commonprefix(list(tails)), self.opener()
        return shared[: shared.index(opener)].rstrip() if opener and shared.find(opener) > 0 else ""

    def ended(self, tail: str) -> int:
        """How far the end-of-sequence token reaches, if it is what comes next."""
        eos = self.shapes.eos
        return tail.index(eos) + len(eos) if eos and tail.lstrip().startswith(eos) else 0

    def plainly_ends(self, i: int) -> bool:
        """Whether a plain answer in the place of message `i` has an end marker."""
        history = [*self.mould.chat[:i], _ANSWER]
        texts = (self.shapes.renderer.attempt(chat, self.tools) for chat in (history, [*history, _QUESTION]))
        tails = [text[text.index(FOLLOW_UP) + len(FOLLOW_UP) :] for text in texts if text is not None and FOLLOW_UP in text]
        return bool(tails) and (self.control(self.common(tails)) != "" or self.ended(tails[0]) > 0)

    def continued(self, i: int, last: int | None, start: int, chats: Sequence[Chat]) -> list[str]:
        """What stands behind the same place in other conversations."""
        texts = [text for chat in chats if (text := self.shapes.renderer.attempt(chat, self.tools)) is not None]
        if last is not None:
            word = self.text[last - len(FOLLOW_UP) : last]
            return [text[text.index(word) + len(word) :] for text in texts if word in text]
        places = [(text, *self.before(i, text)) for text in texts]
        return [text[b + start - a :] for text, a, b in places if text[b:].startswith(self.text[a:start])]

    def opener(self) -> str:
        """The control token with which the text, and so a turn, begins."""
        found = either(self.shapes.controls).match(self.text.removeprefix(self.shapes.bos))
        return found[0] if found else ""

    def control(self, marker: str) -> str:
        """The control token at the end of a marker, or nothing."""
        return max((token for token in self.shapes.controls if marker.endswith(token)), key=len, default="")
