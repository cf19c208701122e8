"""An adapter's folder on disk: adapter_config.json and adapter_model.safetensors, for peft's types and our own alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.core.files import staged_file, write_atomically
from hone.core.registry import nearest

T = TypeVar("T")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft writes before every path."""
OURS = "hone.base."
"""Where the base's name and fingerprint lie in the metadata of the tensors' file, so that they travel with the tensors."""
AGAIN = "copy or download the adapter again"


class Stored(NamedTuple):
    """A folder as read: its configuration, its tensors without peft's prefix, and what it knows of its base."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    base: dict[str, str]


def own_config(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a method that peft does not know. peft quotes the type when it refuses it, so it is a sentence."""
    kind = f"HONE_{method.upper()}: this kind of adapter is hone's own; open it with `hone chat FOLDER` (pip install hone-llm)"
    return {"peft_type": kind, "hone": {"method": method, **settings}}


def write(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], *, base: Mapping[str, str], prefix: str = PREFIX) -> None:
    """Write an adapter. `tensors` are named by path, which gets a prefix; `base` holds the base's "name" and "fingerprint"."""
    assert tensors, "an adapter without tensors"
    common = {
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.get("name"),
        "revision": base.get("revision"),
        "inference_mode": True,
    }
    flat = {f"{prefix}{name}": tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": "pt"} | {f"{OURS}{key}": value for key, value in base.items()}
    folder.mkdir(parents=True, exist_ok=True)
    with staged_file(folder / WEIGHTS) as temporary:
        save_file(flat, temporary, metadata=metadata)
        _order_header(temporary)
    write_atomically(folder / CONFIG, json.dumps({**common, **config}, indent=2, ensure_ascii=False) + "\n")


def _order_header(file: Path) -> None:
    """Give the header's metadata a fixed order, which the library leaves to chance: equal adapters are equal files."""
    with file.open("r+b") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size)
        assert len(text) == size, "the header is written in another way than we know"
        stream.seek(8)
        stream.write(text)


def of_run(folder: Path) -> Path:
    """The adapter of a run's folder; any other folder is taken for one."""
    inside = folder / "adapter"
    return inside if inside.is_dir() else folder


def read(folder: Path, *, base: Mapping[str, str] | None = None) -> Stored:
    """Read an adapter's folder of any type.

    Raises M003 where `base` is not the model that it was trained on, M005 for damaged files or numbers that are not
    finite, M008 for a pickle, M009 for a folder without an adapter, M013 for a broken configuration.
    """
    config, known = read_config(folder), read_known(folder)
    if base is not None:
        check_base(known, base, where=str(folder))
    tensors = _open(folder, lambda stored: {name: stored.get_tensor(name) for name in list(stored.keys())})
    return Stored(config, {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}, known)


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json as written. Raises M009 where it is missing, M013 where it is no JSON object."""
    file = folder / CONFIG
    if not file.exists():
        what = f"there is no adapter in '{folder}' ({CONFIG} is missing)"
        raise HoneError("M009", what, where=str(folder), fix="give the folder that holds it")
    try:
        raw = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        raise HoneError("M013", f"{CONFIG} is no JSON object", where=str(file), fix=AGAIN)
    return raw


def read_known(folder: Path) -> dict[str, str]:
    """What an adapter knows of its base: "name", and "fingerprint" if we wrote it. Raises as `read`."""
    metadata = _open(folder, lambda stored: dict(stored.metadata() or {}))
    known = {key.removeprefix(OURS): value for key, value in metadata.items() if key.startswith(OURS)}
    return {"name": str(read_config(folder).get("base_model_name_or_path") or "")} | known


def _open(folder: Path, look: Callable[[Any], T]) -> T:
    """Look into the tensors' file."""
    file = folder / WEIGHTS
    if not file.exists():
        if (folder / "adapter_model.bin").exists():
            what = "the adapter is a pickle (adapter_model.bin), which can run any program when it is opened"
            fix = "open it once with peft where nothing can be lost, and save_pretrained it again"
            raise HoneError("M008", what, where=str(folder), fix=fix)
        raise HoneError("M009", f"{WEIGHTS} is missing", where=str(folder), fix=AGAIN)
    try:
        with safe_open(file, framework="pt") as stored:
            return look(stored)
    except SafetensorError as error:
        raise HoneError("M005", f"{WEIGHTS} is damaged ({error})", where=str(file), fix=AGAIN) from None


def check_finite(tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Raise M005 for the first tensor with a value that is no finite number."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            what = f"'{name}' holds values that are no finite numbers"
            raise HoneError("M005", what, where=where, fix="use an earlier checkpoint")


def check_base(adapter: Mapping[str, str], base: Mapping[str, str], *, where: str) -> None:
    """Raise M003 where an adapter's fingerprint is not the base's. One without a fingerprint is checked by its layers only."""
    mine, theirs = adapter.get("fingerprint", ""), base.get("fingerprint", "")
    if not mine or not theirs or mine == theirs:
        return
    same_shape = mine.partition("-")[0] == theirs.partition("-")[0]
    how = "same architecture, other weights" if same_shape else "another architecture"
    what = f"this adapter was trained on another base: '{adapter.get('name')}', not '{base.get('name')}' ({how})"
    raise HoneError("M003", what, where=where, fix=f"load the base that it was trained on: model={adapter.get('name')}")


def copy_into(parameters: Mapping[str, nn.Parameter | Tensor], stored: Stored, *, where: str) -> None:
    """Copy an adapter's tensors into the parameters of the same names. Raises M041 where names or sizes differ."""
    check_finite(stored.tensors, where=where)
    fix = f"attach it with the settings that it was trained with, to its base: model={stored.base.get('name') or '(unknown)'}"
    lost, missing = sorted(stored.tensors.keys() - parameters.keys()), sorted(parameters.keys() - stored.tensors.keys())
    if lost:
        what = f"the adapter holds '{lost[0]}', for which the model has no place ({nearest(lost[0], parameters)})"
        raise HoneError("M041", what, where=where, fix=fix)
    if missing:
        raise HoneError("M041", f"the adapter holds nothing for '{missing[0]}'", where=where, fix=fix)
    for name, tensor in stored.tensors.items():
        if tensor.shape != parameters[name].shape:
            what = f"'{name}' is {tuple(tensor.shape)} in the adapter and {tuple(parameters[name].shape)} here"
            raise HoneError("M041", what, where=where, fix=fix)
        parameters[name].data.copy_(tensor)
