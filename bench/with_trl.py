"""TRL's SFTTrainer as a contender: the same ids, order, adapter and hyper-parameters."""

from __future__ import annotations

import re
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback
from trl import SFTConfig, SFTTrainer

from bench.workload import SAMPLES_PER_STEP, Outcome, Plan
from hone.core.types import Sequence

NAME = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<half>[AB])\.default\.weight")


class Clock(TrainerCallback):
    """Writes down when training began and when each optimiser step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


class Recorded(SFTTrainer):
    """SFTTrainer that keeps every loss and gradient norm as tensors, so that TRL need not log to be compared."""

    def __init__(self, **options: Any) -> None:
        self.parts: list[Tensor] = []
        self.norms: list[Any] = []
        super().__init__(**options)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        self.parts.append(loss)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.norms.append(norm)
        return norm


def run(model: PreTrainedModel, adapter: dict[str, Tensor], data: list[Sequence], plan: Plan) -> Outcome:
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
        trainer = Recorded(
            model=tuned, args=_settings(plan, folder), train_dataset=_dataset(data, plan), processing_class=_tokenizer(), callbacks=[clock]
        )
        trainer.train()
    pieces = len(trainer.parts) // plan.steps
    losses = torch.stack(trainer.parts).float().reshape(plan.steps, pieces).sum(1).tolist()
    final = {name: parameter.detach().float().clone() for name, parameter in moving.items()}
    return Outcome(losses, [float(norm) for norm in trainer.norms], clock.ends, final)


def _settings(plan: Plan, folder: str) -> SFTConfig:
    return SFTConfig(
        output_dir=folder,
        max_steps=plan.steps,
        per_device_train_batch_size=plan.micro,
        gradient_accumulation_steps=SAMPLES_PER_STEP // plan.micro,
        gradient_checkpointing=plan.recompute,
        bf16=plan.autocast,
        padding_free=plan.padding_free,
        max_length=None,
        learning_rate=plan.learning_rate,
        lr_scheduler_type="linear",
        train_sampling_strategy="sequential",
        logging_steps=10**9 if plan.quiet else 10,
        logging_nan_inf_filter=not plan.quiet,
        disable_tqdm=plan.quiet,
        save_strategy="no",
        report_to="none",
        dataset_kwargs={"skip_prepare_dataset": True},
        use_cpu=True,
    )


def _dataset(data: list[Sequence], plan: Plan) -> Dataset:
    """Rows in the order of the steps. Inside a step they may be sorted, so that equals are padded together."""
    steps = [data[i : i + SAMPLES_PER_STEP] for i in range(0, len(data), SAMPLES_PER_STEP)]
    if plan.grouped:
        steps = [sorted(step, key=lambda s: len(s.tokens)) for step in steps]
    rows = [s for step in steps for s in step]
    labels = [[t if w else -100 for t, w in zip(s.tokens, s.weights, strict=True)] for s in rows]
    return Dataset.from_dict({"input_ids": [s.tokens for s in rows], "labels": labels})


def _tokenizer() -> PreTrainedTokenizerFast:
    """The trainer asks for one, for its padding only."""
    words = models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), pad_token="<pad>", eos_token="<eos>")


def _our_name(name: str) -> str:
    found = NAME.fullmatch(name)
    assert found is not None, name
    return f"{found['path']}.{found['half'].lower()}"
