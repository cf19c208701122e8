"""From rewards to what each answer teaches: advantages for the policy objectives, pairs for DPO, the best answers for SFT.

A scheme is a pure function from judged groups to groups for an objective; its keyword arguments are its settings.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from hone.core.config import parse, settings_of
from hone.core.registry import Registry
from hone.core.types import Group, Sequence

TINY = 1e-4
"""Added to a standard deviation before dividing by it."""


@dataclass(slots=True)
class Outcome:
    """An answer with what it got. Lists are over its learned tokens, in order."""

    sequence: Sequence
    reward: float
    parts: Mapping[str, float] = field(default_factory=dict)
    """Each reward by name, already weighted."""
    penalties: list[float] = field(default_factory=list)
    """What each token costs for leaving the reference, if that is part of the reward; else empty."""
    values: list[float] = field(default_factory=list)
    """What the value head expected at each token, if there is one; else empty."""
    baseline: float = 0.0
    """The reward of the greedy answer to the same prompt, if it was asked for."""

    @property
    def total(self) -> float:
        """The reward less all penalties."""
        return self.reward - sum(self.penalties)

    @property
    def learned(self) -> list[int]:
        """Where in the sequence the learned tokens are."""
        return [j for j, weight in enumerate(self.sequence.weights) if j and weight]

    def teaching(self, advantage: float | Seq[float], **others: Seq[float]) -> Sequence:
        """The sequence with an advantage (and other facts) for each learned token."""
        at = self.learned
        whole = [advantage] * len(at) if isinstance(advantage, int | float) else advantage
        facts = {name: _spread(values, at, len(self.sequence.tokens)) for name, values in {"advantage": whole, **others}.items()}
        return replace(self.sequence, facts={**self.sequence.facts, **facts})


def _spread(values: Seq[float], at: Seq[int], length: int) -> float | list[float]:
    whole = [0.0] * length
    for place, value in zip(at, values, strict=True):
        whole[place] = float(value)
    return whole


Judged = Seq[Seq[Outcome]]


@dataclass(frozen=True, slots=True)
class Scheme:
    """A way to give credit, and what it needs beside rewards: values (of a value head), greedy (an answer to compare with)."""

    name: str
    fn: Callable[..., list[Group]]
    needs: frozenset[str]
    gives: str
    """What comes out: sequences with an `advantage`, a `pair`, or `single` answers to imitate."""

    def __call__(self, judged: Judged) -> list[Group]:
        return self.fn(judged)

    def settings(self) -> type:
        """The settings class, read from the function's keyword-only arguments."""
        return settings_of(self.fn)

    def bind(self, values: Mapping[str, Any]) -> Scheme:
        """The same scheme with its settings fixed. Raises C001, C002 for what it does not take."""
        checked = asdict(parse(self.settings(), values, section=f"rollout.credit.{self.name}"))
        return replace(self, fn=lambda judged: self.fn(judged, **checked))


CREDITS: Registry[Scheme] = Registry("credit")


def credit(needs: str = "", *, gives: str = "advantage") -> Callable[[Callable[..., list[Group]]], Callable[..., list[Group]]]:
    """Register a scheme under its function's name."""

    def add(fn: Callable[..., list[Group]]) -> Callable[..., list[Group]]:
        CREDITS.add(fn.__name__)(Scheme(fn.__name__, fn, frozenset(needs.split()), gives))
        return fn

    return add


def contrast(group: Iterable[Outcome]) -> bool:
    """Whether the answers of a group differ in what they got; otherwise comparing them teaches nothing."""
    return len({outcome.total for outcome in group}) > 1


@credit()
def centred(judged: Judged, *, scale: Literal["group", "batch", "none"] = "group") -> list[Group]:
    """Reward less the mean of its group, over the standard deviation of group (GRPO, arXiv 2402.03300) or batch, or not (Dr. GRPO)."""
    whole = _deviation([outcome.total for outcome in _flat(judged)])
    groups: list[Group] = []
    for group in judged:
        rewards = [outcome.total for outcome in group]
        mean = statistics.fmean(rewards)
        unit = {"group": _deviation(rewards) + TINY, "batch": whole + TINY, "none": 1.0}[scale]
        groups.append(tuple(outcome.teaching((outcome.total - mean) / unit) for outcome in group))
    return groups


@credit()
def leave_one_out(judged: Judged) -> list[Group]:
    """Reward less the mean of the other answers to the same prompt (RLOO, arXiv 2402.14740). A lonely answer teaches nothing."""
    groups: list[Group] = []
    for group in judged:
        total, others = sum(outcome.total for outcome in group), len(group) - 1
        baselines = [(total - outcome.total) / others if others else outcome.total for outcome in group]
        groups.append(tuple(outcome.teaching(outcome.total - base) for outcome, base in zip(group, baselines, strict=True)))
    return groups


@credit()
def decoupled(judged: Judged) -> list[Group]:
    """Each reward is normalised in its group by itself, then they are added and normalised over the batch (GDPO, arXiv 2601.05242).

    So a reward of small spread is not drowned by one of large spread.
    """
    sums = [_decoupled(group) for group in judged]
    flat = [value for group in sums for value in group]
    mean, unit = statistics.fmean(flat), _deviation(flat) + TINY
    taught = [
        [outcome.teaching((value - mean) / unit) for outcome, value in zip(group, sums[i], strict=True)] for i, group in enumerate(judged)
    ]
    return [tuple(group) for group in taught]


def _decoupled(group: Seq[Outcome]) -> list[float]:
    columns = [[outcome.parts[name] for outcome in group] for name in group[0].parts] or [[outcome.reward for outcome in group]]
    columns += [[-sum(outcome.penalties) for outcome in group]] if group[0].penalties else []
    scaled = [[(x - statistics.fmean(column)) / (_deviation(column) + TINY) for x in column] for column in columns]
    return [sum(row) for row in zip(*scaled, strict=True)]


@credit(needs="greedy")
def greedy_baseline(judged: Judged) -> list[Group]:
    """Reward less that of the greedy answer to the same prompt (ReMax, arXiv 2310.10505)."""
    return [tuple(outcome.teaching(outcome.total - outcome.baseline) for outcome in group) for group in judged]


@credit()
def batch_normalised(judged: Judged, *, group_mean: bool = False) -> list[Group]:
    """What is still to come from each token on, normalised over all tokens of the batch (REINFORCE++, arXiv 2501.03262).

    With `group_mean` the mean of the group is taken off first, for several answers to a prompt.
    """
    flat = _flat(judged)
    taken = {id(o): statistics.fmean([p.reward for p in group]) if group_mean else 0.0 for group in judged for o in group}
    returns = [_to_come([-p for p in o.penalties] or [0.0] * len(o.learned), o.reward - taken[id(o)]) for o in flat]
    whole = [value for each in returns for value in each]
    mean, unit = statistics.fmean(whole), _deviation(whole) + TINY
    taught = iter([outcome.teaching([(value - mean) / unit for value in each]) for outcome, each in zip(flat, returns, strict=True)])
    return [tuple(next(taught) for _ in group) for group in judged]


def _to_come(rewards: Seq[float], last: float) -> list[float]:
    """Sum of the rewards from each place on, with `last` added at the end."""
    total, found = last, []
    for reward in reversed(rewards):
        total += reward
        found.append(total)
    return found[::-1]


@credit(needs="values")
def gae(
    judged: Judged, *, discount: Annotated[float, Gt(0), Le(1)] = 1.0, decay: Annotated[float, Ge(0), Le(1)] = 0.95, whiten: bool = True
) -> list[Group]:
    """Generalised advantage estimation (arXiv 1506.02438) over the value head's estimates; the reward comes with the last token.

    Also writes the facts `returns` and `old_value`. `whiten` normalises the advantages over all tokens of the batch.
    """
    flat = _flat(judged)
    found = [estimate(_paid(outcome), outcome.values, discount=discount, decay=decay) for outcome in flat]
    whole = [value for each in found for value in each]
    mean, unit = (statistics.fmean(whole), _deviation(whole) + 1e-8) if whiten and len(whole) > 1 else (0.0, 1.0)
    taught = []
    for outcome, each in zip(flat, found, strict=True):
        returns = [advantage + value for advantage, value in zip(each, outcome.values, strict=True)]
        taught.append(outcome.teaching([(advantage - mean) / unit for advantage in each], returns=returns, old_value=outcome.values))
    rest = iter(taught)
    return [tuple(next(rest) for _ in group) for group in judged]


def _paid(outcome: Outcome) -> list[float]:
    """The reward of each learned token: its penalty, and for the last one what the answer got."""
    paid = [-penalty for penalty in outcome.penalties] or [0.0] * len(outcome.values)
    return [*paid[:-1], paid[-1] + outcome.reward] if paid else []


def estimate(rewards: Seq[float], values: Seq[float], *, discount: float, decay: float) -> list[float]:
    """Advantages A_t = sum over k of (discount * decay)^k * delta_{t+k}, delta_t = r_t + discount * V_{t+1} - V_t; V is 0 after the end."""
    advantage, following, found = 0.0, 0.0, []
    for reward, value in zip(reversed(rewards), reversed(values), strict=True):
        advantage = reward + discount * following - value + discount * decay * advantage
        following = value
        found.append(advantage)
    return found[::-1]


@credit()
def plain(judged: Judged) -> list[Group]:
    """The reward itself as the advantage (REINFORCE)."""
    return [tuple(outcome.teaching(outcome.total) for outcome in group) for group in judged]


@credit(gives="pair")
def best_and_worst(judged: Judged) -> list[Group]:
    """A pair of the best and the worst answer, for the paired objectives (online DPO, arXiv 2402.04792). No contrast, no pair."""
    pairs: list[Group] = []
    for group in filter(contrast, judged):
        order = sorted(group, key=lambda outcome: outcome.total)
        pairs.append((order[-1].sequence, order[0].sequence))
    return pairs


@credit(gives="single")
def best(judged: Judged, *, least: float | None = None) -> list[Group]:
    """The best answer of each group, to be imitated (rejection sampling, RAFT, arXiv 2304.06767); only from a reward of `least` on."""
    tops = [max(group, key=lambda outcome: outcome.total) for group in judged if group]
    return [(top.sequence,) for top in tops if least is None or top.total >= least]


@credit(gives="single")
def keep(judged: Judged) -> list[Group]:
    """Every answer as it is, whatever it got: for distillation on the student's own text (GKD, arXiv 2306.13649)."""
    return [(outcome.sequence,) for outcome in _flat(judged)]


def _flat(judged: Judged) -> list[Outcome]:
    return [outcome for group in judged for outcome in group]


def _deviation(values: Seq[float]) -> float:
    """Standard deviation of a sample; 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0
