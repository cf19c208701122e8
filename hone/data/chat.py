"""Chat templates: messages to tokens, and how much we want to learn to say each of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from hone.core.errors import HoneError
from hone.core.types import Conversation, Message, Sequence
from hone.data.encoding import Encoded, Encoder, Span
from hone.data.guard import LimitExceeded
from hone.data.habits import Habits, study
from hone.data.masking import Learn, Located, Range, Shapes, Turn, ranges
from hone.data.mould import Neutral
from hone.data.rendering import Chat, Renderer, Tools, dicts
from hone.data.templating import adds_bos, choose

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ChatTemplate:
    """One tokenizer with one chat template. `reason` says why this template; the date that some templates write is frozen at `now`."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        source: str,
        with_tools: str,
        reason: str,
        variables: Mapping[str, Any],
        now: datetime,
    ) -> None:
        self.name, self.source, self.with_tools, self.reason, self.now = name, source, with_tools, reason, now
        self._encoder = Encoder(tokenizer)
        self._bos, self._eos, self._pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        self._adds_bos = adds_bos(tokenizer)
        values = {**tokenizer.special_tokens_map, **variables}
        self._plain = self._shapes(tokenizer, source, values, now)
        self._tools = self._plain if with_tools == source else self._shapes(tokenizer, with_tools, values, now)
        self._text_arguments: bool | None = None

    def _shapes(self, tokenizer: PreTrainedTokenizerBase, source: str, variables: Mapping[str, Any], now: datetime) -> Shapes:
        renderer = Renderer(source, name=self.name, variables=variables, now=now)
        return Shapes(renderer, controls=self._encoder.controls, bos=tokenizer.bos_token or "", eos=tokenizer.eos_token or "")

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        name: str = "auto",
        *,
        variables: Mapping[str, Any] | None = None,
        now: datetime | None = None,
    ) -> ChatTemplate:
        """The tokenizer's own template ("auto"), or the format, file or variant (`+eos`) called `name`; see `templating.choose`.

        `variables` are further values that the template reads, such as `enable_thinking`. Raises T003 (no such template, or not valid),
        T004 (too large), T012 (a tokenizer that cannot tell positions).
        """
        choice = choose(tokenizer, name)
        return cls(tokenizer, **choice._asdict(), variables=variables or {}, now=now or datetime.now())

    def text(self, messages: Seq[Message], tools: Tools = (), add_generation_prompt: bool = False) -> str:
        """The conversation as the template writes it. Raises T004, T007, T008, T009."""
        return self._render(self._chat(messages, tools), tools, prompt=add_generation_prompt)

    def prompt_ids(self, messages: Seq[Message], tools: Tools = ()) -> list[int]:
        """The tokens after which the model is to answer. Raises what `text` raises, and T005."""
        chat = self._chat(messages, tools)
        neutral = self._neutral(chat, tools)
        hidden = self._render(neutral.chat, neutral.tools, prompt=True)
        text, plain, _ = neutral.restore(hidden)
        if neutral:
            self._same(text, self._render(chat, tools, prompt=True))
        text += self._habits.header
        return self._encode(text, plain, self._answers_in(neutral, text)).ids

    def sequence(self, conversation: Conversation, *, tools: Tools = (), learn: Learn = "assistant") -> Sequence:
        """Tokens and weights of a conversation. The weight is on what the assistant says and on its end marker, nowhere else.

        `learn` chooses the answers: each ("assistant"), the "last", or "all" for every token of the text; `Message.weight` overrules it.
        Raises T001 (an answer without end), T005 (control tokens in the data), T007 to T010 (what the template cannot do).
        """
        (made,) = self.sequences([(conversation, tools)], learn=learn)
        if isinstance(made, HoneError):
            raise made
        return made

    def sequences(self, rows: Iterable[tuple[Conversation, Tools]], *, learn: Learn = "assistant") -> list[Sequence | HoneError]:
        """Many conversations, each with its tools, tokenised together. A row that cannot be learned has its error in its place."""
        found = [self._row(conversation, tools, learn) for conversation, tools in rows]
        encoded = iter(self._encoder.batch([row.text for row in found if isinstance(row, _Row)]))
        return [self._weighted(row, next(encoded)) if isinstance(row, _Row) else row for row in found]

    @property
    def stored(self) -> str | dict[str, str]:
        """What `tokenizer.chat_template` must be, so that others write conversations as they were trained."""
        return self.source if self.with_tools == self.source else {"default": self.source, "tool_use": self.with_tools}

    @property
    def end_text(self) -> str:
        """The end marker of an answer; empty if the template has none."""
        return self._habits.end_text

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer: those of the template, and the tokenizer's end of sequence."""
        return self._habits.stop_ids

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about this template, each with its code."""
        return self._habits.notes

    def _row(self, conversation: Conversation, tools: Tools, learn: Learn) -> _Row | HoneError:
        try:
            located, plain = self._locate(conversation, tools)
            return _Row(located.text, ranges(located, conversation, learn), plain, tuple(located.turns.values()), learn == "all")
        except HoneError as error:
            return error

    def _weighted(self, row: _Row, whole: Encoded) -> Sequence | HoneError:
        try:
            encoded = self._encode(row.text, row.plain, row.turns, whole)
        except HoneError as error:
            return error
        if self._bos is not None and encoded.ids[:2] == [self._bos, self._bos]:
            return HoneError(
                "T006", f"the chat template '{self.name}' writes the beginning-of-sequence token twice", fix="mend the template"
            )
        weights = [1.0 if row.everything else 0.0] * len(encoded.ids)
        for a, b, weight in row.ranges:
            first, last = bisect_left(encoded.starts, a), bisect_left(encoded.starts, b)
            weights[first:last] = [weight] * (last - first)
        return Sequence(encoded.ids, weights)

    def _encode(self, text: str, plain: Seq[Span], turns: Seq[Turn], whole: Encoded | None = None) -> Encoded:
        """Tokens of a text, in one piece unless control tokens must stay text, or a token would reach over the edge of an answer."""
        whole = whole or self._encoder.batch([text])[0]
        edges = [turn.start for turn in turns] + [turn.end for turn in turns if not _blank_after(text, whole, turn.end)]
        cuts = [edge for edge in edges if whole.straddled(edge)]
        return self._encoder.exact(text, plain=plain, cuts=cuts) if plain or cuts else whole

    def _answers_in(self, neutral: Neutral, text: str) -> list[Turn]:
        """The answers in the text of a prompt, where they are as in the conversation without the generation prompt."""
        if all(message["role"] != "assistant" for message in neutral.chat):
            return []
        try:
            located = self._restored(neutral)[0]
        except HoneError:
            return []
        return [turn for turn in located.turns.values() if text.startswith(located.text[: turn.end])]

    def _locate(self, messages: Seq[Message], tools: Tools) -> tuple[Located, list[Span]]:
        chat = self._chat(messages, tools)
        neutral = self._neutral(chat, tools)
        try:
            located, plain = self._restored(neutral)
        except HoneError as error:
            raise self._blame(neutral.chat, neutral.tools, error) from error.__cause__
        if neutral:
            self._same(located.text, self._render(chat, tools))
        return located, plain

    def _restored(self, neutral: Neutral) -> tuple[Located, list[Span]]:
        """The answers in the text with control tokens put back as text, and where those are."""
        located = self._for(neutral.tools).locate(neutral.chat, neutral.tools)
        if not neutral:
            return located, []
        text, plain, shifts = neutral.restore(located.text)

        def at(position: int) -> int:
            return position + shifts[bisect_right(shifts, (position, len(text))) - 1][1]

        turns = {i: Turn(at(t.start), at(t.end), t.marker, t.prompted, t.stable, t.fault) for i, t in located.turns.items()}
        others = {i: (at(a), at(b)) for i, (a, b) in located.others.items()}
        return Located(text, turns, others, tuple((at(a), at(b)) for a, b in located.marks)), plain

    def _neutral(self, chat: Chat, tools: Tools) -> Neutral:
        return Neutral(chat, list(tools), self._encoder.special, self._for(tools).sought)

    def _same(self, restored: str, text: str) -> None:
        if restored != text:
            what = f"the chat template '{self.name}' treats the text of a control token in this conversation as its own"
            raise HoneError("T005", what, fix="remove the control token's text from the data")

    def _for(self, tools: Tools) -> Shapes:
        return self._tools if tools else self._plain

    def _chat(self, messages: Seq[Message], tools: Tools) -> Chat:
        chat = dicts(messages, text_arguments=bool(self._text_arguments))
        if self._text_arguments is None and any(message.tool_calls for message in messages):
            renderer = self._for(tools).renderer
            told = dicts(messages, text_arguments=True)
            if renderer.attempt(chat, tools) is not None:
                self._text_arguments = False
            elif renderer.attempt(told, tools) is not None:
                self._text_arguments, chat = True, told
        return chat

    def _render(self, chat: Chat, tools: Tools, *, prompt: bool = False) -> str:
        try:
            return self._for(tools).renderer.render(chat, tools, prompt=prompt).text
        except HoneError as error:
            raise self._blame(chat, tools, error) from error.__cause__

    def _blame(self, chat: Chat, tools: Tools, error: HoneError) -> HoneError:
        """T007 instead of the template's own words, if it is the system message or the tools that it cannot take."""
        if error.code not in ("T004", "T008", "T009") or isinstance(error.__cause__, LimitExceeded):
            return error
        renderer = self._for(tools).renderer
        people = [message for message in chat if message["role"] != "system"]
        if len(people) < len(chat) and renderer.attempt(people, tools) is not None:
            fix = "put its text into the first user message, or choose another template: data.template=..."
            return HoneError("T007", f"the chat template '{self.name}' cannot take a system message: {error.__cause__}", fix=fix)
        plain = [message for message in chat if message["role"] != "tool" and "tool_calls" not in message]
        if (tools or len(plain) < len(chat)) and plain and renderer.attempt(plain) is not None:
            what = f"the chat template '{self.name}' cannot take tools or tool calls as they are here: {error.__cause__}"
            return HoneError("T007", what, fix="choose a template that can: data.template=chatml")
        return error

    @cached_property
    def _habits(self) -> Habits:
        return study(self._plain, self._tools, self._encoder, pad=self._pad, eos=self._eos, adds_bos=self._adds_bos)


class _Row(NamedTuple):
    text: str
    ranges: list[Range]
    plain: list[Span]
    turns: tuple[Turn, ...]
    everything: bool


def _blank_after(text: str, encoded: Encoded, end: int) -> bool:
    """Whether the token that reaches over `end` only swallows white space, as the control tokens of some tokenizers do."""
    index = bisect_right(encoded.ends, end)
    return index < len(encoded.ends) and text[end : encoded.ends[index]].isspace()
