"""One strict document to typed settings. The schema is read from the code that it configures, never written twice."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import cache
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


@cache
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
    """Validate one section, called `optim` or, where its fields depend on a choice, `tuning (lora)`. One value may stand for a list.

    Raises C002 for an unknown key and C001 for a value that is missing, of the wrong type or out of its range.
    """
    from pydantic import ValidationError

    known = [f.name for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]
    name = section.partition(" ")[0]
    for key in values:
        if key not in known:
            raise HoneError("C002", f"'{section}' has no setting '{key}'", where=f"{name}.{key}", fix=nearest(str(key), known))
    try:
        checked: T = _adapter(cls).validate_python(dict(values))  # type: ignore[arg-type]
        return checked
    except ValidationError as error:
        found = error.errors()
    scalar = [one for one in found if one["type"] == "tuple_type" and len(one["loc"]) == 1 and isinstance(one["input"], str | int | float)]
    if scalar:
        alone = {str(one["loc"][0]): (one["input"],) for one in scalar}
        return parse(cls, {**values, **alone}, section=section)
    raise _fault(max(found, key=_nearness), name)


@cache
def _adapter(cls: type) -> Any:
    """Building one takes as long as all else."""
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _nearness(one: Mapping[str, Any]) -> tuple[int, bool]:
    """Of what does not fit any member of a union, the member that fits best is told: what goes deep, and is of the right kind."""
    return len(one["loc"]), not one["type"].endswith("_type")


def _fault(first: Mapping[str, Any], section: str) -> HoneError:
    """C001 for one finding of pydantic."""
    fields = [str(part) for part in first["loc"] if isinstance(part, int) or _is_field(part)]
    path = ".".join([section, *(fields if fields != [section] else [])])
    page = ".".join(path.split(".")[:2])
    if first["type"] == "missing" or first["input"] is None:
        return HoneError("C001", f"{path} is not given", where=path, fix=f"give it, as {path}=...; `hone explain {page}` tells what it is")
    what = first["msg"].replace("Input", path, 1) if first["msg"].startswith("Input") else f"{path}: {first['msg']}"
    return HoneError("C001", f"{what} (got {first['input']!r})", where=path, fix=f"`hone explain {page}` tells what it may be")


def _is_field(part: str) -> bool:
    """Whether a part of pydantic's path is a field, and not the name of a member of a union."""
    return part.isidentifier() and part[:1].islower() and part not in ("str", "int", "float", "bool", "none", "tuple", "list", "dict")


def schema(cls: type) -> dict[str, Any]:
    """JSON schema of a settings class: the command line's help and the web form are drawn from it."""
    found: dict[str, Any] = _adapter(cls).json_schema()
    return found
