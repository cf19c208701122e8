"""Losses of preferences, labels, rewards and distillation equal TRL's on the same token ids (an oracle, not a model to copy)."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hone.core.types import Batch, Group, Sequence, Signals, StepStat
from hone.data.batching import pack
from hone.models.policy import Policy
from hone.objectives import OBJECTIVES, Objective
from hone.objectives.unpaired import mismatched
from hone.tuning.base import Untouched
from tests import nets

pytestmark = pytest.mark.filterwarnings("ignore")
PAIRED: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("dpo", {}, "sigmoid", {}),
    ("dpo", {"label_smoothing": 0.1, "robust": True}, "robust", {"label_smoothing": 0.1}),
    ("dpo", {"length_normalised": True}, "sigmoid_norm", {}),
    ("dpo", {"divergence": "forward_kl"}, "sigmoid", {"f_divergence_type": "forward_kl"}),
    ("dpo", {"divergence": "jensen_shannon"}, "sigmoid", {"f_divergence_type": "js_divergence"}),
    ("dpo", {"divergence": "alpha", "alpha": 0.5}, "sigmoid", {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.5}),
    ("ipo", {}, "ipo", {}),
    ("hinge", {}, "hinge", {}),
    ("exo", {"label_smoothing": 1e-3}, "exo_pair", {"label_smoothing": 1e-3}),
    ("nca", {}, "nca_pair", {}),
    ("bco_pair", {}, "bco_pair", {}),
    ("sppo", {}, "sppo_hard", {}),
    ("aot", {}, "aot", {}),
    ("aot", {"paired": False, "label_smoothing": 0.1}, "aot_unpaired", {"label_smoothing": 0.1}),
    ("apo_zero", {}, "apo_zero", {}),
    ("apo_down", {}, "apo_down", {}),
    ("discopop", {"beta": 0.1}, "discopop", {}),
]
"""Ours with its settings, TRL's loss type with what is set there."""


def models() -> tuple[Any, Any]:
    """A policy's model and its reference, not far apart."""
    torch.manual_seed(0)
    model = nets.llama()
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model, reference


def asked(model: Any) -> Policy:
    tuning = Untouched()
    tuning.attach(model, seed=0)
    return Policy.of(model, tuning)


def tokenizer() -> Any:
    """Words t0 to t127, so that texts are token ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({f"t{i}": i for i in range(128)}, unk_token="t0"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="t0", eos_token="t2")


def pairs() -> list[Group]:
    """Pairs with a prompt of weight 0 and answers of weight 1."""
    made = []
    for chosen, rejected in nets.pairs(5):
        begin = next(i for i, (a, b) in enumerate(zip(chosen.tokens, rejected.tokens, strict=False)) if a != b)
        made.append(tuple(Sequence(s.tokens, [0.0] * begin + [1.0] * (len(s.tokens) - begin)) for s in (chosen, rejected)))
    return made


def split(sequence: Sequence) -> tuple[list[int], list[int]]:
    begin = sequence.weights.index(1.0)
    return sequence.tokens[:begin], sequence.tokens[begin:]


def ours(objective: Objective, batch: Batch, logp: Tensor, ref: Tensor, **step: StepStat) -> float:
    signals = Signals(batch, logp_N=logp, ref_logp_N=ref)
    signals.step = step or {name: StepStat(value, slice(0, len(value))) for name, value in objective.statistics(signals).items()}
    return float(objective(signals).total) / batch.count(objective.unit)


def options(folder: Path) -> dict[str, Any]:
    return {"output_dir": str(folder), "report_to": "none", "use_cpu": True, "bf16": False, "per_device_train_batch_size": 4}


def test_preference_losses(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model, reference = models()
    groups = pairs()
    batch = pack(groups)
    logp, ref = (asked(copy.deepcopy(each)).signals(batch, "logp").logp for each in (model, reference))
    row = {"prompt": "t5 t6", "chosen": "t7 t8", "rejected": "t9"}
    args = DPOConfig(**options(tmp_path), max_length=None, gradient_checkpointing=False)
    trainer = DPOTrainer(model, reference, args, train_dataset=Dataset.from_list([row] * 4), processing_class=tokenizer())
    rows = [{"prompt_ids": split(a)[0], "chosen_ids": split(a)[1], "rejected_ids": split(b)[1]} for a, b in groups]
    inputs = trainer.data_collator(rows)
    for name, settings, theirs, set_there in PAIRED:
        trainer.loss_types, trainer.loss_weights = [theirs], [1.0]
        trainer.label_smoothing, trainer.f_divergence_type = 0.0, "reverse_kl"
        for attribute, value in set_there.items():
            setattr(trainer, attribute, value)
        with torch.no_grad():
            expected = float(trainer.compute_loss(model, dict(inputs)))
        found = ours(OBJECTIVES[name].bind(**settings), batch, logp, ref)
        assert abs(found - expected) <= 1e-4 * max(1.0, abs(expected)), (name, settings, found, expected)


def test_kto(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    model, reference = models()
    groups: list[Group] = [
        (replace(sequence, facts={"label": float((i + j) % 2)}),)
        for i, pair in enumerate(pairs())
        for j, sequence in enumerate(pair[: 1 + i % 2])
    ]
    others = [mismatched(group, groups[(i + 1) % len(groups)]) for i, group in enumerate(groups)]
    batch, aside = pack(groups), pack(others)
    policies = [asked(copy.deepcopy(each)) for each in (model, reference)]
    logp, ref = (policy.signals(batch, "logp").logp for policy in policies)
    beside = Signals(aside, *(policy.signals(aside, "logp").logp for policy in policies))
    row = {"prompt": "t5 t6", "completion": "t7 t8", "label": True}
    args = KTOConfig(**options(tmp_path), max_length=None, gradient_checkpointing=False)
    data = Dataset.from_list([row | {"label": i % 2 == 0} for i in range(4)])
    trainer = KTOTrainer(model, reference, args, train_dataset=data, processing_class=tokenizer())
    rows = [
        {
            "prompt_ids": split(group[0])[0],
            "completion_ids": split(group[0])[1],
            "KL_completion_ids": split(other[0])[1],
            "label": group[0].facts["label"] == 1.0,
        }
        for group, other in zip(groups, others, strict=True)
    ]
    with torch.no_grad():
        expected = float(trainer.compute_loss(model, dict(trainer.data_collator(rows))))
    ratios = OBJECTIVES["kto"].statistics(beside)["kl_point"]
    found = ours(OBJECTIVES["kto"], batch, logp, ref, kl_point=StepStat(ratios, slice(0, 0)))
    assert abs(found - expected) <= 1e-4
    assert float(ratios.mean()) != 0


def test_reward_models(tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import LlamaForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    model, _ = models()
    theirs = LlamaForSequenceClassification(type(model.config)(**model.config.to_dict() | {"num_labels": 1, "pad_token_id": 0}))
    theirs.model.load_state_dict(model.model.state_dict())
    groups = [tuple(replace(sequence, facts={"margin": 0.1 * i}) for sequence in pair) for i, pair in enumerate(pairs())]
    policy = asked(model).grow("score")
    with torch.no_grad():
        policy.heads["score"].weight.copy_(theirs.score.weight)
    args = RewardConfig(**options(tmp_path), max_length=None, center_rewards_coefficient=0.05, gradient_checkpointing=False)
    row = {"chosen": "t7 t8", "rejected": "t9"}
    trainer = RewardTrainer(theirs, args, train_dataset=Dataset.from_list([row] * 4), processing_class=tokenizer())
    rows = [{"chosen_ids": a.tokens, "rejected_ids": b.tokens, "margin": a.facts["margin"]} for a, b in groups]
    with torch.no_grad():
        expected = float(trainer.compute_loss(theirs, dict(trainer.data_collator(rows))))
        found = OBJECTIVES["rm"].bind(centring=0.05)(policy.signals(pack(groups), "score"))
    assert abs(float(found.total) / 5 - expected) <= 1e-4


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_distillation(beta: float, temperature: float) -> None:
    from trl.experimental.gkd import GKDTrainer
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    student, teacher = (asked(model) for model in models())
    batch = pack(pairs())
    student.teacher = teacher
    objective = OBJECTIVES["distill"].bind(beta=beta, temperature=temperature)
    with torch.no_grad():
        found = float(objective(student.signals(batch, objective.needs)).total)
        hidden = [policy.hidden(batch)[batch.read_N][None] for policy in (student, teacher)]
        weights = [policy.head().weight_VD for policy in (student, teacher)]
        mask = torch.ones(1, len(batch.read_N))
        total, _, count = _chunked_divergence_loss(*hidden, *weights, mask, beta, temperature=temperature)
        logits = [h @ w.t() for h, w in zip(hidden, weights, strict=True)]
        older = GKDTrainer.generalized_jsd_loss(*logits, beta=beta, temperature=temperature)
    assert abs(found / len(batch.read_N) - float(total)) <= 1e-4 and int(count) == len(batch.read_N)
    assert found == pytest.approx(float(older), rel=1e-4, abs=1e-6)  # its mean is over batches, and this is one
    assert found > 0
