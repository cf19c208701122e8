"""Findings about reinforcement: rewards that teach the wrong thing or nothing, a policy that narrows, answers of an older self."""

from __future__ import annotations

from hone.plan.doctor.base import CERTAIN, LIKELY, POSSIBLE, Found, Remedy, Unknown, finding
from hone.plan.doctor.chart import Chart

ENOUGH = 6
"""Rollouts before anything is said."""
FALLEN = 0.85
"""Share of itself to which a part of the reward falls, to count as fallen."""
OLD = 4.0
"""Steps that a policy may have taken since it wrote what it learns from."""


def _slower(chart: Chart) -> tuple[Remedy, ...]:
    rate, advised = chart.rate, chart.advised
    if rate is None:
        return ()
    target = advised if advised is not None and advised < rate / 2 else rate / 4
    return (Remedy(f"a learning rate of {target:.1e} instead of {rate:.1e}", {"optim.learning_rate": float(f"{target:.1e}")}),)


def _leash(chart: Chart) -> tuple[Remedy, ...]:
    kl = chart["objective.kl"]
    return (Remedy("hold the policy to its reference", {"objective.kl": 0.05}),) if kl == 0 else ()


@finding("H013", "reward hacking", source="arXiv 1606.06565; arXiv 2210.10760: what a proxy rewards rises, what is meant falls")
def hacking(chart: Chart) -> Found | Unknown | None:
    """The reward rises while a part of it falls, or while the answers become alike."""
    if not chart.reinforces:
        return None
    rewards = chart.values("reward")
    if len(rewards) < ENOUGH:
        return Unknown(f"{ENOUGH} steps with rewards")
    before, after = chart.early("reward", 0.3) or 0.0, chart.late("reward", 0.3) or 0.0
    low, high = min(rewards), max(rewards)
    if after - before < 0.25 * max(abs(before), high - low, 0.1):
        return None
    falls = [f"{name.removeprefix('reward/')} {a:.2f} to {b:.2f}" for name, a, b in _parts(chart) if b < FALLEN * a]
    alike = (chart.late("distinct", 0.3) or 1.0) < 0.6 * (chart.early("distinct", 0.3) or 1.0)
    runs_off = _length_runs_off(chart)
    if not (falls or alike or runs_off):
        return None
    told = [f"reward {before:.2f} in the first steps, {after:.2f} in the last"]
    told += [f"but {each}" for each in falls]
    told += (
        [f"{100 * (chart.early('distinct', 0.3) or 0):.0f} % of the answers differed, now {100 * (chart.late('distinct', 0.3) or 0):.0f} %"]
        if alike
        else []
    )
    told += [f"answers went from {chart.early('answer_tokens'):.0f} to {chart.late('answer_tokens'):.0f} tokens"] if runs_off else []
    return Found(
        "the policy pleases the judge and not the task: "
        + (f"the reward rises while {falls[0].split(' ')[0]} falls" if falls else "its answers have become alike"),
        LIKELY if falls else POSSIBLE,
        tuple(told),
        curves=("reward", *(name for name, a, b in _parts(chart) if b < FALLEN * a), "distinct", "surprise"),
        remedies=(
            *_leash(chart),
            *_slower(chart),
            Remedy("read the answers in events.jsonl, and take away what the judge should not like (rollout.rewards)"),
        ),
    )


def _parts(chart: Chart) -> list[tuple[str, float, float]]:
    """Each reward of several, early and late."""
    names = [name for name in chart.series if name.startswith("reward/")]
    return [(name, chart.early(name, 0.3) or 0.0, chart.late(name, 0.3) or 0.0) for name in names] if len(names) > 1 else []


def _length_runs_off(chart: Chart) -> bool:
    """Answers become far longer or shorter, or run into the limit, where no reward is about length."""
    names = " ".join(name for name in chart.series if name.startswith("reward/"))
    before, after = chart.early("answer_tokens", 0.3), chart.late("answer_tokens", 0.3)
    if not before or not after or any(word in names for word in ("length", "overlong", "finished")):
        return False
    cut = (chart.late("cut", 0.3) or 0) > 0.8 and (chart.early("cut", 0.3) or 0) < 0.5
    return cut or after > 2.5 * before or after < before / 2.5


@finding("H014", "entropy collapse", source="arXiv 2505.22617 and DAPO (2503.14476): entropy is spent within the first steps")
def collapse(chart: Chart) -> Found | Unknown | None:
    """The policy has become sure of what it writes, so that nothing new is tried."""
    if not chart.reinforces:
        return None
    if len(chart.values("surprise")) < ENOUGH:
        return Unknown(f"{ENOUGH} steps with the entropy of what was written")
    before, after = chart.early("surprise", 0.2) or 0.0, chart.late("surprise", 0.2) or 0.0
    if after > 0.35 * before:
        return None
    return Found(
        f"the policy has narrowed: its entropy fell from {before:.2f} to {after:.2f} nats a token in {chart.steps:,} steps",
        CERTAIN if after < 0.2 * before else LIKELY,
        (f"{100 * (chart.late('distinct') or 0):.0f} % of a prompt's answers still differ",),
        curves=("surprise", "distinct", "reward"),
        remedies=(*_slower(chart), Remedy("reward entropy a little", {"objective.entropy": 0.01}), *_leash(chart)),
    )


@finding("H015", "stale rollout weights", source="off-policy reinforcement: arXiv 2410.18252; trl issue 5312")
def stale(chart: Chart) -> Found | Unknown | None:
    """What is learned from was written by a policy that has moved on since."""
    if not chart.reinforces:
        return None
    lags = chart.values("lag")
    if len(lags) < 4:
        return Unknown("four steps with the age of their answers")
    lag, clipped = sum(lags) / len(lags), chart.late("clipped") or 0.0
    if lag <= OLD:
        return None
    return Found(
        f"the answers are old: the policy had taken {lag:.0f} steps, on average, since it wrote them",
        CERTAIN if lag > 2 * OLD or clipped > 0.1 else LIKELY,
        (f"at most {max(lags):.0f} steps old", f"{100 * clipped:.0f} % of the tokens are clipped"),
        curves=("lag", "clipped", "reward"),
        remedies=(
            Remedy("write anew for every step", {"rollout.passes": 1, "rollout.parts": 1}),
            Remedy("no more than two passes over a rollout", {"rollout.passes": min(2, int(chart.number("rollout.passes") or 1))}),
        ),
    )


@finding("H016", "constant reward", source="arXiv 2503.14476: groups without contrast teach nothing")
def constant(chart: Chart) -> Found | Unknown | None:
    """All answers to a prompt get the same, so that nothing can be learned from them."""
    if not chart.reinforces:
        return None
    flat = chart.values("without_contrast")
    if len(flat) < 4:
        return Unknown("four rollouts")
    recent = flat[-max(4, len(flat) // 2) :]
    share = sum(recent) / len(recent)
    if share < 0.9:
        return None
    reward = chart.late("reward") or 0.0
    return Found(
        f"the reward is the same for all answers to a prompt ({100 * share:.0f} % of the prompts): nothing is learned",
        CERTAIN,
        (f"mean reward {reward:.2f}, gradient norm {chart.late('grad_norm') or 0:.1e}",),
        curves=("reward", "without_contrast"),
        remedies=(
            Remedy("warmer sampling and larger groups", {"rollout.sampling": {"temperature": 1.2}, "rollout.group_size": 16}),
            Remedy("draw further prompts for those without contrast", {"rollout.rounds": 4}),
            Remedy("easier prompts, or a reward that gives part of the points"),
        ),
    )
