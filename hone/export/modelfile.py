"""Ollama's TEMPLATE: a Go template that writes what the chat template wrote in training, read off its renderings and checked on more.

Ollama hands the template the list .Messages, each with .Role and .Content. What stands between the texts is read off a rendering of the
Jinja template with marks in the place of texts; then both are compared on other conversations.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone.core.errors import HoneError
from hone.export.gotemplate import quoted, render
from hone.export.proof.golden import Golden
from hone.export.proof.words import Render, render_with

Talk = Sequence[tuple[str, str]]
USERS, ANSWERS, SYSTEM = ("Xuser1X", "Xuser2X", "Xuser3X"), ("Xanswer1X", "Xanswer2X"), "Xsystem1X"
CHECKS: tuple[Talk, ...] = (
    [("user", "Hi")],
    [("system", "Be brief."), ("user", "Hi there")],
    [("user", "One"), ("assistant", "Two"), ("user", "Three")],
    [("system", "Be kind."), ("user", "A b c"), ("assistant", "D"), ("user", "E?"), ("assistant", "F."), ("user", "你好 {{ .x }}")],
)
"""Conversations on which the Go template must write exactly what the Jinja template writes."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a chat template writes around the texts."""

    first: str
    """Before the first user text of a conversation without a system message; some templates put a default one there."""
    user: tuple[str, str]
    assistant: tuple[str, str]
    system: tuple[str, str] | None
    """Around a system message, up to the user's text where `joined`."""
    joined: bool
    """Whether nothing of the user's own stands before a text that follows a system message."""
    prompt: str
    """What asks for an answer."""


def go_template(source: str, variables: Mapping[str, Any], golden: Golden, *, adds_bos: bool) -> str:
    """A TEMPLATE for a Modelfile. Raises M087 where no Go template of our shape writes what the chat template writes.

    With `adds_bos` the engine writes BOS itself, so the template must not.
    """
    said = _Said(render_with(source, variables, golden), str(variables.get("bos_token") or "") if adds_bos else "")
    try:
        template = written(learn(said))
    except ValueError as error:
        raise _odd(str(error)) from None
    for talk in CHECKS:
        wanted = said.of(talk)
        if wanted is None:
            continue
        got = render(template, {"Messages": [{"Role": role, "Content": text} for role, text in talk]})
        if got != wanted:
            same = len(os.path.commonprefix([got, wanted]))
            raise _odd(f"it writes {wanted[same : same + 30]!r} where Go's would write {got[same : same + 30]!r}")
    return template


def _odd(why: str) -> HoneError:
    fix = "use --to gguf and llama-server --jinja, which runs the template itself; or train with data.template=chatml"
    return HoneError("M087", f"the chat template cannot be written in Go: {why}", where="--to ollama", fix=fix)


@dataclass(frozen=True, slots=True)
class _Said:
    """What the chat template writes, without the BOS that the engine adds."""

    rendered: Render
    bos: str

    def of(self, talk: Talk) -> str | None:
        text = self.rendered([{"role": role, "content": content} for role, content in talk], [])
        return None if text is None else text.removeprefix(self.bos)


def learn(said: _Said) -> Shape:
    """Read the pieces off renderings. Raises ValueError where texts do not come back as they were put in, or turns are unlike."""
    talk = [("user", USERS[0]), ("assistant", ANSWERS[0]), ("user", USERS[1]), ("assistant", ANSWERS[1]), ("user", USERS[2])]
    first, to_answer, to_user, to_answer2, to_user2, last = _between(said.of(talk), [text for _, text in talk])
    if (to_answer, to_user) != (to_answer2, to_user2):
        raise ValueError("later turns are written otherwise than earlier ones")
    if _between(said.of(talk[:1]), USERS[:1]) != [first, last]:
        raise ValueError("a single question is written otherwise than one in a conversation")
    after_user = os.path.commonprefix([to_answer, last])
    before_user = os.path.commonprefix([to_user[::-1], first[::-1]])[::-1]
    user, assistant = (before_user, after_user), (to_answer[len(after_user) :], to_user.removesuffix(before_user))
    told = said.of([("system", SYSTEM), ("user", USERS[0])])
    system, joined = None, False
    if told is not None:
        before, after, end = _between(told, [SYSTEM, USERS[0]])
        if end != last:
            raise ValueError("a system message changes the end of the prompt")
        joined = not (before_user and after.endswith(before_user))
        system = (before, after if joined else after.removesuffix(before_user))
    return Shape(first, user, assistant, system, joined, last[len(after_user) :])


def _between(text: str | None, marks: Sequence[str]) -> list[str]:
    """What stands before, between and after some marks."""
    if text is None:
        raise ValueError("it refuses a plain conversation")
    pieces = []
    for mark in marks:
        piece, found, text = text.partition(mark)
        if not found or mark in text:
            raise ValueError("a text is written twice, changed, or left out")
        pieces.append(piece)
    return [*pieces, text]


def written(shape: Shape) -> str:
    """The Go template of a shape. No dashes: they would trim what belongs to the text."""
    parts = ["{{ range $i, $m := .Messages }}"]
    if shape.system is not None:
        parts += ['{{ if eq $m.Role "system" }}', _text(shape.system[0]), "{{ $m.Content }}", _text(shape.system[1]), "{{ else }}"]
    parts += ['{{ if eq $m.Role "user" }}', _before_user(shape), "{{ $m.Content }}", _text(shape.user[1])]
    if shape.prompt:
        parts += ["{{ if eq (len (slice $.Messages $i)) 1 }}", _text(shape.prompt), "{{ end }}"]
    parts += ['{{ else if eq $m.Role "assistant" }}', _text(shape.assistant[0]), "{{ $m.Content }}", _text(shape.assistant[1]), "{{ end }}"]
    parts += ["{{ end }}"] * (shape.system is not None)
    return "".join([*parts, "{{ end }}"])


def _before_user(shape: Shape) -> str:
    """A user text at place 1 follows a system message; at place 0 it is the first of all."""
    usual, plain = _text(shape.user[0]), shape.first == shape.user[0]
    if plain and not shape.joined:
        return usual
    rest = "{{ else if ne $i 1 }}" + usual if shape.joined else "{{ else }}" + usual
    return "{{ if eq $i 0 }}" + _text(shape.first) + rest + "{{ end }}"


def _text(text: str) -> str:
    """Text as it is; as a constant where it looks like Go."""
    return "{{ " + quoted(text) + " }}" if "{{" in text or '"""' in text else text
