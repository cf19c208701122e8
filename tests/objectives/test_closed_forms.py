"""Objectives against what can be worked out by hand: where training begins, limits, and an independent writing-out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hone.core.errors import HoneError
from hone.core.types import Group, Loss, Sequence, Signals, StepStat
from hone.data.batching import pack
from hone.objectives import OBJECTIVES
from hone.objectives.divergence import folded, jsd, sorted_distance, with_rest
from hone.objectives.unpaired import mismatched
from tests import nets

LN2 = math.log(2)
AT_START = {
    "dpo": LN2, "ipo": 25.0, "hinge": 1.0, "nca": 2 * LN2, "bco_pair": 2 * LN2, "sppo": 50.0, "apo_zero": 1.0, "apo_down": 1.0,
    "aot": LN2, "discopop": (LN2 + 1) / 2,
    "exo": 0.5 * (math.log(0.5) - math.log1p(-1e-3)) + 0.5 * (math.log(0.5) - math.log(1e-3)),
}  # fmt: skip
"""Loss of a pair while policy and reference agree, at the default settings (beta 0.1)."""


def signals(groups: list[Group], logp: Tensor | None = None, ref: Tensor | None = None, **more: Any) -> Signals:
    batch = pack(groups)
    torch.manual_seed(0)
    logp = -torch.rand(len(batch.read_N), dtype=torch.float64) if logp is None else logp
    return Signals(batch, logp_N=logp, ref_logp_N=logp.clone() if ref is None else ref, **more)


def told(name: str, s: Signals, **settings: Any) -> Loss:
    """The loss of a step that is this one batch."""
    one = OBJECTIVES[name].bind(**settings)
    s.step = {key: StepStat(value, slice(0, len(value))) for key, value in one.statistics(s).items()}
    return one(s)


@pytest.mark.parametrize("name", AT_START)
def test_where_preference_training_begins(name: str) -> None:
    pairs = nets.pairs(4)
    found = told(name, signals(pairs))
    assert float(found.total) / 4 == pytest.approx(AT_START[name], rel=1e-6)
    assert float(found.metrics["margin"]) == pytest.approx(0, abs=1e-9)


def test_where_labelled_training_begins() -> None:
    groups = nets.for_objective(OBJECTIVES["kto"])
    s = signals(groups)
    assert float(told("kto", s).total) / s.batch.sequences == pytest.approx(0.5)
    assert float(told("bco", s).total) / s.batch.sequences == pytest.approx(LN2)


def test_where_reward_training_begins() -> None:
    zeros = torch.zeros(8)
    s = signals(nets.pairs(4), score_S=zeros)
    s.batch.facts["margin"] = zeros
    assert float(OBJECTIVES["rm"](s).total) / 4 == pytest.approx(LN2)
    s.batch.facts["label"] = torch.tensor([1.0, 0.0] * 4)
    assert float(OBJECTIVES["pointwise_rm"](s).total) / 8 == pytest.approx(LN2)


def test_margins_and_centring() -> None:
    s = signals(nets.pairs(2), score_S=torch.tensor([1.0, 0.5, -1.0, 2.0]))
    s.batch.facts["margin"] = torch.tensor([0.2, 0.2, 0.0, 0.0])
    expected = -F.logsigmoid(torch.tensor([0.3, -3.0])).sum() + 0.1 * (1.5**2 + 1.0)
    assert float(OBJECTIVES["rm"].bind(centring=0.1)(s).total) == pytest.approx(float(expected), rel=1e-6)


def by_hand(name: str, groups: list[Group], logp_N: Tensor) -> float:
    """ORPO, SimPO and CPO as their papers write them, from a list of log-probabilities for each answer."""
    rows = [logp_N[pack(groups).row_N == i] for i in range(2 * len(groups))]
    total = 0.0
    for chosen, rejected in zip(rows[::2], rows[1::2], strict=True):
        if name == "simpo":
            total += float(-F.logsigmoid(2.0 * chosen.mean() - 2.0 * rejected.mean() - 1.0))
        elif name == "cpo":
            total += float(-F.logsigmoid(0.1 * (chosen.sum() - rejected.sum())) - chosen.mean())
        else:
            p, q = chosen.mean().exp(), rejected.mean().exp()
            odds = (p / (1 - p)) / (q / (1 - q))
            total += float(-chosen.mean() - 0.1 * torch.log(torch.sigmoid(torch.log(odds))))
    return total


@pytest.mark.parametrize("name", ["orpo", "simpo", "cpo"])
def test_against_the_papers(name: str) -> None:
    rows = [(Sequence([5, 6, 7 + i, 8, 9], [0.0, 0.0, 1.0, 1.0, 1.0]), Sequence([5, 6, 3, 4 + i], [0.0, 0.0, 1.0, 1.0])) for i in range(3)]
    s = signals(list(rows))
    assert float(OBJECTIVES[name](s).total) == pytest.approx(by_hand(name, list(rows), s.logp), rel=1e-9)


def test_the_gradient_of_dpo_on_one_pair() -> None:
    pair: list[Group] = [(Sequence([5, 6, 7], [0.0, 0.0, 1.0]), Sequence([5, 6, 8], [0.0, 0.0, 1.0]))]
    logp = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    OBJECTIVES["dpo"](signals(pair, logp, torch.tensor([-1.5, -1.0], dtype=torch.float64))).total.backward()
    slope = 0.1 * torch.sigmoid(torch.tensor(-0.1 * (0.5 - -1.0), dtype=torch.float64))
    assert logp.grad is not None
    assert torch.allclose(logp.grad, torch.stack([-slope, slope]), rtol=1e-12)


def test_robust_dpo_is_unbiased() -> None:
    """Averaged over labels that are flipped as often as it believes, it is the loss without noise."""
    torch.manual_seed(1)
    noise, margin = 0.2, torch.randn(1, dtype=torch.float64)
    right, flipped = (told("dpo", _with_margin(m), label_smoothing=noise, robust=True).total for m in (margin, -margin))
    assert float((1 - noise) * right + noise * flipped) == pytest.approx(float(told("dpo", _with_margin(margin)).total), rel=1e-9)


def _with_margin(margin: Tensor) -> Signals:
    pair: list[Group] = [(Sequence([5, 6, 7], [0.0, 0.0, 1.0]), Sequence([5, 6, 8], [0.0, 0.0, 1.0]))]
    logp = torch.cat([margin, margin * 0])
    return signals(pair, logp, torch.zeros(2, dtype=torch.float64))


def test_a_mixture_is_the_sum_of_its_parts() -> None:
    pairs = nets.pairs(3)
    batch_logp = -torch.rand(len(pack(pairs).read_N), dtype=torch.float64)
    s = signals(pairs, batch_logp, batch_logp - 0.1 * torch.rand(len(batch_logp), dtype=torch.float64))
    nll = -s.mean(s.logp)[0::2].sum()
    expected = 0.8 * OBJECTIVES["dpo"](s).total + 0.2 * OBJECTIVES["bco_pair"](s).total + nll
    assert float(OBJECTIVES["mpo"](s).total) == pytest.approx(float(expected), rel=1e-12)
    with pytest.raises(HoneError, match="aot") as caught:
        OBJECTIVES["mpo"].bind(weights={"aot": 1.0})
    assert caught.value.code == "C050"


def test_mismatched_rows_keep_the_prompt_and_take_the_other_answer() -> None:
    mine = (Sequence([1, 2, 3, 4], [0, 0, 1.0, 1.0]),)
    other = (Sequence([7, 8, 9], [0, 1.0, 0.5]),)
    (joined,) = mismatched(mine, other)
    assert joined.tokens == [1, 2, 8, 9] and joined.weights == [0, 0, 1.0, 0.5]


def test_kto_measures_from_the_kl_point() -> None:
    groups: list[Group] = [(Sequence([5, 6], [0.0, 1.0], {"label": label}),) for label in (1.0, 0.0)]
    s = signals(groups, torch.tensor([-1.0, -1.0]), torch.tensor([-2.0, -3.0]))
    s.step = {"kl_point": StepStat(torch.tensor([0.5, 1.5]), slice(0, 0))}
    expected = torch.sigmoid(torch.tensor(-0.1 * (1.0 - 1.0))) + 3 * torch.sigmoid(torch.tensor(0.1 * (2.0 - 1.0)))
    assert float(OBJECTIVES["kto"].bind(unwanted=3.0)(s).total) == pytest.approx(float(expected), rel=1e-6)
    s.step = {"kl_point": StepStat(torch.tensor([-4.0]), slice(0, 0))}
    assert float(OBJECTIVES["kto"](s).metrics["kl_point"]) == 0


def test_label_smoothing_is_torchs() -> None:
    torch.manual_seed(0)
    s = signals(nets.singles(3))
    logits = torch.randn(len(s.logp), 11, dtype=torch.float64)
    target = torch.randint(0, 11, (len(s.logp),))
    logp = logits.log_softmax(-1)
    s.logp_N, s.mean_logp_N = logp.gather(1, target[:, None])[:, 0], logp.mean(-1)
    theirs = (F.cross_entropy(logits, target, label_smoothing=0.1, reduction="none") * s.batch.weight_N).sum()
    assert float(OBJECTIVES["sft"].bind(label_smoothing=0.1)(s).total) == pytest.approx(float(theirs), rel=1e-9)


def two(size: int = 9) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    student, teacher = (2 * torch.randn(4, size, dtype=torch.float64) for _ in range(2))
    return student.log_softmax(-1), teacher.log_softmax(-1)


def test_limits_of_the_divergence() -> None:
    student, teacher = two()
    forward, reverse = jsd(student, teacher, 0.0), jsd(student, teacher, 1.0)
    assert torch.allclose(forward, F.kl_div(student, teacher, log_target=True, reduction="none").sum(-1))
    assert torch.allclose(jsd(student, teacher, 1e-6) / 1e-6, forward, rtol=1e-4)
    assert torch.allclose(jsd(student, teacher, 1 - 1e-6) / 1e-6, reverse, rtol=1e-4)
    middle = jsd(student, teacher, 0.5)
    assert (middle >= 0).all() and (middle <= LN2).all() and torch.allclose(middle, jsd(teacher, student, 0.5))
    assert torch.allclose(jsd(student, student, 0.3), torch.zeros(4, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_folding_never_adds_divergence_and_with_all_tokens_changes_nothing(beta: float) -> None:
    student, teacher = two()
    whole, before = jsd(student, teacher, beta), torch.zeros(4, dtype=torch.float64)
    for k in (1, 3, 8):
        best = teacher.topk(k, -1)
        now = jsd(folded(student, best.indices), with_rest(best.values), beta)
        assert (now >= before - 1e-9).all() and (now <= whole + 1e-9).all()
        before = now
    assert torch.allclose(before, whole, rtol=1e-6)


def test_the_distance_by_rank_does_not_see_which_token_it_was() -> None:
    student, teacher = two()
    shuffled = teacher[:, torch.randperm(9)]
    assert torch.allclose(sorted_distance(student, teacher), sorted_distance(student, shuffled))
    assert torch.allclose(sorted_distance(student, student), torch.zeros(4, dtype=torch.float64))
    nothing = torch.full((4, 3), -torch.inf, dtype=torch.float64)
    assert torch.allclose(sorted_distance(student, nothing), torch.full((4,), 0.5, dtype=torch.float64))


def test_documentation_names_a_paper_or_says_what_is_learned() -> None:
    for name, one in OBJECTIVES.items():
        assert one.fn.__doc__ and ("arXiv" in one.fn.__doc__ or len(one.fn.__doc__) > 60), name
