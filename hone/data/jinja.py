"""The Jinja environment that chat templates are written for, as transformers sets it up, without loading transformers."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace


def environment() -> ImmutableSandboxedEnvironment:
    """Syntax, filters and globals of transformers' own, but for the tag `{% generation %}`; a test holds the two together."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    made.filters["tojson"] = _to_json
    made.globals |= {"raise_exception": _refuse, "dict": _Dict(), "namespace": _Namespace}
    return made


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    """Unlike Jinja's own filter, it leaves HTML's characters alone."""
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Dict:
    """Makes dictionaries, and gives a template no class to climb on."""

    def __call__(self, *args: Any, **words: Any) -> dict[Any, Any]:
        return dict(*args, **words)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """Jinja's namespace, with no name that begins with an underscore."""

    def __init__(*args: Any, **words: Any) -> None:
        self, rest = args[0], args[1:]
        values = dict(*rest, **words)
        for name in values:
            _check(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check(name)
        super().__setitem__(name, value)


def _check(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a template cannot store the underscored name {name!r}")
