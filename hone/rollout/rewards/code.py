"""Whether a program that the model wrote passes the row's tests. It runs in a jail, and what it returns is judged outside of it.

A test is data: the jail only tells what an expression gave, or what was printed, and never sees what is expected, so no
program can award itself the score. Nothing that a model wrote is ever evaluated in this process.
"""

from __future__ import annotations

import ast
import json
import math
import operator
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Gt

from hone.core.errors import HoneError
from hone.rollout.rewards import jail
from hone.rollout.rewards.base import Fault, Reward, Score, Tools, Written, kind
from hone.rollout.rewards.pipes import kill_group, read_all

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Is: operator.eq, ast.IsNot: operator.ne,
}  # fmt: skip
MOST_OUTPUT = 1 << 20
"""Bytes that are read of what a program says."""


class Value(NamedTuple):
    """An expression that the jail evaluates, and how what it gave is judged."""

    expression: str
    holds: Callable[[Any], bool]


class Dialogue(NamedTuple):
    """What a program is given on its standard input, and what it must print."""

    given: str
    printed: str


Test = Value | Dialogue


@kind
def code(
    tools: Tools,
    *,
    column: str = "tests",
    whole: bool = False,
    memory: Annotated[int, Gt(0)] = 512,
    processes: Annotated[int, Ge(1)] = 2,
    isolate: Literal["try", "require"] = "try",
) -> Reward:
    """The share of the row's tests that the answer's Python passes (with `whole`: 1 for all of them, else 0).

    Tests are `assert f(2) == 4`, {call, args, equals} or {stdin, stdout}. The program has `memory` MiB, the standard library, an empty
    folder, no environment and, where the system can cut it off, no network: `isolate=require` refuses to run without that.
    """
    if isolate == "require" and not isolated():
        fix = "allow unprivileged user namespaces on this machine, run hone in a container, or accept isolate=try"
        raise HoneError("C064", "this machine cannot cut programs off from the network", where="rollout.rewards.code", fix=fix)

    def judge(answers: Sequence[Written]) -> list[Score]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(processes) as pool:
            return list(pool.map(lambda w: _judge(w, column, whole, Limits(tools.seconds, memory)), answers))

    return judge


class Limits(NamedTuple):
    """Seconds and MiB of one answer."""

    seconds: float
    memory: int


def _judge(written: Written, column: str, whole: bool, limits: Limits) -> Score:
    try:
        tests = read_tests(written.row[column])
    except (KeyError, ValueError) as error:
        return Fault("R003", f"{type(error).__name__}: {error}")
    passed = run(program(written.text), tests, limits)
    return float(all(passed)) if whole else sum(passed) / len(passed)


def program(answer: str) -> str:
    """The last fenced block of an answer, or the whole answer."""
    blocks = _BLOCK.findall(answer)
    return blocks[-1] if blocks else answer


def read_tests(value: Any) -> list[Test]:
    """The tests of a row. Raises ValueError for what cannot be judged from outside."""
    listed = json.loads(value) if isinstance(value, str) and value.lstrip().startswith(("[", "{")) else value
    if isinstance(listed, str):
        listed = [line for line in listed.splitlines() if line.strip()]
    if isinstance(listed, Mapping):
        listed = [{"stdin": a, "stdout": b} for a, b in zip(listed["inputs"], listed["outputs"], strict=True)]
    if not listed:
        raise ValueError("there is not a single test")
    return [_test(each) for each in listed]


def _test(written: Any) -> Test:
    if isinstance(written, str):
        return _assertion(written)
    if "stdin" in written:
        return Dialogue(str(written["stdin"]), str(written["stdout"]))
    arguments = [*map(repr, written.get("args", ())), *(f"{key}={value!r}" for key, value in written.get("kwargs", {}).items())]
    return Value(f"{written['call']}({', '.join(arguments)})", lambda got: same(got, written["equals"]))


def _assertion(text: str) -> Value:
    """`assert LEFT op LITERAL`, `assert LEFT` or `assert not LEFT`: LEFT is evaluated inside, the rest outside."""
    tree = ast.parse(text.strip()).body
    if len(tree) != 1 or not isinstance(tree[0], ast.Assert):
        raise ValueError(f"a test is one `assert`, not {text.strip()!r:.80}")
    said = tree[0].test
    if isinstance(said, ast.Compare) and len(said.ops) == 1 and type(said.ops[0]) in _COMPARE:
        with suppress(ValueError):
            wanted, compare = ast.literal_eval(said.comparators[0]), _COMPARE[type(said.ops[0])]
            if compare is operator.eq:
                return Value(ast.unparse(said.left), lambda got: same(got, wanted))
            return Value(ast.unparse(said.left), lambda got: bool(compare(got, wanted)))
    if isinstance(said, ast.UnaryOp) and isinstance(said.op, ast.Not):
        return Value(ast.unparse(said.operand), lambda got: not got)
    return Value(ast.unparse(said), lambda got: got is True)


def same(got: Any, wanted: Any) -> bool:
    """Equality that forgives what JSON and floats lose: lists for tuples, and the last digits of a number."""
    if isinstance(got, float) or isinstance(wanted, float):
        numbers = isinstance(got, int | float) and isinstance(wanted, int | float)
        return numbers and math.isclose(got, wanted, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(got, list | tuple) and isinstance(wanted, list | tuple):
        return len(got) == len(wanted) and all(map(same, got, wanted))
    return type(got) is type(wanted) and bool(got == wanted)


def run(source: str, tests: Sequence[Test], limits: Limits) -> list[bool]:
    """Which tests a program passes. All expressions share one process, each dialogue has its own."""
    until = time.monotonic() + limits.seconds
    values = [test for test in tests if isinstance(test, Value)]
    found = iter(_values(source, values, until, limits) if values else [])
    return [next(found) if isinstance(test, Value) else _dialogue(source, test, until, limits) for test in tests]


def _values(source: str, tests: Sequence[Value], until: float, limits: Limits) -> list[bool]:
    probes = "".join(f"\ndef _probe_{i}():\n    return {test.expression}\n" for i, test in enumerate(tests))
    said = _jailed(source + "\n" + probes, f"values {len(tests)}", "", until, limits)
    try:
        texts = json.loads(said)
        return [_holds(test, texts[i]) for i, test in enumerate(tests)]
    except (ValueError, LookupError, TypeError, RecursionError):
        return [False] * len(tests)


def _holds(test: Value, text: Any) -> bool:
    try:
        return isinstance(text, str) and test.holds(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False


def _dialogue(source: str, test: Dialogue, until: float, limits: Limits) -> bool:
    said = _jailed(source, "dialogue", test.given, until, limits).decode("utf-8", "replace")
    return [line.rstrip() for line in said.rstrip().splitlines()] == [line.rstrip() for line in test.printed.rstrip().splitlines()]


def _jailed(source: str, order: str, given: str, until: float, limits: Limits) -> bytes:
    """What a program says in the jail; nothing where it takes too long."""
    left = until - time.monotonic()
    if left <= 0:
        return b""
    with tempfile.TemporaryDirectory(prefix="hone-jail-") as folder:
        (Path(folder) / "program.py").write_text(source, "utf-8", "replace")
        (Path(folder) / "given.txt").write_text(given, "utf-8", "replace")
        words = [sys.executable, "-I", "-S", jail.__file__, order, str(math.ceil(left)), str(limits.memory)]
        with open(Path(folder) / "given.txt", "rb") as stdin:
            child = subprocess.Popen(
                words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder, env={}, start_new_session=True
            )
        try:
            return read_all(child.stdout, until, MOST_OUTPUT) or b""
        finally:
            kill_group(child)


@cache
def isolated() -> bool:
    """Whether this system lets the jail cut the network off, found by trying."""
    return _jailed("", "isolated", "", time.monotonic() + 20, Limits(20, 512)).strip() == b"yes"
