"""Opens data files: unpacks gz within limits, reads lines within limits, and finds out in which encoding a file is."""

from __future__ import annotations

import gzip
import io
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from hone.core.disk import size
from hone.core.errors import HoneError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_ROW = 32 * 2**20
"""Bytes of one row: about eight million tokens, far beyond any context."""
MAX_UNPACKED = 64 * 2**30
MAX_RATIO = 200
"""Bytes unpacked for a byte packed. JSON packs 3 to 20 times; only repeated filler packs hundreds of times."""
FREE_OF_RATIO = 16 * 2**20
BOM = b"\xef\xbb\xbf"
_PACKED = {b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z"}
FIXED_BY = "`hone data fix FILE` writes a repaired copy"


class Limits(NamedTuple):
    """What a packed file may grow to."""

    unpacked: int = MAX_UNPACKED
    ratio: int = MAX_RATIO
    free: int = FREE_OF_RATIO
    """The ratio is not looked at below this size."""


def open_data(path: Path, *, encoding: str = "utf-8", limits: Limits | None = None) -> io.BufferedReader:
    """A file's bytes as UTF-8, unpacked if it is gz, without a byte order mark. A file in another `encoding` is converted.

    Raises D003 for UTF-16 that was not asked for, D009 where unpacking goes over the limits, D014 for other archives, and
    D015 for a damaged gz.
    """
    stream = _unpacked(path, limits or Limits())
    if encoding != "utf-8":
        with stream:
            text = stream.read().decode(encoding, errors="replace")
        return io.BufferedReader(io.BytesIO(text.removeprefix("\ufeff").encode("utf-8")))
    with ExitStack() as on_fault:
        on_fault.callback(stream.close)
        head = _head(stream)
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise HoneError("D003", "the file is UTF-16, not UTF-8", where=f"{path}:1:1", fix=FIXED_BY)
        if head.startswith(BOM):
            stream.read(len(BOM))
        on_fault.pop_all()
    return stream


def has_bom(path: Path) -> bool:
    """Whether a file begins with a UTF-8 byte order mark."""
    with _unpacked(path, Limits()) as stream:
        return _head(stream).startswith(BOM)


def lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """(number, line) with its line break, counted from 1. A line above MAX_ROW is passed over and given as None."""
    number = 0
    while line := stream.readline(MAX_ROW + 1):
        number += 1
        if len(line) <= MAX_ROW:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_ROW)
        yield number, None


def too_long(name: str, number: int) -> HoneError:
    """D008 for a row above MAX_ROW."""
    what, fix = f"this row is larger than {size(MAX_ROW)}", "cut the document into several rows, or leave it out with data.skip_bad=true"
    return HoneError("D008", what, where=f"{name}:{number}", fix=fix)


def decode(line: bytes, *, name: str, number: int) -> str:
    """UTF-8 to text. Raises D003 with the line, the byte and the encoding that it may be in."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        found = guess_encoding(line)
        what = f"byte 0x{line[error.start]:02x} is not UTF-8" + ("" if found == "utf-8" else f"; the line looks like {found}")
        raise HoneError("D003", what, where=f"{name}:{number}:{error.start + 1}", fix=f"save the file as UTF-8; {FIXED_BY}") from None


def guess_encoding(data: bytes) -> str:
    """The encoding that some bytes are most likely in: a name that Python knows."""
    marks = {b"\xff\xfe\x00\x00": "utf-32", BOM: "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    for mark, name in marks.items():
        if data.startswith(mark):
            return name
    if data.count(0) > len(data) // 4:
        return "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"
    for name in ("utf-8", "gb18030", "shift_jis", "cp1252"):
        if _plausible(data, name):
            return name
    return "latin-1"


def encoding_of(path: Path) -> str:
    """The encoding of a whole file. One that is UTF-8 but for a few broken lines counts as UTF-8."""
    with _unpacked(path, Limits()) as stream:
        head = stream.read(4 * 2**20)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:64]:
        return guess_encoding(head)
    foreign = [line for line in head.split(b"\n")[: -1 if len(head) == 4 * 2**20 else None] if not line.isascii()]
    broken = [line for line in foreign if guess_encoding(line) not in ("utf-8", "utf-8-sig")]
    return guess_encoding(b"\n".join(broken)) if 2 * len(broken) > len(foreign) else "utf-8"


def _plausible(data: bytes, name: str) -> bool:
    """Whether bytes decode, and to the letters that people write in this encoding."""
    try:
        text = data.decode(name)
    except UnicodeDecodeError:
        return False
    foreign = [char for char in text if ord(char) > 127]
    if name == "gb18030":
        return _share(foreign, lambda char: _fits(char, "gb2312")) > 0.9
    if name == "shift_jis":
        return _share(foreign, lambda char: "\u3040" <= char <= "\u30ff") > 0.3
    return True


def _share(chars: list[str], test: Callable[[str], bool]) -> float:
    return sum(map(test, chars)) / max(1, len(chars))


def _fits(char: str, name: str) -> bool:
    try:
        return bool(char.encode(name))
    except UnicodeEncodeError:
        return False


def caret(line: str, column: int, *, width: int = 56) -> str:
    """The part of a line around a column (from 1), and under it a caret. Wide characters take two places."""
    start = max(0, min(column - 1 - width // 2, len(line) - width))
    shown = "".join(char if char.isprintable() else " " for char in line[start : start + width])
    before = shown[: column - 1 - start]
    place = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in before)
    return f"  {shown}\n  {' ' * place}^"


def _unpacked(path: Path, limits: Limits) -> io.BufferedReader:
    try:
        stream = path.open("rb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        fix = "check the path and its rights"
        raise HoneError("D014", f"the file cannot be opened: {reason}", where=str(path)[:200], fix=fix) from None
    head = _head(stream)
    if head.startswith(b"\x1f\x8b"):
        return io.BufferedReader(_Gunzip(path, stream, limits), 2**17)
    for mark, kind in _PACKED.items():
        if head.startswith(mark):
            stream.close()
            raise HoneError("D014", f"the file is a {kind} archive", where=str(path), fix="unpack it first; gz is read as it is")
    return stream


def _head(stream: io.BufferedReader) -> bytes:
    return stream.peek(8)[:8]


class _Gunzip(io.RawIOBase):
    """Unpacks a gz file, but never more than the limits allow."""

    def __init__(self, path: Path, packed: BinaryIO, limits: Limits) -> None:
        self.path, self.packed, self.limits = path, packed, limits
        self.packed_size = path.stat().st_size
        self.unpacker = gzip.GzipFile(fileobj=packed)
        self.done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        try:
            found = self.unpacker.read(len(view))
        except (OSError, EOFError, zlib.error) as error:
            reason = str(error).partition("\n")[0]
            raise HoneError("D015", f"the gz file is damaged: {reason}", where=str(self.path), fix="download or pack it again") from None
        view[: len(found)] = found
        self.done += len(found)
        self._check()
        return len(found)

    def _check(self) -> None:
        bomb = self.done > self.limits.free and self.done > self.limits.ratio * self.packed_size
        if bomb or self.done > self.limits.unpacked:
            what = f"the gz file of {size(self.packed_size)} has unpacked to more than {size(self.done)} and is not at its end"
            raise HoneError("D009", what, where=str(self.path), fix="unpack it yourself if you trust it, and give the unpacked file")

    def close(self) -> None:
        self.packed.close()
        super().close()
