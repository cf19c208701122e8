"""Rules about the numbers of a run: rates, ranks, passes, batches."""

from __future__ import annotations

import math

from hone.plan.advise import COMPARING, learning_rate
from hone.plan.rules.base import Case, Found, rule

GUIDE = "fine-tuning guide, key parameters"
UNSLOTH = "Unsloth docs, hyperparameters guide"
REGRET = "LoRA Without Regret (Thinking Machines, 2025)"
QLORA = "arXiv 2305.14314"


def _advised(case: Case, start: float) -> float:
    return float(learning_rate(start, case.hidden or 4096, pace=1.0 if case.imitates else COMPARING).value)


@rule("C101", "warning", source=f"{GUIDE}; {UNSLOTH}")
def adapter_rate(case: Case) -> Found | None:
    """An adapter that imitates learns at 5e-5 to 5e-4, times the factor for the model's width."""
    rate = case["optim.learning_rate"]
    if rate is None or not case.adapts or not case.imitates:
        return None
    low, high = 4.9e-5 * case.width_factor, 5.1e-4 * case.width_factor
    if low <= rate <= high or rate <= 3.1e-5 * case.width_factor:
        return None
    return Found(f"a learning rate of {rate:g} is outside {low:.1g} to {high:.1g}", {"optim.learning_rate": _advised(case, 2e-4)})


@rule("C102", "warning", source=f"{REGRET}; defaults of TRL")
def rate_of_full_tuning(case: Case) -> Found | None:
    """An adapter does not learn at the rate of full tuning."""
    rate = case["optim.learning_rate"]
    if rate is None or not case.adapts or not case.imitates or rate > 3.1e-5 * case.width_factor:
        return None
    what = f"a learning rate of {rate:g} is for full tuning: an adapter wants about ten times as much"
    return Found(what, {"optim.learning_rate": _advised(case, 2e-4)})


@rule("C103", "warning", source=f"{REGRET}; {UNSLOTH}")
def full_rate(case: Case) -> Found | None:
    """Full tuning learns at no more than 5e-5, times the factor for the model's width."""
    rate = case["optim.learning_rate"]
    if rate is None or case.method != "full" or rate <= 5.1e-5 * case.width_factor:
        return None
    return Found(f"a learning rate of {rate:g} moves all weights too fast", {"optim.learning_rate": _advised(case, 2e-5)})


@rule("C104", "warning", source=f"{UNSLOTH}; TRL's DPO and GRPO defaults")
def comparing_rate(case: Case) -> Found | None:
    """Objectives that compare or reward answers learn at 5e-7 to 2e-5, times the factor for the model's width."""
    rate = case["optim.learning_rate"]
    if rate is None or case.imitates or rate <= 2.1e-5 * case.width_factor:
        return None
    what = f"{case.objective} at {rate:g}: the model drifts from its reference faster than it learns what is preferred"
    return Found(what, {"optim.learning_rate": _advised(case, 2e-4)})


@rule("C105", "warning", source=GUIDE)
def many_epochs(case: Case) -> Found | None:
    """One to three passes: more tends to memorise."""
    epochs = case["optim.epochs"]
    return Found(f"{epochs:g} passes over the data", {"optim.epochs": 3.0}) if epochs is not None and epochs > 3 else None


@rule("C106", "note", source=f"{GUIDE}, under-training")
def part_of_an_epoch(case: Case) -> Found | None:
    """At least one pass, or some rows are never seen."""
    epochs = case["optim.epochs"]
    return Found(f"{epochs:g} of a pass: the rest is never seen", {"optim.epochs": 1.0}) if epochs is not None and epochs < 1 else None


@rule("C107", "warning", source=f"{GUIDE}; arXiv 2312.03732 for rank-stabilised scaling")
def weak_alpha(case: Case) -> Found | None:
    """Alpha is at least the rank (its square root with rank-stabilised scaling)."""
    alpha, rank = case["tuning.alpha"], case["tuning.rank"]
    if alpha is None or rank is None:
        return None
    least = math.sqrt(rank) if case["tuning.rslora"] else rank
    return Found(f"alpha {alpha:g} below {least:g} damps what is learned", {"tuning.alpha": float(rank)}) if alpha < least else None


@rule("C108", "warning", source=f"{GUIDE}; {UNSLOTH}; rank 1 for reinforcement: {REGRET}")
def odd_rank(case: Case) -> Found | None:
    """A rank of 4 to 128; less only for reinforcement learning."""
    rank = case["tuning.rank"]
    if rank is None or 4 <= rank <= 128 or (rank < 4 and not case.imitates):
        return None
    why = "holds little" if rank < 4 else "needs far more data and memory, and seldom gains"
    return Found(f"rank {rank} {why}", {"tuning.rank": 16})


@rule("C109", "warning", source=f"{REGRET}; {QLORA}; {UNSLOTH}")
def attention_only(case: Case) -> Found | None:
    """Adapters on all linear layers, not on the attention alone."""
    targets = case["tuning.targets"]
    names = (targets,) if isinstance(targets, str) else tuple(targets or ())
    feed = ("all-linear", "gate", "up_", "down", "fc", "mlp", "dense", "w1", "w2", "w3", "ff", ".*")
    if not case.adapts or not names or any(part in name for name in names for part in feed):
        return None
    return Found(
        f"only {', '.join(names)} are adapted: the feed-forward holds most of what can be learned", {"tuning.targets": "all-linear"}
    )


@rule("C110", "note", source="arXiv 2410.09692")
def dropout_in_a_short_run(case: Case) -> Found | None:
    """Dropout pays in long runs that overfit, not in short ones."""
    dropout = case["tuning.dropout"]
    if not dropout or case.steps is None or case.steps >= 500:
        return None
    return Found(f"dropout {dropout:g} in {case.steps} steps: slower, and of no proven use there", {"tuning.dropout": 0.0})


@rule("C111", "warning", source=f"{UNSLOTH}; {REGRET}: adapters bear large batches badly")
def odd_batch(case: Case) -> Found | None:
    """Four to 64 rows in an optimiser step."""
    size = case["optim.batch_size"]
    if size is None or 4 <= size <= 64:
        return None
    why = "each step follows the noise of a few rows" if size < 4 else "few steps, and adapters learn less from large batches"
    return Found(f"a batch of {size}: {why}", {"optim.batch_size": 16})


@rule("C112", "note", source=UNSLOTH)
def odd_warmup(case: Case) -> Found | None:
    """The rate rises over 3 to 10 % of the steps."""
    share = case["optim.warmup_ratio"]
    if share is None or 0 < share <= 0.2:
        return None
    why = "the first steps are at full rate, with moments that know nothing" if share == 0 else "much of the run is spent warming up"
    return Found(f"a warm-up of {100 * share:g} %: {why}", {"optim.warmup_ratio": 0.05})


@rule("C113", "warning", source=UNSLOTH)
def strong_decay(case: Case) -> Found | None:
    """A weight decay of at most 0.1."""
    decay = case["optim.weight_decay"]
    what = f"a weight decay of {decay} pulls adapters to zero"
    return Found(what, {"optim.weight_decay": 0.01}) if decay and decay > 0.1 else None


@rule("C114", "note", source=QLORA)
def no_clipping(case: Case) -> Found | None:
    """The gradient's norm is bounded."""
    if "clip" not in case.settings.get("optim", {}) or case["optim.clip"] is not None:
        return None
    return Found("nothing bounds the gradient: one odd row can throw the run off", {"optim.clip": 1.0})


@rule("C115", "warning", source=f"{GUIDE}: 60 steps for a first try")
def few_steps(case: Case) -> Found | None:
    """Enough steps to learn anything: 30 at the least."""
    if case.steps is None or case.steps >= 30:
        return None
    wanted = (case["optim.batch_size"] or 0) * case.steps // 30
    return Found(f"{case.steps} steps in all", {"optim.batch_size": wanted} if wanted >= 4 else {})


@rule("C116", "warning", source="arithmetic: fp16 reaches 65504 and no further")
def half_precision(case: Case) -> Found | None:
    """bfloat16 or float32, not float16 without a scaled loss."""
    if case["hardware.dtype"] != "float16":
        return None
    return Found("float16 overflows where bfloat16 does not", {"hardware.dtype": "auto"})
