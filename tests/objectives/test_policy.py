"""The policy objectives: closed forms, PPO against numpy, and TRL's GRPO and RLOO losses on replayed rollouts."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from hone.core.types import Batch, Group, Sequence, Signals
from hone.data.batching import pack
from hone.models.policy import using_attention
from hone.objectives import OBJECTIVES
from hone.objectives.policy import divergence, surrogate
from hone.tuning.full import Full
from tests import nets

LIMIT = 12


def rollout(groups: int = 3, size: int = 4, seed: int = 0, *, far: float = 0.3) -> list[Group]:
    """Answers of unlike lengths to shared prompts, with facts as a rollout leaves them; some ratios lie beyond the clip."""
    rng, found = random.Random(seed), []
    for _ in range(groups):
        prompt = [rng.randrange(3, 128) for _ in range(rng.randint(3, 12))]
        group = []
        for _ in range(size):
            length, advantage = rng.randint(2, LIMIT), rng.gauss(0, 1)
            answer = [rng.randrange(3, 128) for _ in range(length)]
            whole = len(prompt) + length
            facts: Any = {name: [rng.gauss(0, far) for _ in range(whole)] for name in ("old_logp", "ref_logp", "returns", "old_value")}
            facts |= {"advantage": [advantage] * whole, "limit": float(LIMIT)}
            group.append(Sequence(prompt + answer, [0.0] * len(prompt) + [1.0] * length, facts))
        found.append(tuple(group))
    return found


def near(batch: Batch, logp_N: torch.Tensor) -> None:
    """Old and reference log-probabilities were drawn as differences from the policy's."""
    for name in ("old_logp", "ref_logp"):
        batch.facts[name] = logp_N.detach() + batch.facts[name]


def loss_of(name: str, batch: Batch, signals: Signals, **settings: Any) -> torch.Tensor:
    objective = OBJECTIVES[name].bind(**settings)
    return objective(signals).total / batch.count(objective.unit)


def spoken(seed: int = 0, *, needs: str = "logp value", far: float = 0.3) -> tuple[Batch, Signals]:
    """A batch, and signals of it that are random numbers: objectives need no model."""
    batch = pack(rollout(seed=seed, far=far))
    generator = torch.Generator().manual_seed(seed)
    logp_N = -torch.rand(len(batch.read_N), generator=generator, dtype=torch.float64) * 4
    near(batch, logp_N)
    value_N = torch.randn(len(batch.read_N), generator=generator, dtype=torch.float64)
    return batch, Signals(
        batch, logp_N.requires_grad_(), batch.facts["ref_logp"], entropy_N=value_N.abs(), value_N=value_N.requires_grad_()
    )


def test_estimators_of_kl_against_their_definitions() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, other = (torch.randn(50, generator=generator, dtype=torch.float64) for _ in range(2))
    p, q = logits.softmax(0), (logits + 0.3 * other).softmax(0)
    exact = float((p * (p / q).log()).sum())
    k1, k2, k3 = (divergence(p.log(), q.log(), estimator) for estimator in ("k1", "k2", "k3"))
    assert float((p * k1).sum()) == pytest.approx(exact, rel=1e-5) and float((p * k3).sum()) == pytest.approx(exact, rel=1e-4)
    assert k3.min() >= 0 and k2.min() >= 0 and k1.min() < 0
    assert float((p * (k3 - exact) ** 2).sum()) < float((p * (k1 - exact) ** 2).sum()), "k3 varies less than k1"


def test_the_gradient_of_k2_is_that_of_kl() -> None:
    """With p the policy: d KL(p || q) = E_p[(log p - log q) d log p], which is k2's gradient on average, and k1's is zero."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(20, generator=generator, dtype=torch.float64).requires_grad_()
    logq = torch.randn(20, generator=generator, dtype=torch.float64).log_softmax(0)
    logp = logits.log_softmax(0)
    (exact,) = torch.autograd.grad((logp.exp() * (logp - logq)).sum(), logits, retain_graph=True)
    share = logp.exp().detach()
    found = {e: torch.autograd.grad((share * divergence(logp, logq, e)).sum(), logits, retain_graph=True)[0] for e in ("k1", "k2", "k3")}
    torch.testing.assert_close(found["k2"], exact)
    weighted = share * (logp - logp.detach()).exp() * divergence(logp, logq, "k3")
    torch.testing.assert_close(torch.autograd.grad(weighted.sum(), logits, retain_graph=True)[0], exact)
    assert found["k1"].abs().max() < 1e-12
    assert (found["k3"] - exact).abs().max() > 1e-3


def test_the_clip_stops_what_goes_too_far_and_nothing_else() -> None:
    ratio = torch.tensor([0.5, 0.5, 1.0, 1.5, 1.5], requires_grad=True)
    advantage = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])
    loss, stopped = surrogate(ratio, advantage, 0.2, 0.2)
    assert loss.tolist() == pytest.approx([-0.5, 0.8, -1.0, -1.2, 1.5])
    assert stopped.tolist() == [0.0, 1.0, 0.0, 1.0, 0.0]
    (gradient,) = torch.autograd.grad(loss.sum(), ratio)
    assert (gradient == 0).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "gspo", "rloo", "cispo", "reinforce"])
def test_on_policy_the_gradient_is_the_policy_gradient(name: str) -> None:
    """Where nothing has moved yet, all of them are -A d logp, each in its own average."""
    batch, s = spoken()
    batch.facts["old_logp"] = s.logp.detach()
    advantage = batch.facts["advantage"].double()
    plain_N = -advantage * s.logp
    own = {
        "grpo": s.mean(plain_N).sum() / 12, "dr_grpo": (s.sum(plain_N) / LIMIT).sum() / 12, "dapo": plain_N.sum() / len(plain_N),
        "gspo": s.mean(plain_N).sum() / 12, "rloo": s.sum(plain_N).sum() / 12, "cispo": plain_N.sum() / len(plain_N),
        "reinforce": s.sum(plain_N).sum() / 12,
    }[name]  # fmt: skip
    (wanted,) = torch.autograd.grad(own, s.logp)
    (found,) = torch.autograd.grad(loss_of(name, batch, s), s.logp)
    torch.testing.assert_close(found, wanted)


def test_ppo_against_numpy() -> None:
    batch, s = spoken(3)
    logp, value = s.logp.detach().numpy(), s.value.detach().numpy()
    old, advantage, returns, before = (batch.facts[n].double().numpy() for n in ("old_logp", "advantage", "returns", "old_value"))
    ratio = np.exp(logp - old)
    policy = np.maximum(-ratio * advantage, -np.clip(ratio, 0.9, 1.1) * advantage)
    near_value = before + np.clip(value - before, -0.2, 0.2)
    value_loss = 0.5 * np.maximum((value - returns) ** 2, (near_value - returns) ** 2)
    entropy = s.entropy.numpy()
    wanted = (policy + 0.7 * value_loss - 0.01 * entropy).mean()
    found = loss_of("ppo", batch, s, clip=0.1, value_clip=0.2, value_weight=0.7, entropy=0.01)
    assert found.item() == pytest.approx(wanted, rel=1e-6)


def test_nothing_is_asked_for_that_is_not_used() -> None:
    assert set(OBJECTIVES["grpo"].needs) == {"logp"}
    assert set(OBJECTIVES["grpo"].bind(kl=0.1).needs) == {"logp", "ref_logp"}
    assert set(OBJECTIVES["ppo"].bind(entropy=0.1).needs) == {"logp", "entropy", "value"}


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "grpo": ("grpo", {"clip_low": 0.2, "clip_high": 0.2}, {"loss_type": "grpo"}),
    "grpo with kl": ("grpo", {"clip_low": 0.2, "clip_high": 0.28, "kl": 0.1}, {"loss_type": "grpo", "epsilon_high": 0.28, "beta": 0.1, "use_bias_correction_kl": False}),
    "dr_grpo": ("dr_grpo", {}, {"loss_type": "dr_grpo"}),
    "bnpo, in one batch": ("dapo", {"clip_high": 0.2}, {"loss_type": "bnpo"}),
    "dapo": ("dapo", {}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "dapo with kl and entropy": ("dapo", {"kl": 0.05, "estimator": "k3_weighted", "entropy": 0.01}, {"loss_type": "dapo", "epsilon_high": 0.28, "beta": 0.05, "entropy_coef": 0.01}),
    "cispo": ("cispo", {"clip_high": 1.2}, {"loss_type": "cispo", "epsilon_high": 1.2}),
    "gspo": ("gspo", {"clip_low": 0.05, "clip_high": 0.08}, {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.05, "epsilon_high": 0.08}),
    "rloo": ("rloo", {}, {}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_equal_trl(case: str, tmp_path: Any, tiny_tokenizer: Any) -> None:
    """Their loss function, on their own padded batch, for the same model and the same answers."""
    pytest.importorskip("trl", reason="trl is in the dev extra")
    name, settings, theirs = CASES[case]
    policy = nets.policy(nets.qwen3, Full(), moved=False)
    groups = rollout(far=0.5)
    batch = pack(groups)
    objective = OBJECTIVES[name].bind(**settings)
    with torch.no_grad():
        near(batch, policy.signals(batch, "logp").logp)
    loss = objective(policy.signals(batch, objective.needs)).total / batch.count(objective.unit)
    gradients = torch.autograd.grad(loss, list(policy.trainable().values()))
    trainer = _trainer(policy.model, tiny_tokenizer, str(tmp_path), theirs, rloo=name == "rloo")
    with using_attention(policy.model, "sdpa"):
        reference = trainer._compute_loss(policy.model, _inputs(groups, batch, rloo=name == "rloo"))
    others = torch.autograd.grad(reference, list(policy.trainable().values()))
    assert abs(loss.item() - reference.item()) <= 1e-4
    assert abs(loss.item()) > 1e-3
    gap = sum(float((a - b).norm() ** 2) for a, b in zip(gradients, others, strict=True)) ** 0.5
    assert gap <= 1e-4 * sum(float(b.norm() ** 2) for b in others) ** 0.5


def _trainer(model: Any, tokenizer: Any, folder: str, options: dict[str, Any], *, rloo: bool) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    model.save_pretrained(folder)
    model.config._name_or_path = folder  # where it reads its reference from
    common = {"output_dir": folder, "use_cpu": True, "bf16": False, "report_to": [], "max_completion_length": LIMIT, "num_generations": 4}
    common |= {"per_device_train_batch_size": 12, "gradient_checkpointing": False}
    make, config = (RLOOTrainer, RLOOConfig) if rloo else (GRPOTrainer, GRPOConfig)
    data = Dataset.from_list([{"prompt": "a"}] * 12)
    made = make(
        model,
        reward_funcs=lambda completions, **kw: [0.0] * len(completions),
        args=config(**common, **options),
        train_dataset=data,
        processing_class=tokenizer,
    )
    made.current_gradient_accumulation_steps = 1
    return made


def _inputs(groups: list[Group], batch: Batch, *, rloo: bool) -> dict[str, torch.Tensor]:
    """The batch as TRL pads it: prompts to the left, answers to the right."""
    flat = [sequence for group in groups for sequence in group]
    before = [sequence.weights.index(1.0) for sequence in flat]
    left, right = max(before), max(len(s.tokens) - b for s, b in zip(flat, before, strict=True))
    counts = [len(s.tokens) - b for s, b in zip(flat, before, strict=True)]

    def padded(columns: Any, width: int, *, start: bool = False) -> torch.Tensor:
        rows = [torch.as_tensor(column) for column in columns]
        return torch.stack([torch.nn.functional.pad(row, (width - len(row), 0) if start else (0, width - len(row))) for row in rows])

    old, ref = (padded(batch.facts[name].split(counts), right) for name in ("old_logp", "ref_logp"))
    found = {
        "prompt_ids": padded([s.tokens[:b] for s, b in zip(flat, before, strict=True)], left, start=True),
        "prompt_mask": padded([[1] * b for b in before], left, start=True),
        "completion_ids": padded([s.tokens[b:] for s, b in zip(flat, before, strict=True)], right),
        "completion_mask": padded([[1] * count for count in counts], right),
        "advantages": torch.tensor([s.facts["advantage"][0] for s in flat]),  # type: ignore[index]
        "num_items_in_batch": torch.tensor(float(sum(counts))),
    }
    return found | ({"old_logps": old.sum(1)} if rloo else {"old_per_token_logps": old, "ref_per_token_logps": ref})
