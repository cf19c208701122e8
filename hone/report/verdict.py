"""The one sentence at the top of a report, and the few things a careful reader should know beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hone.plan.doctor import FINDINGS
from hone.plan.doctor.base import Found
from hone.report.chart import chart_of
from hone.report.fates import Fates
from hone.report.folder import RunFolder, plain, record
from hone.report.numbers import count, finite, loss_text, percent, short
from hone.report.own import imitates
from hone.report.scores import Score, averages

Tone = Literal["good", "mixed", "bad", "plain"]
ANSWER_METRICS = ("exact_match", "accuracy", "contains", "number", "label")


@dataclass(frozen=True)
class Verdict:
    """What the numbers justify saying: a headline, its ground, and a tone."""

    tone: Tone
    headline: str
    ground: str


class Finding(NamedTuple):
    """Something worth knowing, with its tone."""

    tone: Tone
    text: str


def judge(run: RunFolder, scores: Sequence[Score]) -> Verdict:
    """The strongest honest statement: answers first, then held-out loss, then training loss."""
    mean = averages(scores)
    if mean is not None:
        return _of_shares([s for s in scores if s.is_share and s.gain is not None], *mean)
    if scores:
        return _of_score(scores[0])
    if len(right := run.series("eval_accuracy")) > 1:
        return _of_accuracy(right)
    if len(held_out := run.series("eval_loss")) > 1:
        return _of_held_out(held_out, perplexity=imitates(run))
    if len(losses := run.series("loss")) > 1:
        first, last = losses[0][1], losses[-1][1]
        ground = "Nothing was held out, so this says nothing yet about text that it has not seen."
        return Verdict("plain", f"Training loss went from {loss_text(first)} to {loss_text(last)}.", ground)
    return Verdict("plain", "Nothing has been measured yet.", "The run has written too few steps, or its files are missing.")


def _of_shares(scores: Sequence[Score], before: float, after: float) -> Verdict:
    what = "Right answers" if all(s.metric in ANSWER_METRICS for s in scores) else "The score"
    better = [s for s in scores if s.apart and (s.gain or 0) > 0]
    worse = [s for s in scores if s.apart and (s.gain or 0) < 0]
    move = "stayed at" if percent(before) == percent(after) else "rose from" if after > before else "fell from"
    to = "to" if what == "Right answers" else "on"
    span = percent(after) if move == "stayed at" else f"{percent(before)} to {percent(after)}"
    headline = f"{what} {to} unseen questions {move} {span}."
    asked = f"{count(len(scores), 'task')}, {count(sum(s.n for s in scores), 'question')} kept out of training."
    if worse:
        names = ", ".join(s.task for s in worse)
        return Verdict("bad" if after <= before else "mixed", headline, f"{asked} It became clearly worse on: {names}.")
    if len(better) == len(scores):
        where = f"On all {len(scores)} the" if len(scores) > 1 else "The"
        return Verdict("good", headline, f"{asked} {where} confidence intervals before and after are apart: this is not luck.")
    if better:
        ground = f"{asked} On {len(better)} of {len(scores)} the confidence intervals are apart; on the rest the change may be chance."
        return Verdict("good" if len(better) * 2 >= len(scores) else "mixed", headline, ground)
    return Verdict("mixed", headline, f"{asked} The confidence intervals overlap, so the difference may be chance.")


def _of_score(score: Score) -> Verdict:
    asked = f"Task “{score.task}”, {count(score.n, 'question')}."
    after = score.after or score.before
    assert after is not None
    if score.before is None or score.after is None:
        ground = f"{asked} There is no second measurement to compare with."
        return Verdict("plain", f"{score.metric_name} is {after.text}.".capitalize(), ground)
    headline = f"{score.metric_name} went from {score.before.text} to {score.after.text}.".capitalize()
    if not score.apart:
        return Verdict("mixed", headline, f"{asked} The confidence intervals overlap, so the difference may be chance.")
    return Verdict("good" if (score.gain or 0) > 0 else "bad", headline, f"{asked} The confidence intervals are apart.")


def _of_accuracy(points: Sequence[tuple[float, float]]) -> Verdict:
    first, last = points[0][1], points[-1][1]
    move = "stayed at" if percent(first) == percent(last) else "rose from" if last > first else "fell from"
    span = percent(last) if move == "stayed at" else f"{percent(first)} to {percent(last)}"
    ground = "How often it puts what is better, or wanted, where it belongs, on rows kept out of training."
    return Verdict("good" if last > first else "mixed" if last == first else "bad", f"Held-out accuracy {move} {span}.", ground)


def _of_held_out(points: Sequence[tuple[float, float]], *, perplexity: bool) -> Verdict:
    first, last = points[0][1], points[-1][1]
    fell = last < first
    headline = f"Held-out loss {'fell' if fell else 'rose'} from {loss_text(first)} to {loss_text(last)}."
    if not perplexity:
        return Verdict("good" if fell else "bad", headline, "On rows kept out of training.")
    ground = f"Perplexity {short(math.exp(min(first, 700)))} before, {short(math.exp(min(last, 700)))} after, on text kept out of training."
    return Verdict("good" if fell else "bad", headline, ground)


def findings(run: RunFolder, fates: Fates | None) -> list[Finding]:
    """What else the files say, worst first."""
    found = [*_stops(run), *_overfit(run), *_unsteady(run), *_rows(fates)]
    seen = dict.fromkeys(plain(event.get("what", event.get("text", "see the timeline"))) for event in run.of_kind("warning"))
    found += [Finding("mixed", text.rstrip(".") + ".") for text in [*seen, *run.problems.values()]]
    return sorted(found, key=lambda f: ("bad", "mixed", "plain", "good").index(f.tone))


def _stops(run: RunFolder) -> list[Finding]:
    share = finite(record(run.evaluation.get("stopped")).get("after"))
    if share is None:
        return []
    if share >= 0.99:
        return [Finding("good", f"{percent(share)} of its answers end by themselves.")]
    return [Finding("mixed", f"Only {percent(share)} of its answers end by themselves; the others ran into the length limit.")]


def _overfit(run: RunFolder) -> list[Finding]:
    """What the doctor says of learning by heart: page, card and live warning go by one rule."""
    found = FINDINGS["H001"].look(chart_of(run))
    return [Finding("mixed", f"{found.verdict[:1].upper()}{found.verdict[1:]} (H001).")] if isinstance(found, Found) else []


def _unsteady(run: RunFolder) -> list[Finding]:
    found, skipped, jumps = [], run.of_kind("skipped_step"), run.of_kind("loss_spike")
    if skipped:
        text = f"{count(len(skipped), 'step')} skipped because a number was not finite; the timeline names the rows."
        found.append(Finding("mixed", text))
    if jumps:
        found.append(Finding("mixed", f"The loss jumped {count(len(jumps), 'time')}; the timeline names the rows."))
    return found


def _rows(fates: Fates | None) -> list[Finding]:
    if fates is None:
        return []
    found = []
    if not fates.adds_up:
        found.append(Finding("bad", f"The ledger does not add up: {fates.counted:,} fates for {fates.total:,} rows."))
    dropped, cut = fates.rows("dropped"), fates.rows("truncated")
    if dropped:
        found.append(Finding("mixed", f"{count(dropped, 'row')} of {fates.total:,} did not take part; the ledger gives the reasons."))
    if cut:
        found.append(Finding("mixed", f"{count(cut, 'row')} lost {'its' if cut == 1 else 'their'} end to the length limit."))
    return found
