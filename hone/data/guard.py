"""A Jinja sandbox that cannot take the machine down: every value that a template makes costs its size, every turn of a loop a little.

Chat templates are programs written by strangers. Jinja's sandbox keeps them from Python's insides, but lets `{{ 'a' * 10**9 }}` through.
Here whatever can blow up (repetition, concatenation, loops, calls, filters, output) draws on a budget of work per rendering, and
operations whose result could be far larger than their operands are estimated before they run.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from functools import wraps
from types import BuiltinMethodType, FunctionType
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_SOURCE = 1_000_000
"""Characters of a template."""
MAX_VALUE = 20_000_000
"""Characters of one value, and of the rendered text."""
MAX_WORK = 500_000_000
"""Characters written or copied by one rendering."""
MAX_NUMBER = 10**15
MAX_WIDTH = 1_000
"""Padding, indentation and field widths."""
_STEP = 500
"""What a turn of a loop or a call costs, in characters: about the time it takes."""
_NEST = 50
"""What a list or an object costs beside what is in it."""
_MACRO = 5_000
"""What a call of a macro costs beside its text."""
_PASSING = frozenset("length count first last default d select selectattr reject rejectattr map items attr get".split())
"""Filters and methods that hand on what they are given."""
_PADDED = frozenset(
    {"center", "ljust", "rjust", "zfill", "expandtabs", "indent", "batch", "slice", "tojson", "round", "wordwrap", "format"}
)


class LimitExceeded(SecurityError):
    """The template asks for more text, time or memory than any conversation needs."""


def weigh(value: Any, limit: int = MAX_VALUE) -> int:
    """Characters that a value would print, about; stops counting above the limit, so that nests of shared lists cost no time."""
    if isinstance(value, str):
        return len(value)
    total, todo = 0, [value]
    while todo and total <= limit:
        item = todo.pop()
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, dict):
            total += _NEST + 4 * len(item)
            todo += [*item.keys(), *item.values()] if total <= limit else []
        elif isinstance(item, (list, tuple)):
            total += _NEST + 2 * len(item)
            todo += item if total <= limit else []
        else:
            total += 4
    return total


class _Generator(CodeGenerator):
    """Jinja's compiler with two seams: loops report each turn, and `~` goes through the environment."""

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        static = sum(len(data.data) for part in node.body for data in part.find_all(nodes.TemplateData))
        # The name is written out as it stands, which makes the call without the sandbox's detour for calls of the template.
        node.body.insert(0, nodes.ExprStmt(nodes.EnvironmentAttribute(f"step({static})"), lineno=node.lineno))
        super().visit_For(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class GuardedEnvironment(ImmutableSandboxedEnvironment):
    """The environment of transformers' chat templates, with a budget. `begin` starts a rendering."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})
    code_generator_class = _Generator

    @classmethod
    def like(cls, reference: ImmutableSandboxedEnvironment) -> GuardedEnvironment:
        """The same syntax, filters, globals and extensions as another environment."""
        extensions = [type(extension) for extension in reference.extensions.values()]
        made = cls(trim_blocks=reference.trim_blocks, lstrip_blocks=reference.lstrip_blocks, extensions=extensions, optimized=False)
        made.finalize = made.printed
        made.globals.update({name: thing for name, thing in reference.globals.items() if name != "lipsum"})
        made.globals.pop("lipsum", None)
        made.filters.update({name: made.limited(name, function) for name, function in reference.filters.items()})
        made.begin(0)
        return made

    def begin(self, static: int) -> None:
        """Start a rendering with a full budget; `static` is the length of the template."""
        self._left, self._static = MAX_WORK, static

    def spend(self, characters: int) -> None:
        """Take from the budget. Raises LimitExceeded when it is used up, or when one value is too large."""
        self._left -= characters
        if characters > MAX_VALUE:
            raise LimitExceeded(f"makes a text of more than {MAX_VALUE:,} characters")
        if self._left < 0:
            raise LimitExceeded("does more work than any conversation needs (an endless or exploding loop)")

    def step(self, static: int = 0) -> None:
        """One turn of a loop, which writes `static` characters of the template."""
        self.spend(_STEP + static)

    def printed(self, value: Any) -> Any:
        """What `{{ ... }}` writes."""
        self.spend(weigh(value))
        return value

    def joined(self, parts: tuple[Any, ...]) -> str:
        """What `a ~ b` makes."""
        self.spend(sum(weigh(part) for part in parts))
        return "".join(map(str, parts))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        text = isinstance(left, str) and isinstance(right, str) and operator == "+"
        self.spend(len(left) + len(right) if text else _estimate(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        # A template may name an argument "self", so the first two parameters have names that it cannot use.
        if isinstance(__obj, Macro):
            __self.spend(_MACRO + __self._static)
            return super().call(__context, __obj, *args, **kwargs)
        owner: Any = __obj.__self__ if isinstance(__obj, BuiltinMethodType) else None
        name = __obj.__name__ if isinstance(__obj, _NAMED) else ""
        __self._check(name, (owner, *args, *kwargs.values()))
        return super().call(__context, __obj, *args, **kwargs)

    def limited(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter whose arguments are checked and whose result is paid for."""

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            self._check(name, (*args, *kwargs.values()))
            result = function(*args, **kwargs)
            self.spend(0 if name in _PASSING else weigh(result))
            return result

        return run

    def _check(self, name: str, operands: tuple[Any, ...]) -> None:
        weighty = () if name in _PASSING else operands
        sizes = [weigh(operand) for operand in weighty if isinstance(operand, (str, list, tuple, dict))]
        self.spend(_STEP + sum(sizes))
        numbers = [abs(operand) for operand in operands if isinstance(operand, int | float)]
        if name in _PADDED and max(numbers, default=0) > MAX_WIDTH:
            raise LimitExceeded(f"pads text to a width of more than {MAX_WIDTH}")
        if name in ("format", "format_map", "__mod__"):
            _check_format(operands[0])
        if name in ("replace", "join") and len(sizes) > 1:
            self.spend(min(_product(sizes), MAX_VALUE + 1))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if isinstance(value, BuiltinMethodType) and value.__name__ in ("format", "format_map") and isinstance(value.__self__, str):
            _check_format(value.__self__)
        return super().wrap_str_format(value)


_NAMED = (BuiltinMethodType, FunctionType)


def _product(sizes: list[int]) -> int:
    """How long a text can become when each of its characters is replaced, or each of its parts joined, by another text."""
    return sizes[0] * max(sizes[1:])


def _check_format(text: Any) -> None:
    """Refuse field widths of four digits, and widths that come from the arguments."""
    if isinstance(text, str) and re.search(r"[%{][^%{}]*(\d{4}|\*|\{)", text):
        raise LimitExceeded(f"pads text to a width of more than {MAX_WIDTH}")


def _estimate(sign: str, left: Any, right: Any) -> int:
    """Characters that `left sign right` makes, before it is made."""
    whole = isinstance(left, int) and isinstance(right, int)
    if whole and sign == "**" and abs(left) > 1 and right > 0 and right * abs(left).bit_length() > MAX_NUMBER.bit_length():
        raise LimitExceeded("computes a number without end")
    if whole:
        if sign == "*" and abs(operator.mul(left, right)) > MAX_NUMBER:
            raise LimitExceeded("computes a number without end")
        return 4
    if sign == "*":
        text, times = (right, left) if isinstance(left, int) else (left, right)
        return weigh(text) * max(times, 0) if isinstance(times, int) else 4
    if sign == "%":
        _check_format(left)
    return weigh(left) + weigh(right)
