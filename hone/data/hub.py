"""Rows of a data set of the hub, or of a folder that the `datasets` library has saved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hone.core.errors import HoneError
from hone.core.types import Origin
from hone.data.rows import Item, Remark, Row

PREFIX = "hub:"
_ID = re.compile(r"(?P<path>[\w.-]+(/[\w.-]+)?)(/(?P<config>[\w.+-]+))?(:(?P<split>[\w\[\]%:+-]+))?")
_SAVED = ("dataset_info.json", "dataset_dict.json")


def looks_like_hub(source: str) -> bool:
    """Whether a source that is no file may be a data set of the hub: what follows `hub:`, and `owner/name` unless `owner` is a folder."""
    if source.startswith(PREFIX):
        return True
    named = source.count("/") in (1, 2) and _ID.fullmatch(source) is not None
    return named and not source.startswith(".") and (":" in source or not Path(source.partition("/")[0]).is_dir())


def is_saved(folder: Path) -> bool:
    """Whether `datasets` has saved this folder with `save_to_disk`."""
    return any((folder / name).is_file() for name in _SAVED)


def hub_rows(source: str) -> Iterator[Item]:
    """Rows of `[hub:]owner/name[/config][:split]`; the split is `train` unless named. No code of the repository is run.

    Raises D017 with what is available instead, or why the hub did not answer.
    """
    found = _ID.fullmatch(source.removeprefix(PREFIX))
    if found is None:
        fix = "write owner/name, owner/name/config or owner/name:split"
        raise HoneError("D017", f"'{source}' is not the name of a data set", where=source, fix=fix)
    import datasets

    split = found["split"] or "train"
    try:
        data = datasets.load_dataset(found["path"], found["config"], split=split)
    except (OSError, ValueError, KeyError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise _fault(error, source) from None
    yield Remark(source, f"split '{split}' of the data set")
    yield from _rows(data, source)


def saved_rows(folder: Path, name: str) -> Iterator[Item]:
    """Rows of a saved data set; of its `train` split, or its only one, if it has several."""
    import datasets

    try:
        data: Any = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise HoneError("D015", f"the saved data set cannot be read: {_line(error)}", where=name, fix="save it again") from None
    if isinstance(data, datasets.DatasetDict):
        split = "train" if "train" in data else next(iter(data))
        yield Remark(name, f"split '{split}' of {', '.join(data)}")
        data = data[split]
    yield from _rows(data, name)


def _rows(data: Any, name: str) -> Iterator[Item]:
    """Class labels are given by their names, not their numbers."""
    named = {key: feature.int2str for key, feature in data.features.items() if type(feature).__name__ == "ClassLabel"}
    for number, columns in enumerate(data, start=1):
        labels = {key: name_of(columns[key]) for key, name_of in named.items() if columns[key] is not None and columns[key] >= 0}
        yield Row(Origin(name, number), columns | labels)


def _fault(error: Exception, source: str) -> HoneError:
    """What a person can do about a data set that did not come."""
    kind = type(error).__name__
    if kind in ("OfflineModeIsEnabled", "ConnectionError", "ConnectTimeout", "ReadTimeout"):
        fix = "check the network, unset HF_HUB_OFFLINE, or download the files and give their folder"
        return HoneError("D017", "the hub cannot be reached, and the data set is not in the cache", where=source, fix=fix)
    if kind == "DatasetNotFoundError":
        fix = "check the spelling; for a private or gated data set log in with `hf auth login`; for a file check its path"
        return HoneError("D017", "there is no such data set on the hub, and no such file here", where=source, fix=fix)
    fix = "name one as owner/name/config:split"
    return HoneError("D017", f"the data set cannot be loaded: {_line(error)}", where=source, fix=fix)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
