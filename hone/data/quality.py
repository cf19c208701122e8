"""Looks at a source without training on it: what is in it, what is wrong with it, how long it is, and what is there twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from hone.core.errors import HoneError
from hone.core.types import Example, Group, Origin
from hone.data.desk import Desk
from hone.data.labels import distribution, label_of
from hone.data.layout import Layout
from hone.data.ledger import Fate
from hone.data.lengths import fit
from hone.data.near import Near, Text, near_duplicates, near_rows
from hone.data.notices import Notice, Notices, advice
from hone.data.reading import Outcome, Reading
from hone.data.rows import Remark
from hone.data.settings import DataSettings
from hone.data.split import example_key, prompt_key
from hone.data.tokenise import Tokeniser
from hone.data.unknown import Script, texts_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hone.data.chat import ChatTemplate

BATCH = 256


class Measures(NamedTuple):
    """The spread of a length over the rows."""

    unit: str
    p50: int
    p95: int
    p99: int
    longest: int
    total: int

    @classmethod
    def of(cls, unit: str, values: Sequence[int]) -> Measures:
        ranked = sorted(values) or [0]
        p50, p95, p99 = (ranked[min(len(ranked) - 1, len(ranked) * share // 100)] for share in (50, 95, 99))
        return cls(unit, p50, p95, p99, ranked[-1], sum(ranked))


class Judged(NamedTuple):
    """What becomes of one row: its fate, its sequences, and what is wrong with it if it has none."""

    fate: Fate
    groups: list[Group]
    fault: HoneError | None


class Gauge:
    """How tokens are counted: with this tokenizer and template, and with these settings."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, settings: DataSettings) -> None:
        self.tokenizer, self.settings = tokenizer, settings
        self.tokeniser = Tokeniser(tokenizer, template, learn=settings.learn, shape="any")
        self.script, self.limit = Script(tokenizer), settings.max_length

    def judge(self, outcome: Outcome) -> Judged:
        """What becomes of a row in training, if it is not held out."""
        desk = Desk(self.settings, self.tokeniser, self.script, limit=self.limit)
        entries = desk.take(iter([outcome]))
        if entries:
            groups = [desk.cache.group(index) for index in entries[0].indices]
            return Judged(Fate("truncated" if entries[0].cut else "trained", entries[0].learned, entries[0].cut), groups, None)
        if desk.refusals.stopping:
            fault = desk.refusals.stopping[0]
            return Judged(Fate("dropped", reason=f"{fault.code}, and the run stops unless data.skip_bad is set"), [], fault)
        fault = next(iter(desk.refusals.left_out.values()))[0]
        return Judged(desk.ledger.fates[outcome.origin], [], fault)


@dataclass
class Report:
    """What was found in a source."""

    source: str
    rows: int = 0
    bad: list[tuple[Origin, HoneError]] = field(default_factory=list)
    """Rows that nothing can be learned from, and why."""
    notices: list[Notice] = field(default_factory=list)
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    remarks: Sequence[Remark] = ()
    lengths: list[Measures] = field(default_factory=list)
    messages: int = 0
    duplicates: list[tuple[Origin, Origin]] = field(default_factory=list)
    """Rows that say the same as an earlier one, and that one."""
    same_prompt: int = 0
    """Rows whose prompt an earlier row has, with another answer."""
    near: list[Near] | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    """Label -> rows, where answers are labels."""
    overlap: list[tuple[Origin, Origin]] | None = None
    """Rows of the held-out source whose prompt stands here, and where."""
    near_overlap: list[Near] | None = None
    """Other rows of the held-out source that are nearly the same as one here."""
    truncated: list[Origin] | None = None
    """Rows that are longer than the limit, where tokens were counted."""

    @property
    def usable(self) -> int:
        return self.rows - len(self.bad)

    def bad_by_code(self) -> dict[str, list[tuple[Origin, HoneError]]]:
        """Code -> rows, the commonest first."""
        found: dict[str, list[tuple[Origin, HoneError]]] = {}
        for origin, fault in self.bad:
            found.setdefault(fault.code, []).append((origin, fault))
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def inspect(
    source: str, *, reading: Reading | None = None, gauge: Gauge | None = None, held_out: str | None = None, near: bool = False
) -> Report:
    """Read all of a source. Raises what concerns the whole of it (D002, D009, D010 ...); faults of rows are in the report."""
    reading = reading or Reading()
    look = _Look(source, gauge)
    outcomes = reading.source(source)
    while batch := list(islice(outcomes, BATCH)):
        look.at(batch)
    report = look.report
    report.layouts, report.remarks = dict(reading.layouts), tuple(reading.remarks)
    report.lengths = [Measures.of(unit, values) for unit, values in look.lengths.items()]
    report.labels = distribution(look.labels, report.usable)
    report.near = near_duplicates(look.texts) if near else None
    if held_out is not None:
        _overlap(reading.source(held_out), look)
    advice(look.notices, rows=report.usable, labels=report.labels)
    report.notices = look.notices.all()
    return report


class _Look:
    """What is remembered of the rows that have gone by."""

    def __init__(self, source: str, gauge: Gauge | None) -> None:
        self.report, self.gauge, self.notices = Report(source), gauge, Notices()
        self.report.truncated = None if gauge is None else []
        self.lengths: dict[str, list[int]] = {}
        self.labels: Counter[str] = Counter()
        self.prompts: dict[str, Origin] = {}
        self.said: dict[str, Origin] = {}
        self.texts: list[tuple[Origin, str]] = []

    def at(self, batch: Sequence[Outcome]) -> None:
        """Look at some rows."""
        self.report.rows += len(batch)
        for one in batch:
            for note in one.notes:
                self.notices.add(note.code, note.text, one.origin)
            if one.fault is not None:
                self.report.bad.append((one.origin, one.fault))
        examples = [one.example for one in batch if one.example is not None]
        for example in self._measured(examples):
            self._usable(example)

    def _usable(self, example: Example) -> None:
        origin, texts = example.origin, texts_of(example)
        prompt, said = prompt_key(example), example_key(example)
        if said in self.said:
            self.report.duplicates.append((origin, self.said[said]))
        else:
            self.report.same_prompt += prompt in self.prompts
        self.said.setdefault(said, origin)
        self.prompts.setdefault(prompt, origin)
        self.texts.append((origin, "\n".join(texts)))
        self.report.messages += sum(len(one) for one in example.conversations)
        if (label := label_of(example)) is not None:
            self.labels[label] += 1
        self._length("characters", sum(map(len, texts)))
        if self.gauge is None:
            self._length("words", sum(len(text.split()) for text in texts))

    def _length(self, unit: str, value: int) -> None:
        self.lengths.setdefault(unit, []).append(value)

    def _measured(self, examples: Sequence[Example]) -> Iterator[Example]:
        """The examples that stay usable when their tokens are counted."""
        if self.gauge is None:
            yield from examples
            return
        for example, group in zip(examples, self.gauge.tokeniser.groups(examples), strict=True):
            fault = self._tokens(example, group, self.gauge)
            if fault is None:
                yield example
            else:
                self.report.bad.append((example.origin, fault))

    def _tokens(self, example: Example, group: Group | HoneError, gauge: Gauge) -> HoneError | None:
        if isinstance(group, HoneError):
            return group
        longest = max(len(sequence.tokens) for sequence in group)
        if longest > gauge.limit and self.report.truncated is not None:
            self.report.truncated.append(example.origin)
        self._length("tokens", longest)
        self._length("learned tokens", sum(sequence.learned for sequence in group))
        try:
            fit(group, limit=gauge.limit, overflow="split" if example.text is not None else "truncate")
        except HoneError as fault:
            return fault
        return gauge.script.fault(example)


def _overlap(outcomes: Iterable[Outcome], look: _Look) -> None:
    """What of the held-out source stands in the one that was looked at, into its report."""
    report, others = look.report, list[Text]()
    report.overlap = []
    for one in outcomes:
        if one.example is not None and (key := prompt_key(one.example)) in look.prompts:
            report.overlap.append((one.origin, look.prompts[key]))
        elif one.example is not None:
            others.append((one.origin, "\n".join(texts_of(one.example))))
    report.near_overlap = near_rows(others, among=look.texts)
