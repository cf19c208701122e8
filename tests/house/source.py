"""The repository as the house rules see it: its files, their syntax trees, and what they import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("hone", "tests", "examples", "bench")
Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)


def python_files(*rooms: str) -> list[Path]:
    """All Python files of some rooms, of all of them when none is named."""
    return [file for room in rooms or ROOMS for file in sorted((ROOT / room).rglob("*.py"))]


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


def place(file: Path, node: ast.AST | None = None) -> str:
    """ "hone/core/types.py:12"."""
    return str(file.relative_to(ROOT)) + (f":{node.lineno}" if isinstance(node, ast.expr | ast.stmt) else "")


def nodes(*rooms: str) -> Iterator[tuple[Path, ast.AST]]:
    """Every node of every file, with its file."""
    for file in python_files(*rooms):
        for node in ast.walk(tree(file)):
            yield file, node


def arguments(function: Function) -> list[str]:
    """Names of the parameters that a caller gives; what Python or autograd passes by itself does not count."""
    found = function.args
    names = [each.arg for each in (*found.posonlyargs, *found.args, *found.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"], ["ctx"]) else names


def depth(statements: list[ast.stmt]) -> int:
    """How deep blocks lie in blocks. An `elif` is no deeper than its `if`; a function inside starts again."""
    return max((_depth_of(each) for each in statements), default=0)


def _depth_of(statement: ast.stmt) -> int:
    if not isinstance(statement, BLOCKS):
        return 0
    inner = [each for each in ast.iter_child_nodes(statement) if isinstance(each, ast.stmt)]
    for part in ast.iter_child_nodes(statement):
        if isinstance(part, ast.ExceptHandler | ast.match_case):
            inner += part.body
    if isinstance(statement, ast.If) and len(statement.orelse) == 1 and isinstance(statement.orelse[0], ast.If):
        chained = statement.orelse[0]
        return max(1 + depth([each for each in inner if each is not chained]), _depth_of(chained))
    return 1 + depth(inner)


def imported_names(module: ast.Module) -> dict[str, str]:
    """Local name -> what it was imported as, for every import anywhere in a file."""
    found: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = alias.name
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def root_name(target: ast.expr) -> str:
    """ "torch" for `torch.nn.Linear.forward`; "" for what does not begin with a name."""
    while isinstance(target, ast.Attribute):
        target = target.value
    return target.id if isinstance(target, ast.Name) else ""
