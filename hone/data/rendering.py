"""Conversations to text: one Jinja chat template, compiled once, rendered in the guarded sandbox as transformers renders it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from hone.core.errors import HoneError
from hone.core.types import Message
from hone.data.guard import MAX_SOURCE, MAX_VALUE, GuardedEnvironment, LimitExceeded

if TYPE_CHECKING:
    from jinja2 import nodes

Chat = list[dict[str, Any]]
Tools = Sequence[Mapping[str, Any]]
_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")


class Rendered(NamedTuple):
    """A text, and the character ranges that the template's own `{% generation %}` marks enclose."""

    text: str
    marks: tuple[tuple[int, int], ...]


class Renderer:
    """A chat template ready to render. Raises T003 (does not compile), T004 (too much work), T008 and T009 (refuses a conversation).

    `variables` are what the template sees besides the conversation: special tokens, and whatever the user adds. The clock is frozen, so
    that every row of a run has the same date.
    """

    def __init__(self, source: str, *, name: str, variables: Mapping[str, Any], now: datetime) -> None:
        from jinja2 import TemplateError

        self.source, self.name, self.marked = source, name, bool(_MARK.search(source))
        self._variables = dict(variables) | {"strftime_now": now.strftime}
        self._environment = _environment(self.marked)
        if len(source) > MAX_SOURCE:
            raise HoneError("T004", f"the chat template '{name}' is longer than {MAX_SOURCE:,} characters")
        try:
            self._template = self._environment.from_string(source)
        except (TemplateError, RecursionError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> HoneError:
        from jinja2 import TemplateSyntaxError

        line = f"line {error.lineno}: " if isinstance(error, TemplateSyntaxError) else ""
        fix = "mend the template, or choose another one: data.template=chatml|alpaca|vicuna|llama3|zephyr|plain"
        return HoneError("T003", f"the chat template '{self.name}' is not valid Jinja: {line}{error}", fix=fix)

    def literals(self) -> set[str]:
        """The text constants in the template's expressions."""
        return _texts(self._environment.parse(self.source))

    def sought(self) -> set[str]:
        """The text constants that the template looks for: in `'</think>' in content` or `content.split('</think>')`."""
        from jinja2 import nodes

        tree = self._environment.parse(self.source)
        calls = (call for call in tree.find_all(nodes.Call) if isinstance(call.node, nodes.Getattr))
        places: list[nodes.Node] = [*tree.find_all(nodes.Compare), *(argument for call in calls for argument in call.args)]
        return set().union(*(_texts(place) for place in places))

    def render(self, chat: Chat, tools: Tools = (), *, prompt: bool = False) -> Rendered:
        """The text of a conversation; with `prompt` it ends where an answer is to begin."""
        blocks: list[str] = []
        marks: list[tuple[int, int]] = []
        values = {"messages": _plain(chat), "tools": _plain(tools) or None, "documents": None, "add_generation_prompt": prompt}
        self._environment.begin(len(self.source))
        try:
            stream = self._template.generate(values | self._variables)
            if self.marked:
                # `activate_tracker` comes from transformers' extension for {% generation %}; it wants to see the list grow.
                with self._environment.activate_tracker(blocks, marks):  # type: ignore[attr-defined]
                    blocks += [""]
                    _collect(stream, blocks)
            else:
                _collect(stream, blocks)
        except Exception as error:
            raise self._refused(error) from error
        return Rendered("".join(blocks), tuple(marks))

    def attempt(self, chat: Chat, tools: Tools = (), *, prompt: bool = False) -> str | None:
        """The text, or None where the template refuses the conversation."""
        try:
            return self.render(chat, tools, prompt=prompt).text
        except HoneError as error:
            if isinstance(error.__cause__, LimitExceeded):
                raise
            return None

    def _refused(self, error: Exception) -> HoneError:
        from jinja2 import TemplateError, UndefinedError
        from jinja2.exceptions import SecurityError

        if isinstance(error, RecursionError | OverflowError | SecurityError):
            return HoneError(
                "T004", f"the chat template '{self.name}' was stopped: {error}", fix="choose another template: data.template=..."
            )
        if type(error) is TemplateError:
            return HoneError(
                "T008", f"the chat template '{self.name}' refuses this conversation: {error}", fix="put the roles in the order it names"
            )
        fix = "give the template the variable that it lacks, or choose another one: data.template=..."
        said = f"the chat template '{self.name}' fails: {type(error).__name__}: {error}"
        return HoneError("T009", said, fix=fix if isinstance(error, UndefinedError) else "choose another template: data.template=...")


def _texts(tree: nodes.Node) -> set[str]:
    """The text constants in a piece of a template."""
    from jinja2 import nodes

    inside = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    return inside | {tree.value} if isinstance(tree, nodes.Const) and isinstance(tree.value, str) else inside


def _environment(marked: bool) -> GuardedEnvironment:
    """Only transformers has the extension for `{% generation %}`, so a template with such marks loads it."""
    from hone.data.jinja import environment

    if not marked:
        return GuardedEnvironment.like(environment())
    from transformers.utils.chat_template_utils import _compile_jinja_template

    return GuardedEnvironment.like(_compile_jinja_template("").environment)


def _collect(stream: Any, blocks: list[str]) -> None:
    total = 0
    for block in stream:
        total += len(block)
        if total > MAX_VALUE:
            raise LimitExceeded(f"writes more than {MAX_VALUE:,} characters")
        blocks.append(block)


def _plain(value: Any) -> Any:
    """Fresh dicts and lists, so that a template cannot change what the caller holds."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def dicts(messages: Sequence[Message], *, text_arguments: bool = False) -> Chat:
    """Messages as templates expect them. Arguments of tool calls become objects, or JSON text for the few templates that concatenate it."""
    return [_reasoned(message.to_dict()) | _calls(message, text_arguments) for message in messages]


def _reasoned(fields: dict[str, Any]) -> dict[str, Any]:
    # transformers offers the reasoning under this name too, for the templates that read it there.
    return {"thinking": fields["reasoning_content"]} | fields if "reasoning_content" in fields else fields


def _calls(message: Message, text_arguments: bool) -> dict[str, Any]:
    calls = [_plain(call) for call in message.tool_calls]
    for call in calls:
        function = call.get("function", call)
        if isinstance(function, dict) and "arguments" in function:
            function["arguments"] = _arguments(function["arguments"], text_arguments)
    return {"tool_calls": calls} if calls else {}


def _arguments(arguments: Any, as_text: bool) -> Any:
    if as_text:
        return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    if not isinstance(arguments, str):
        return arguments
    try:
        parsed = json.loads(arguments)
    except ValueError:
        return arguments
    return parsed if isinstance(parsed, dict) else arguments
