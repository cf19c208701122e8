"""One strict document to typed settings. The schema is read from the code that it configures, never written twice."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, dataclass_transform

from hone.core.errors import HoneError
from hone.core.registry import nearest

T = TypeVar("T")
STRICT = {"extra": "forbid", "use_attribute_docstrings": True}


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T]) -> type[T]:
    """A frozen, keyword-only dataclass whose unknown keys are errors. The string under a field is its help."""
    cls.__pydantic_config__ = STRICT  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def settings_of(fn: Callable[..., Any]) -> type:
    """A settings class made from a function's keyword-only arguments."""
    hints = inspect.get_annotations(fn, eval_str=True)
    fields = [
        (p.name, hints[p.name]) if p.default is p.empty else (p.name, hints[p.name], _field(p.default))
        for p in inspect.signature(fn).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    ]
    name = "".join(part.title() for part in fn.__name__.split("_")) + "Settings"
    made = dataclasses.make_dataclass(name, fields, frozen=True, kw_only=True, namespace={"__doc__": fn.__doc__ or ""})
    made.__pydantic_config__ = STRICT  # type: ignore[attr-defined]
    return made


def _field(default: Any) -> Any:
    """A field with a default, of which mappings get a copy of their own."""
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=lambda: dict(default))
    return dataclasses.field(default=default)


def parse(cls: type[T], values: Mapping[str, Any], *, section: str) -> T:
    """Validate one section. Raises C002 for an unknown key and C001 for a value of the wrong type or range."""
    from pydantic import TypeAdapter, ValidationError

    known = [f.name for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise HoneError("C002", f"'{section}' has no setting '{key}'", where=f"{section}.{key}", fix=nearest(str(key), known))
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join([section, *(str(part) for part in first["loc"])])
        raise HoneError("C001", f"{first['msg']} (got {first['input']!r})", where=path, fix=f"see `hone explain {section}`") from None


def schema(cls: type) -> dict[str, Any]:
    """JSON schema of a settings class: the command line's help and the web form are drawn from it."""
    from pydantic import TypeAdapter

    return TypeAdapter(cls).json_schema()
