"""Keeps conversations aside: the same prompt never stands on both sides, and the same seed always gives the same sides."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from hone.core.errors import HoneError
from hone.core.files import sha256_of, write_atomically
from hone.core.types import Example
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
    outcomes = [one for one in (reading or Reading()).source(source) if one.row is not None]
    keys = {one.origin: prompt_key(one.example) for one in outcomes if one.example is not None}
    aside = held_out_keys(list(keys.values()), fraction=fraction, seed=seed)
    left_out = Counter(one.fault.code for one in outcomes if one.fault is not None)
    files = [beside(source, name) for name in ("train.jsonl", "held_out.jsonl", "split.json")]
    sides = [[one for one in outcomes if one.origin in keys and (keys[one.origin] in aside) == wanted] for wanted in (False, True)]
    split = Split(*files, len(sides[0]), len(sides[1]), left_out, hash_of(aside))
    texts = [_lines(side) for side in sides]
    write_new(dict(zip(files, [*texts, json.dumps(_record(source, split, texts, fraction, seed), indent=1)], strict=True)))
    return split


def beside(source: str, ending: str) -> Path:
    """A file beside a source, named after it."""
    path = Path(source)
    name = path.name.removesuffix(".gz")
    return path.with_name(f"{name.removesuffix(kind_of(path))}.{ending}")


def write_new(files: dict[Path, str]) -> None:
    """Write files that are not there yet, or are there with the same content. Raises D037 before anything is written."""
    for path, text in files.items():
        if path.exists() and path.read_bytes() != text.encode("utf-8"):
            raise HoneError(
                "D037", "the file is there already, and hone does not overwrite", where=str(path), fix="move it away, or remove it"
            )
    for path, text in files.items():
        write_atomically(path, text)


def _lines(outcomes: Iterable[Outcome]) -> str:
    rows = (one.row for one in outcomes if one.row is not None)
    return "".join(json.dumps(row.columns, ensure_ascii=False, default=str) + "\n" for row in rows)


def _record(source: str, split: Split, texts: Sequence[str], fraction: float, seed: int) -> dict[str, object]:
    sha256: Callable[[str], str] = lambda text: hashlib.sha256(text.encode("utf-8")).hexdigest()  # noqa: E731
    return {
        "source": source,
        "source_sha256": sha256_of(Path(source)) if Path(source).is_file() else None,
        "seed": seed,
        "fraction": fraction,
        "hash": split.hash,
        "train": {"file": split.train.name, "rows": split.train_rows, "sha256": sha256(texts[0])},
        "held_out": {"file": split.held_out.name, "rows": split.held_out_rows, "sha256": sha256(texts[1])},
        "left_out": dict(split.left_out),
    }
