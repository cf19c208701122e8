"""Findings about the data: answers that contradict each other, rows on both sides, ends that are never learned, and masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, median, pstdev

from hone.plan.doctor.base import CERTAIN, LIKELY, POSSIBLE, Found, Remedy, Unknown, finding
from hone.plan.doctor.chart import Chart

GUIDE = "fine-tuning guide, data"
SEEN = 0.02
"""Share of held-out rows on the training side that is no accident."""
KIN = 6
"""Rows with the same answer that can be compared."""
WRONG = 0.1
"""Share of rows that contradict the rest."""
SHOWN = 8


@finding("H008", "label noise", source="arXiv 2001.10528 and 1911.00068: mislabelled rows keep a loss of their own", live=False)
def noise(chart: Chart) -> Found | Unknown | None:
    """Among held-out rows with the same answer, some cost far more than their kin; or rows get worse while the rest gets better."""
    if chart.reinforces or not chart.imitates:
        return None
    if len(chart.rows) < 3 or len(chart.rows[-1].losses) < 3 * KIN:
        return Unknown(f"the losses of at least {3 * KIN} held-out rows at three evaluations")
    apart, asked = _apart(chart)
    worse = _worse(chart)
    share = len(apart) / asked if asked else len(worse) / len(chart.rows[-1].losses)
    suspects = apart if asked else worse
    if share < WRONG or (asked and len(apart) < 3):
        return None
    cost = fmean(chart.rows[-1].losses[i] for i in suspects)
    places = [chart.names[i] for i in suspects[:SHOWN] if i < len(chart.names)]
    return Found(
        f"answers contradict each other: about {100 * share:.0f} % of the comparable held-out rows differ from what the rest teaches",
        LIKELY if share > 2 * WRONG else POSSIBLE,
        (
            f"{len(suspects)} rows cost {cost:.2f} nats a token, the median row {median(chart.rows[-1].losses):.2f}",
            *([f"first of them: {', '.join(places)}"] if places else []),
        ),
        curves=("eval_loss", "loss"),
        remedies=(
            Remedy("read the rows that are named above, and mend or remove such rows in the training file"),
            Remedy("hone data check FILE finds rows with the same question and another answer"),
        ),
    )


def _apart(chart: Chart) -> tuple[list[int], int]:
    """Rows that stand clearly above others with the same answer, and how many rows could be compared."""
    groups: dict[int, list[int]] = defaultdict(list)
    for i, answer in enumerate(chart.answers):
        groups[answer].append(i)
    apart: list[int] = []
    asked = 0
    for group in (group for group in groups.values() if len(group) >= KIN):
        asked += len(group)
        apart += _upper([(chart.rows[-1].losses[i], i) for i in group])
    return sorted(apart), asked


def _upper(rows: Sequence[tuple[float, int]]) -> list[int]:
    """The upper of two clusters of losses, where they are really two."""
    ordered = sorted(rows)
    best, split = 0.0, len(ordered)
    for i in range(2, len(ordered)):
        low, high = [loss for loss, _ in ordered[:i]], [loss for loss, _ in ordered[i:]]
        gap = fmean(high) - fmean(low)
        spread = (len(low) * pstdev(low) + len(high) * pstdev(high)) / len(ordered)
        if ordered[i][0] - ordered[i - 1][0] > 0.1 and gap > 0.35 and gap / (spread + 0.02) > best:
            best, split = gap / (spread + 0.02), i
    return [i for _, i in ordered[split:]] if best > 3 else []


def _worse(chart: Chart) -> list[int]:
    """Rows whose loss has grown since the first evaluation after the start, where the median fell and the mean did not rise."""
    first, last = chart.rows[1].losses, chart.rows[-1].losses
    if median(last) > 0.7 * median(first) or fmean(last) > 1.05 * fmean(first):
        return []
    return [i for i, (before, after) in enumerate(zip(first, last, strict=True)) if after > before + 0.5]


@finding("H009", "held-out rows are trained", source="peers: no leakage between train and test; arXiv 2107.06499")
def leak(chart: Chart) -> Found | Unknown | None:
    """Rows of the held-out side, or their questions, stand among those that are trained."""
    seen, asked = chart.fact("held_out_seen"), chart.fact("held_out_prompts_seen")
    if seen is None and asked is None:
        return Unknown("a comparison of both sides, which the run writes down when it starts with held-out rows")
    if (seen or 0) < SEEN and (asked or 0) < SEEN:
        return None
    share, what = (seen, "held-out rows") if (seen or 0) >= SEEN else (asked, "held-out questions")
    assert share is not None
    return Found(
        f"{100 * share:.0f} % of the {what} are trained too, so the held-out loss says nothing about unseen rows",
        CERTAIN if share == seen else LIKELY,
        (f"{100 * (seen or 0):.0f} % of the held-out rows and {100 * (asked or 0):.0f} % of their questions stand in the training data",),
        curves=("eval_loss", "loss"),
        remedies=(
            Remedy("let hone keep questions apart: hold out a share of the training file", {"data.held_out": 0.1}),
            Remedy("hone data split FILE writes two files that share no question"),
        ),
    )


@finding("H010", "template or end fault", source="list of failures: wrong template or end of sequence (Unsloth docs)")
def endless(chart: Chart) -> Found | Unknown | None:
    """Answers whose end is never learned, or a model that does not stop."""
    if chart.reinforces or chart.objective not in ("sft", "dft", "distill"):
        return None
    ends, stops = chart.fact("ends"), chart.stopped if chart.stopped is not None else chart.measured("stops")
    if ends is None and stops is None:
        return Unknown("whether the learned answers end in a token that stops them, or answers of the model (hone doctor --probe)")
    runs_on = stops is not None and stops < 0.5 and (chart.gain or 0) > 0.5
    if (ends is None or ends >= 0.9) and not runs_on:
        return None
    told = [f"{100 * ends:.0f} % of the learned answers end in a token that stops an answer"] if ends is not None else []
    told += [f"{100 * stops:.0f} % of its own answers end by themselves"] if stops is not None else []
    cut, length = chart.fate("truncated"), chart.number("data.max_length")
    told += [f"{cut:,} rows are cut at data.max_length, and their ends with them"] if cut else []
    longer = (Remedy("room for whole rows", {"data.max_length": 4 * int(length)}),) if cut and length else ()
    return Found(
        "the model does not learn where an answer ends, and will run on when it is asked",
        CERTAIN if ends is not None and ends < 0.9 else POSSIBLE,
        tuple(told),
        curves=("eval_loss", "loss"),
        remedies=(
            *longer,
            Remedy("the model's own template", {"data.template": "auto"}),
            Remedy("the same template with the end of sequence behind each answer", {"data.template": f"{chart['data.template']}+eos"}),
        ),
    )


@finding("H011", "labels masked", source="all labels -100 give a loss of 0 (Unsloth docs); a wrong marker of the answer")
def masked(chart: Chart) -> Found | Unknown | None:
    """Nothing, or next to nothing, of the data is learned."""
    if chart.reinforces:
        return None
    total = chart.rows_in_all
    lost = chart.fate("masked") + chart.fate("dropped")
    learned = chart.values("learned_tokens")
    nothing = bool(learned) and max(learned) == 0
    if total is None and not learned:
        return Unknown("the ledger of the rows, or the number of learned tokens")
    share = lost / total if total else 0.0
    if not nothing and share < 0.5:
        return None
    reasons = [*chart.reasons("masked"), *chart.reasons("dropped")]
    return Found(
        "nothing is learned: every label is masked"
        if nothing
        else f"{100 * share:.0f} % of the rows teach nothing: they are masked or dropped",
        CERTAIN,
        (f"{lost:,} of {total or 0:,} rows" + (f": {'; '.join(reasons[:2])}" if reasons else ""),),
        curves=("loss", "eval_loss"),
        remedies=_unmask(chart),
    )


def _unmask(chart: Chart) -> tuple[Remedy, ...]:
    length = chart.number("data.max_length")
    longer = (Remedy("room for whole rows", {"data.max_length": 4 * int(length)}),) if length else ()
    return (*longer, Remedy("hone data show FILE marks what is learned of each row; mend weights, roles or columns there"))
