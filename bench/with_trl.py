"""TRL's trainers as contenders: the same ids, order, adapter and hyper-parameters."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Sequence as Seq
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from bench.workload import ANSWERS, Outcome, Plan
from hone.core.types import Group

NAME = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<half>[AB])\.default\.weight")


class Clock(TrainerCallback):
    """Writes down when training began and when each optimiser step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


class Recorded:
    """Keeps every loss and gradient norm of a trainer as tensors, so that TRL need not log to be compared."""

    def __init__(self, **options: Any) -> None:
        self.parts: list[Tensor] = []
        self.norms: list[Any] = []
        super().__init__(**options)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.parts.append(loss)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        self.norms.append(norm)
        return norm


class Sft(Recorded, SFTTrainer):
    """SFTTrainer on ready token ids."""


class Dpo(Recorded, DPOTrainer):
    """DPOTrainer on ready token ids."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


class Grpo(Recorded, GRPOTrainer):
    """GRPOTrainer whose answers and advantages are given: only its update is measured."""

    def __init__(self, *, replay: list[dict[str, Tensor]], **options: Any) -> None:
        self.replay = iter(replay)
        super().__init__(**options)

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Tensor]:
        return next(self.replay)


def run(model: PreTrainedModel, adapter: dict[str, Tensor], data: list[Group], plan: Plan) -> Outcome:
    """Train the plan's steps from the given adapter."""
    config = LoraConfig(r=plan.rank, lora_alpha=2 * plan.rank, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
    tuned = get_peft_model(model, config, autocast_adapter_dtype=plan.wide_adapter)
    moving = {_our_name(name): parameter for name, parameter in tuned.named_parameters() if parameter.requires_grad}
    assert moving.keys() == adapter.keys()
    with torch.no_grad():
        for name, parameter in moving.items():
            parameter.copy_(adapter[name])
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        shared = {"model": tuned, "processing_class": _tokenizer(), "callbacks": [clock]}
        trainer = {"sft": _sft, "dpo": _dpo, "grpo": _grpo}[plan.method](data, plan, _options(plan, folder), shared)
        trainer.train()
    pieces = len(trainer.parts) // plan.steps
    losses = torch.stack(trainer.parts).float().reshape(plan.steps, pieces).sum(1).tolist()
    final = {name: parameter.detach().float().clone() for name, parameter in moving.items()}
    return Outcome(losses, [float(norm) for norm in trainer.norms], clock.ends, final)


def _options(plan: Plan, folder: str) -> dict[str, Any]:
    """Settings that all of TRL's trainers share."""
    rows = plan.groups * (ANSWERS[plan.method] if plan.method == "grpo" else 1)
    return {
        "output_dir": folder,
        "max_steps": plan.steps,
        "per_device_train_batch_size": plan.micro,
        "gradient_accumulation_steps": rows // plan.micro,
        "gradient_checkpointing": plan.recompute,
        "bf16": plan.autocast,
        "learning_rate": plan.learning_rate,
        "lr_scheduler_type": "linear",
        "logging_steps": 10**9 if plan.quiet else 10,
        "logging_nan_inf_filter": not plan.quiet,
        "disable_tqdm": plan.quiet,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
    }


def _sft(data: list[Group], plan: Plan, options: dict[str, Any], shared: dict[str, Any]) -> Sft:
    own = {"padding_free": plan.padding_free, "max_length": None, "train_sampling_strategy": "sequential"}
    settings = SFTConfig(**options, **own, dataset_kwargs={"skip_prepare_dataset": True})
    return Sft(args=settings, train_dataset=_rows([group[0] for group in data], plan), **shared)


def _rows(data: Seq[Any], plan: Plan) -> Dataset:
    """Rows in the order of the steps. Inside a step they may be sorted, so that equals are padded together."""
    steps = [list(data[i : i + plan.groups]) for i in range(0, len(data), plan.groups)]
    if plan.grouped:
        steps = [sorted(step, key=lambda s: len(s.tokens)) for step in steps]
    rows = [s for step in steps for s in step]
    labels = [[t if w else -100 for t, w in zip(s.tokens, s.weights, strict=True)] for s in rows]
    return Dataset.from_dict({"input_ids": [s.tokens for s in rows], "labels": labels})


def _dpo(data: list[Group], plan: Plan, options: dict[str, Any], shared: dict[str, Any]) -> Dpo:
    prompt = [sum(not w for w in group[0].weights) for group in data]
    columns = {
        "prompt_ids": [group[0].tokens[:n] for group, n in zip(data, prompt, strict=True)],
        "chosen_ids": [group[0].tokens[n:] for group, n in zip(data, prompt, strict=True)],
        "rejected_ids": [group[1].tokens[n:] for group, n in zip(data, prompt, strict=True)],
    }
    settings = DPOConfig(**options, max_length=None, precompute_ref_log_probs=plan.cached, train_sampling_strategy="sequential")
    return Dpo(args=settings, train_dataset=Dataset.from_dict(columns), **shared)


def _grpo(data: list[Group], plan: Plan, options: dict[str, Any], shared: dict[str, Any]) -> Grpo:
    """The loss is the token mean over the step (TRL's default, "dapo")."""
    n = ANSWERS["grpo"]
    own = {"num_generations": n, "max_completion_length": 256, "beta": 0.0, "loss_type": "dapo", "epsilon": 0.2, "epsilon_high": 0.28}
    settings = GRPOConfig(**options, **own, shuffle_dataset=False)
    replay = []
    for start in range(0, len(data), plan.groups):
        rows = [s for group in data[start : start + plan.groups] for s in group]
        learned = torch.tensor(sum(s.learned for s in rows))
        replay += [_replayed(rows[i : i + plan.micro]) | {"num_items_in_batch": learned} for i in range(0, len(rows), plan.micro)]
    prompts = Dataset.from_dict({"prompt": ["a"] * max(len(data), 1)})
    return Grpo(replay=replay, args=settings, train_dataset=prompts, reward_funcs=_no_reward, **shared)


def _replayed(rows: Seq[Any]) -> dict[str, Tensor]:
    prompt = [torch.tensor(s.tokens[: s.weights.count(0.0)]) for s in rows]
    answer = [torch.tensor(s.tokens[s.weights.count(0.0) :]) for s in rows]
    return {
        "prompt_ids": pad_sequence(prompt, batch_first=True, padding_side="left"),
        "prompt_mask": pad_sequence([torch.ones_like(x) for x in prompt], batch_first=True, padding_side="left"),
        "completion_ids": pad_sequence(answer, batch_first=True),
        "completion_mask": pad_sequence([torch.ones_like(x) for x in answer], batch_first=True),
        "advantages": torch.tensor([s.facts["advantage"][-1] for s in rows]),
        "old_per_token_logps": pad_sequence([torch.tensor(s.facts["old_logp"][s.weights.count(0.0) :]) for s in rows], batch_first=True),
    }


def _no_reward(completions: list[Any], **_: Any) -> list[float]:
    return [0.0] * len(completions)


def _tokenizer() -> PreTrainedTokenizerFast:
    """The trainer asks for one, for its padding only."""
    words = models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), pad_token="<pad>", eos_token="<eos>")


def _our_name(name: str) -> str:
    found = NAME.fullmatch(name)
    assert found is not None, name
    return f"{found['path']}.{found['half'].lower()}"
