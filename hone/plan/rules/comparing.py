"""Rules about objectives that compare answers or reward them."""

from __future__ import annotations

from hone.plan.rules.base import Case, Found, rule

REINFORCING = ("grpo", "dapo", "rloo", "ppo", "reinforce", "gspo", "dr_grpo", "online_dpo")
UNSLOTH = "Unsloth docs, reinforcement learning guide"


@rule("C127", "note", source=UNSLOTH)
def few_prompts(case: Case) -> Found | None:
    """Reinforcement learning wants 500 prompts; it starts to work with ten."""
    if case.objective not in REINFORCING or case.rows is None or case.rows >= 500:
        return None
    return Found(f"{case.rows} prompts: the same few are rewarded again and again")


@rule("C128", "warning", source=UNSLOTH)
def early_end(case: Case) -> Found | None:
    """Rewards seldom move before 300 steps."""
    if case.objective not in REINFORCING or case.steps is None or case.steps >= 300:
        return None
    return Found(f"{case.steps} steps of {case.objective}", {"optim.max_steps": 300, "optim.epochs": None})


@rule("C129", "warning", source=UNSLOTH)
def small_reasoner(case: Case) -> Found | None:
    """A model of 1.5 billion parameters at the least, to be rewarded for reasoning."""
    if case.objective not in REINFORCING or case.parameters is None or case.parameters >= 1.4e9:
        return None
    return Found(f"{case.parameters / 1e9:.2g} B parameters: small models seldom write anything that earns a reward")


@rule("C131", "warning", source="arXiv 2305.18290")
def odd_beta(case: Case) -> Found | None:
    """A beta of 0.01 to 0.5 holds the policy to its reference."""
    beta = case["objective.beta"]
    if case.objective != "dpo" or beta is None or 0.01 <= beta <= 0.5:
        return None
    why = "hardly holds the model to its reference" if beta < 0.01 else "hardly lets it move"
    return Found(f"beta {beta:g} {why}", {"objective.beta": 0.1})


@rule("C138", "note", source=UNSLOTH)
def pair_of_answers(case: Case) -> Found | None:
    """More than two answers to each prompt, or there is little to compare."""
    group = case["rollout.group_size"]
    if case.objective not in REINFORCING or group is None or group > 2:
        return None
    return Found(f"{group} answers to a prompt give a noisy baseline; 8 are usual", {"rollout.group_size": 8})
