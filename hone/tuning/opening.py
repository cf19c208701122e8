"""From an adapter's folder to the method that made it, whoever wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from hone.core.config import parse
from hone.core.errors import HoneError
from hone.core.registry import nearest
from hone.tuning import bridge
from hone.tuning.base import METHODS, Tuning
from hone.tuning.folder import CONFIG, read_config, read_known


class OpenedAdapter(NamedTuple):
    """A method with settings that make room for exactly what the folder holds, and what the folder knows of its base."""

    tuning: Tuning
    base: dict[str, str]


def open_adapter(folder: Path) -> OpenedAdapter:
    """Settings of an adapter of ours or of peft; `load` then reads its tensors into an attached model.

    Raises M009 where there is none, M013 for a broken configuration, M019 for what cannot be honoured.
    """
    config, where = read_config(folder), str(folder / CONFIG)
    own = config.get("hone")
    if isinstance(own, dict):
        settings = {key: value for key, value in own.items() if key != "method"}
        name = str(own.get("method"))
        if name not in METHODS:
            fix = f"update hone ({nearest(name, METHODS)})"
            raise HoneError("M019", f"the adapter's method is '{name}', which this version does not have", where=where, fix=fix)
        return OpenedAdapter(parse(METHODS[name], METHODS[name].located(folder, settings), section=f"tuning ({name})"), read_known(folder))
    kind = config.get("peft_type")
    for method in (method for _, method in METHODS.items() if method.about.peft_type == kind and kind is not None):
        return OpenedAdapter(method.from_peft(folder), read_known(folder))
    if bridge.known_to_peft(kind):
        return OpenedAdapter(bridge.Peft.from_peft(folder), read_known(folder))
    readable = ", ".join(sorted({method.about.peft_type for _, method in METHODS.items() if method.about.peft_type}))
    what = f"the adapter's method is {kind!r}; peft's types that can be read are {readable}"
    raise HoneError("M019", what, where=where, fix="merge it into its base with peft, and start from the merged model")
