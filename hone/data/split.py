"""Keeps conversations aside: the same prompt never stands on both sides, and the same seed always gives the same sides."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from hone.core.disk import fault_of
from hone.core.errors import HoneError
from hone.core.files import sha256_of, write_atomically
from hone.core.types import Example
from hone.data.jsonlines import line_of
from hone.data.loaders import kind_of
from hone.data.reading import Outcome, Reading

SHORT = 20
"""Characters of a prompt below which it says too little (a greeting) to tell conversations apart."""
_PUNCTUATION = re.compile(r"[\s.,;:!?\"'`’‘“”…()\[\]{}，。！？；：、（）《》【】]+")


def normalised(text: str) -> str:
    """Text without what people vary by accident: case, spaces, forms of letters, punctuation."""
    return _PUNCTUATION.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def prompt_of(example: Example) -> str:
    """What is asked: the turns before the first answer without the system prompt, or all of the user's turns if that is short."""
    if example.text is not None:
        return example.text
    said = example.conversations[0]
    first = next((i for i, one in enumerate(said) if one.role == "assistant"), len(said))
    opening = "\n".join(one.content for one in said[:first] if one.role != "system")
    return opening if len(opening) >= SHORT else "\n".join(one.content for one in said if one.role == "user")


def prompt_key(example: Example) -> str:
    """Short hash of the normalised prompt."""
    return short_hash(normalised(prompt_of(example)))


def example_key(example: Example) -> str:
    """Short hash of all that is said, and by whom: equal for rows that teach the same."""
    said = [(one.role, one.content, one.tool_calls) for conversation in example.conversations for one in conversation]
    return short_hash(repr((example.text, said)))


def short_hash(text: str) -> str:
    """16 hexadecimal digits of BLAKE2."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).hexdigest()


def held_out_keys(keys: Sequence[str], *, fraction: float, seed: int) -> set[str]:
    """The keys to keep aside, one key given for each row: together about `fraction` of the rows, and never more.

    The order of the rows plays no part, and rows that are added later move few keys to the other side.
    """
    sizes = Counter(keys)
    room = round(fraction * len(keys))
    chosen = set()
    for key in sorted(sizes, key=lambda key: short_hash(f"{seed}/{key}")):
        if sizes[key] <= room:
            chosen.add(key)
            room -= sizes[key]
    return chosen


def hash_of(keys: Iterable[str]) -> str:
    """SHA-256 that two splits share if they keep the same prompts aside."""
    return hashlib.sha256("\n".join(sorted(set(keys))).encode()).hexdigest()


class Split(NamedTuple):
    """What `split_file` wrote."""

    train: Path
    held_out: Path
    record: Path
    train_rows: int
    held_out_rows: int
    left_out: Counter[str]
    """Code -> rows that are on neither side."""
    hash: str


def split_file(source: str, *, fraction: float = 0.2, seed: int = 42, reading: Reading | None = None) -> Split:
    """Write `NAME.train.jsonl`, `NAME.held_out.jsonl` and `NAME.split.json` beside a source; rows stay as they are.

    Rows that nothing can be learned from are on neither side. Raises D037 where one of the files is there and differs, and what
    reading raises.
    """
    outcomes = list((reading or Reading()).source(source))
    keys = {one.origin: prompt_key(one.example) for one in outcomes if one.example is not None}
    aside = held_out_keys(list(keys.values()), fraction=fraction, seed=seed)
    left_out = Counter(one.fault.code for one in outcomes if one.fault is not None)
    usable = [one for one in outcomes if one.origin in keys]
    train = _side(beside(source, "train.jsonl"), [one for one in usable if keys[one.origin] not in aside])
    held_out = _side(beside(source, "held_out.jsonl"), [one for one in usable if keys[one.origin] in aside])
    split = Split(train.path, held_out.path, beside(source, "split.json"), train.rows, held_out.rows, left_out, hash_of(aside))
    record = {
        "source": source,
        "source_sha256": sha256_of(Path(source)) if Path(source).is_file() else None,
        "seed": seed,
        "fraction": fraction,
        "hash": split.hash,
        "train": train.record,
        "held_out": held_out.record,
        "left_out": dict(left_out),
    }
    write_new({train.path: train.text, held_out.path: held_out.text, split.record: json.dumps(record, indent=1)})
    return split


class _Side(NamedTuple):
    path: Path
    rows: int
    text: str

    @property
    def record(self) -> dict[str, object]:
        return {"file": self.path.name, "rows": self.rows, "sha256": hashlib.sha256(self.text.encode("utf-8")).hexdigest()}


def _side(path: Path, outcomes: Sequence[Outcome]) -> _Side:
    rows = [one.row for one in outcomes if one.row is not None]
    return _Side(path, len(rows), "".join(line_of(row.columns) for row in rows))


def beside(source: str, ending: str) -> Path:
    """A file beside a source, named after it; in the working folder for a data set of the hub."""
    path = Path(source) if Path(source).exists() else Path(re.sub(r"[^\w.-]+", "_", source))
    path = path.resolve() if path.name in ("", "..") else path
    name = path.name.removesuffix(".gz")
    return path.with_name(f"{name.removesuffix(kind_of(path))}.{ending}")


def write_new(files: dict[Path, str]) -> None:
    """Write files that are not there yet, or are there with the same content. Raises D037 before anything is written, F004, F005, F006."""
    for path, text in files.items():
        if path.exists() and not (path.is_file() and path.read_bytes() == text.encode("utf-8")):
            raise HoneError(
                "D037", "the file is there already, and hone does not overwrite", where=str(path), fix="move it away, or remove it"
            )
    for path, text in files.items():
        try:
            write_atomically(path, text)
        except OSError as error:
            raise fault_of(error, path.parent, len(text)) from None
