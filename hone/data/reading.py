"""From sources to checked examples, row by row: nothing is lost on the way, and nothing is decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, islice

from hone.core.errors import HoneError
from hone.core.types import Example, Message, Origin
from hone.data.checks import Note, check
from hone.data.formats import layout_of
from hone.data.layout import SAMPLE, Layout
from hone.data.loaders import Drawn, items, load_all
from hone.data.rows import Bad, Remark, Row
from hone.data.settings import DataSettings, Source


@dataclass(slots=True)
class Outcome:
    """One source row: an example, or the fault that keeps it from being one."""

    origin: Origin
    example: Example | None = None
    fault: HoneError | None = None
    notes: tuple[Note, ...] = ()
    copies: int = 1
    """How often the row is seen in an epoch; 0 where its source's weight left it out."""
    row: Row | None = None


@dataclass
class Reading:
    """Reads sources; iterating gives the outcome of every row, and afterwards what was learned about the files is here."""

    format: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    system: str | None = None
    layouts: dict[str, Layout] = field(default_factory=dict)
    """File -> how it is read."""
    remarks: list[Remark] = field(default_factory=list)

    @classmethod
    def of(cls, settings: DataSettings) -> Reading:
        return cls(settings.format, settings.columns, settings.system)

    def sources(self, sources: Iterable[Source], *, seed: int) -> Iterator[Outcome]:
        """Outcomes of a mixture of sources. Raises what concerns a whole source: D002, D009 ... D017, S002."""
        return self._outcomes(load_all(sources, seed=seed))

    def source(self, path: str, *, encoding: str = "utf-8") -> Iterator[Outcome]:
        """Outcomes of one source."""
        return self._outcomes(Drawn(item, 1) for item in items(path, encoding=encoding))

    def _outcomes(self, drawn: Iterable[Drawn]) -> Iterator[Outcome]:
        for _, of_file in groupby(self._remembering(drawn), key=lambda one: one.item.origin.source):  # type: ignore[union-attr]
            yield from self._file(of_file)

    def _remembering(self, drawn: Iterable[Drawn]) -> Iterator[Drawn]:
        """The rows, keeping the remarks."""
        for one in drawn:
            if isinstance(one.item, Remark):
                self.remarks.append(one.item)
            else:
                yield one

    def _file(self, drawn: Iterator[Drawn]) -> Iterator[Outcome]:
        head = list(islice(drawn, SAMPLE))
        sample = [one.item for one in head if isinstance(one.item, Row)]
        layout = layout_of(sample, self.format, self.columns) if sample else None
        if layout is not None:
            self.layouts[sample[0].origin.source] = layout
        for item, copies in chain(head, drawn):
            if isinstance(item, Bad):
                yield Outcome(item.origin, fault=item.error, copies=copies)
            elif isinstance(item, Row):
                layout = layout or layout_of([item], self.format, self.columns)
                yield self._row(item, layout, copies)

    def _row(self, row: Row, layout: Layout, copies: int) -> Outcome:
        try:
            example, notes = check(self._with_system(layout.read(row)))
        except HoneError as fault:
            return Outcome(row.origin, fault=fault, copies=copies, row=row)
        return Outcome(row.origin, example, notes=notes, copies=copies, row=row)

    def _with_system(self, example: Example) -> Example:
        """With the run's system prompt where a conversation has none."""
        if self.system is None:
            return example
        prompt = Message("system", self.system)
        said = tuple((prompt, *one) if one and one[0].role != "system" else one for one in example.conversations)
        return replace(example, conversations=said)
