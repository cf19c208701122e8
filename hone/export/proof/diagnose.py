"""From what differs to why: the causes by which copies of a model go wrong, each told apart by its own evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any, NamedTuple

from hone.export.gguf.types import GGUF_BANDS, GGUF_ROUNDING
from hone.export.proof.compare import BANDS, PACKED, Band, Reading, overall, read
from hone.export.proof.golden import Golden, Vector
from hone.export.proof.subject import Subject
from hone.export.proof.weights import Examination, examine, modules, rounding_of


class Cause(StrEnum):
    """What can be wrong with a copy."""

    DOUBLE_BOS = "double BOS"
    ADDED_BOS = "added BOS"
    MISSING_BOS = "missing BOS"
    MISSING_EOS = "missing EOS"
    WRONG_STOP = "wrong stop"
    WRONG_TEMPLATE = "wrong template"
    TOKENIZER = "tokenizer mismatch"
    SCALE = "scale alpha/r off"
    LOST = "module lost"
    EMBEDDING = "embedding rows corrupted"
    CORRUPTED = "weights corrupted"
    WRONG_BASE = "wrong base"
    ROUNDING = "dtype rounding"
    QUANTISATION = "quantisation beyond its band"
    METADATA = "wrong metadata"
    OTHER = "other weights or quantisation"


class Finding(NamedTuple):
    """A named cause and its evidence."""

    cause: Cause
    evidence: str


@dataclass(slots=True)
class Verdict:
    """What the replay of a certificate has shown."""

    subject: str
    findings: list[Finding] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    band: Band | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.findings

    @property
    def total(self) -> Reading:
        return overall(self.readings)

    def to_json(self) -> dict[str, Any]:
        """For reports and programs."""
        total = self.total
        return {
            "subject": self.subject,
            "passed": self.passed,
            "causes": [{"cause": str(f.cause), "evidence": f.evidence} for f in self.findings],
            "worst_logprob_difference": total.worst,
            "mean_kl": total.kl,
            "same_likeliest_token": total.agree,
            "positions": total.positions,
            "band": None if self.band is None else self.band._asdict(),
            "probes": [reading._asdict() for reading in self.readings],
            "notes": self.notes,
        }


def verify(golden: Golden, subject: Subject) -> Verdict:
    """Replay the certificate on a copy, and name what is wrong with it."""
    verdict = Verdict(subject.kind, notes=list(subject.notes))
    verdict.band = band_of(golden, subject)
    verdict.findings += _words(golden, subject) + _stops(golden, subject)
    examination = examine(golden, subject, rounding_of(subject.stored, GGUF_ROUNDING)) if subject.examined else Examination()
    weights = _weights(golden, subject, examination)
    verdict.findings += weights
    verdict.readings = read(golden, subject, tie=verdict.band.worst)
    total = verdict.total
    beyond = total.worst > verdict.band.worst or total.kl > verdict.band.kl or total.agree < verdict.band.agree
    if beyond and not weights:
        verdict.findings.append(_unexplained(golden, subject, total, verdict.band))
    return verdict


def band_of(golden: Golden, subject: Subject) -> Band:
    """The wider of two: what the copy's type may change, and what the trained model's own arithmetic left open."""
    own, theirs = BANDS[golden.about.get("computed_in", "float32")], (GGUF_BANDS | BANDS).get(subject.stored, GGUF_BANDS["other"])
    return Band(max(own.worst, theirs.worst), max(own.kl, theirs.kl), min(own.agree, theirs.agree))


def _words(golden: Golden, subject: Subject) -> list[Finding]:
    """Template and tokenizer: the first thing that goes wrong names the cause, the rest follows from it."""
    found: Counter[Finding] = Counter()
    if subject.vocabulary_hash != golden.about["vocabulary_hash"]:
        what = f"{subject.vocabulary} tokens where training had {golden.about['vocabulary']}"
        same = subject.vocabulary == golden.about["vocabulary"]
        found[Finding(Cause.TOKENIZER, "the same number of tokens, but other ones under some ids" if same else what)] += 1
    for vector in golden.vectors:
        finding = _prompt(golden, subject, vector)
        if finding is not None and not (found and finding.cause == Cause.TOKENIZER):
            found[finding] += 1
    causes = {finding.cause: finding for finding in reversed(found)}
    return list(causes.values())


def _prompt(golden: Golden, subject: Subject, vector: Vector) -> Finding | None:
    """What is wrong with one prompt, if anything."""
    text = vector.text
    if vector.messages:
        rendered = subject.render(vector.messages, vector.tools)
        if rendered is None:
            return Finding(Cause.WRONG_TEMPLATE, f"there is no template that takes the probe '{vector.name}'")
        text = rendered
    ids = subject.encode(text, bool(vector.messages))
    return None if ids == vector.written else _difference(golden, subject, vector, (text, ids))


def _difference(golden: Golden, subject: Subject, vector: Vector, got: tuple[str, list[int]]) -> Finding:
    text, ids = got
    bos, want = golden.about["bos"] if golden.about["bos"] is not None else subject.bos, vector.written
    if bos is not None and ids == [bos, *want]:
        if want[:1] == [bos]:
            return Finding(Cause.DOUBLE_BOS, f"prompts begin with token {bos} twice")
        return Finding(Cause.ADDED_BOS, f"prompts begin with token {bos}, which training never had there")
    if bos is not None and [bos, *ids] == want:
        return Finding(Cause.MISSING_BOS, f"prompts lack token {bos} at their beginning")
    if text == vector.text:
        at = next((i for i, (a, b) in enumerate(zip(ids, want, strict=False)) if a != b), min(len(ids), len(want)))
        return Finding(Cause.TOKENIZER, f"the text of probe '{vector.name}' becomes other tokens from place {at + 1} on")
    end = golden.about["end_text"]
    if end.strip() and vector.text.count(end.strip()) > text.count(end.strip()) and text == _without_last(vector.text, text, end.strip()):
        return Finding(Cause.MISSING_EOS, f"the template does not write {end.strip()!r} after an answer")
    return Finding(Cause.WRONG_TEMPLATE, f"probe '{vector.name}' is written otherwise: {_first_difference(vector.text, text)}")


def _without_last(want: str, got: str, end: str) -> str:
    """The wanted text with those end markers taken out that the other lacks, if that makes them equal."""
    pieces, built = want.split(end), ""
    for i, piece in enumerate(pieces):
        built += piece
        if i + 1 < len(pieces) and got.startswith(built + end):
            built += end
        elif i + 1 < len(pieces) and not got.startswith(built):
            break
    return built


def _first_difference(want: str, got: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got)))
    return f"{got[at : at + 30]!r} for {want[at : at + 30]!r}"


def _stops(golden: Golden, subject: Subject) -> list[Finding]:
    wanted = set(golden.about["stop_ids"])
    ends = {v.answer[-1] for v in golden.vectors if v.stopped and v.answer and v.answer[-1] in wanted} or wanted
    if not subject.stop_ids and wanted:
        return [Finding(Cause.MISSING_EOS, f"no token ends an answer; training ended them with {sorted(ends)}")]
    missing = ends - subject.stop_ids
    if missing:
        return [Finding(Cause.WRONG_STOP, f"answers end with token {sorted(missing)}, the copy stops at {sorted(subject.stop_ids)}")]
    return []


def _weights(golden: Golden, subject: Subject, found: Examination) -> list[Finding]:
    """What the sketches say; one cause, the one that explains most."""
    expected = golden.about.get("base", {}).get("fingerprint", "")
    if subject.base_fingerprint and expected and subject.base_fingerprint != expected:
        return [Finding(Cause.WRONG_BASE, f"it stands on base {subject.base_fingerprint}, and was trained on {expected}")]
    if found.missing:
        return [Finding(Cause.LOST, f"{modules(found.missing)}: not in the copy")]
    if found.scaled is not None:
        return [Finding(Cause.SCALE, f"the trained change is in every module {found.scaled:.3g} times")]
    if len(found.lost) > 0.8 * max(1, len(found.share)):
        return [Finding(Cause.LOST, "the weights are the base's: nothing that was trained is in them")]
    if found.foreign:
        return [Finding(Cause.WRONG_BASE, f"{len(found.beyond)} of {len(found.deviation)} tensors are other ones")]
    if found.lost:
        return [Finding(Cause.LOST, f"{modules(found.lost)}: as if never trained")]
    return _damage(subject, found)


def _damage(subject: Subject, found: Examination) -> list[Finding]:
    """Deviations that are no loss and no common factor."""
    if found.coarse:
        typical = median(found.deviation[name] for name in found.matrices)
        cause = Cause.ROUNDING if subject.stored in BANDS else Cause.QUANTISATION
        return [Finding(cause, f"all matrices are off by about {100 * typical / 2:.2g} %, more than {subject.stored} brings")]
    if found.rows and len(found.rows) < 0.9 * max(1, subject.weights.shape(subject.embedding)[0]):
        shown = ", ".join(map(str, found.rows[:5])) + (" ..." if len(found.rows) > 5 else "")
        return [Finding(Cause.EMBEDDING, f"{len(found.rows)} tokens have another embedding: {shown}")]
    bad = sorted({*found.beyond, *found.misfit})
    if bad:
        worst = max(found.deviation[name] for name in bad)
        return [Finding(Cause.CORRUPTED, f"{modules(bad)}: off by up to {100 * worst:.3g} %")]
    return []


def _unexplained(golden: Golden, subject: Subject, total: Reading, band: Band) -> Finding:
    """The weights are right and the answers are not."""
    numbers = f"log-probabilities differ by up to {total.worst:.3g} (band {band.worst:g}), KL {total.kl:.3g} (band {band.kl:g})"
    if total.agree < band.agree:
        numbers += f", {100 * (1 - total.agree):.2g} % of the likeliest tokens differ"
    narrow = subject.stored not in BANDS or subject.stored in PACKED
    if narrow and total.worst < 10 * band.worst and total.kl < 30 * band.kl:
        return Finding(Cause.QUANTISATION, numbers)
    if subject.stored in ("float16", "bfloat16") and total.worst < 10 * band.worst:
        return Finding(Cause.ROUNDING, numbers)
    return Finding(Cause.METADATA, f"the weights are right, but {numbers}: look at norm epsilon, rope and soft caps")


def causes(findings: Sequence[Finding]) -> list[str]:
    return [str(finding.cause) for finding in findings]
