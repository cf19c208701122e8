"""From what a person typed to a folder with a model, or to a hub id, with the nearest right name when it is neither."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from hone.core.errors import HoneError
from hone.models.safety import PICKLES, gguf_error, pickle_error
from hone.plan.shapes import read_json

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


def local_folder(name: str, revision: str | None = None) -> Path | None:
    """The folder that a name means, or None where it can only be a hub id.

    Raises M009 for neither, M006 or M008 for a file, C004 for a folder with a revision.
    """
    if not name.strip():
        raise HoneError("M009", "no model is named", where="model.name", fix="give a folder or a hub id, for example model=Qwen/Qwen3-0.6B")
    path = Path(name).expanduser()
    if path.is_dir() and revision is not None:
        raise HoneError("C004", f"'{name}' is a folder, which has no revisions", where="model.revision", fix="leave model.revision out")
    if path.is_dir():
        return _checked(path)
    if path.exists():
        raise _file_error(path)
    if _is_path(name):
        raise HoneError("M009", f"there is no folder '{name}'", where="model.name", fix=near(path) or "check the path")
    if not HUB_ID.fullmatch(name) or ".." in name or "--" in name:
        fix = near(path) or "a hub id looks like Qwen/Qwen3-0.6B"
        raise HoneError("M009", f"'{name}' is neither a folder nor a hub id", where="model.name", fix=fix)
    if "/" in name and near(path):
        raise HoneError("M009", f"there is no folder '{name}'", where="model.name", fix=near(path))
    return None


def near(path: Path) -> str:
    """A hint with the name in the same folder that looks most like this one, or nothing."""
    path = path.absolute()
    parent = path.parent
    while not parent.is_dir():
        path, parent = parent, parent.parent
    close = difflib.get_close_matches(path.name, sorted(child.name for child in parent.iterdir() if child.is_dir()), n=1)
    return f"did you mean '{parent / close[0]}'?" if close else ""


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or name.endswith("/") or Path(name).is_absolute()


def _checked(folder: Path) -> Path:
    """A folder with a config.json; otherwise say what the folder is instead."""
    if (folder / "adapter_config.json").exists():
        raise _adapter_error(folder)
    if (folder / "config.json").exists():
        return folder
    names = sorted(child.name for child in folder.iterdir())
    gguf = [name for name in names if name.endswith(".gguf")]
    if gguf:
        raise gguf_error(gguf[0], where=str(folder))
    inside = [name for name in names if (folder / name / "config.json").exists()]
    fix = f"did you mean '{folder / inside[0]}'?" if inside else "a model's folder holds config.json, model.safetensors and a tokenizer"
    raise HoneError("M009", f"the folder '{folder}' holds no model (no config.json)", where="model.name", fix=fix)


def _adapter_error(folder: Path) -> HoneError:
    base = read_json(folder / "adapter_config.json").get("base_model_name_or_path") or "its base model"
    fix = f"give its base, model={base}; the adapter goes beside it"
    return HoneError("M009", f"'{folder}' is an adapter, not a model", where="model.name", fix=fix)


def _file_error(file: Path) -> HoneError:
    if file.name.endswith(".gguf"):
        return gguf_error(file.name, where=str(file))
    if file.name.endswith(PICKLES):
        return pickle_error(file.name, where=str(file))
    return HoneError("M009", f"'{file}' is a file", where="model.name", fix=f"give the folder that it lies in: {file.parent}")
