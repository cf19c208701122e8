"""Healthy subjects on tiny models: architectures, methods and objectives that the bugs are put into."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from transformers import (
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from hone.core.types import Conversation, Group, Message, Origin, Sequence
from hone.data.chat import ChatTemplate
from hone.prove import Row, Subject
from hone.prove.shrink import shrink
from hone.recipe.likeness import Likeness, subject_of
from hone.recipe.proving import with_reference
from hone.recipe.settings import resolve

SIZES: dict[str, Any] = {
    "vocab_size": 384, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None,
}  # fmt: skip
SCALED = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
GPT2 = {"vocab_size": 384, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "eos_token_id": 1, "bos_token_id": None}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES, tie_word_embeddings=True),
    "gpt2": lambda: GPT2Config(**GPT2),
    "mistral": lambda: MistralConfig(**SIZES, sliding_window=32),
    "stretched": lambda: LlamaConfig(**SIZES, rope_parameters=SCALED),
    "gemma2": lambda: Gemma2Config(**SIZES, sliding_window=64, final_logit_softcapping=3.0),
}
LORA = {"method": "lora", "rank": 4, "alpha": 12}
SAID = (
    ("When does the harbour open?", "It opens at six, said the baker."),
    ("When does the next ship to the island leave?", "It leaves at half past seven."),
    ("Who said so?", "The baker of the town."),
    ("Does the ship leave the harbour at six?", "No, at half past seven."),
)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("llama", {"tuning": LORA}),
    "clipped": ("llama", {"tuning": LORA, "optim": {"clip": 0.01}}),
    "dropout": ("llama", {"tuning": LORA | {"dropout": 0.3}}),
    "full": ("qwen3", {"tuning": {"method": "full"}, "optim": {"weight_decay": 0.3, "learning_rate": 1e-2}}),
    "small rate": ("llama", {"tuning": {"method": "full"}, "optim": {"learning_rate": 1e-5}}),
    "decomposed": ("llama", {"tuning": LORA | {"init": "pissa"}}),
    "schedule": ("llama", {"tuning": LORA, "optim": {"schedule": "cosine", "warmup_ratio": 0.5, "learning_rate": 1e-3}}),
    "whole": ("qwen3", {"tuning": LORA | {"train": ["lm_head", "embed_tokens"]}}),
    "absolute": ("gpt2", {"tuning": LORA}),
    "window": ("mistral", {"tuning": LORA}),
    "stretched": ("stretched", {"tuning": {"method": "full"}}),
    "softcap": ("gemma2", {"tuning": LORA}),
    "unipelt": ("llama", {"tuning": {"method": "unipelt", "length": 3, "size": 4, "rank": 2}}),
    "adalora": ("llama", {"tuning": {"method": "adalora", "rank": 4, "target_rank": 2, "every": 1}}),
    "bitfit": ("gpt2", {"tuning": {"method": "bitfit"}}),
    "smoothed": ("llama", {"tuning": LORA, "objective": {"name": "sft", "label_smoothing": 0.2}}),
    "dpo": ("qwen3", {"tuning": LORA, "objective": {"name": "dpo"}}),
    "dpo full": ("qwen3", {"tuning": {"method": "full"}, "objective": {"name": "dpo"}}),
    "kto": ("llama", {"tuning": LORA, "objective": {"name": "kto", "beta": 1.0}}),
    "rm": ("llama", {"tuning": LORA, "objective": {"name": "rm"}}),
    "distill": ("llama", {"tuning": LORA, "objective": {"name": "distill", "beta": 0.2}}),
    "grpo": ("llama", {"tuning": LORA, "objective": {"name": "grpo"}, "rollout": {"rewards": "number", "kl": 0.5, "credit": "centred"}}),
    "begun": ("llama", {"tuning": LORA}),
}
"""Name -> configuration, and what its run file says."""


class Kit:
    """Makes each healthy subject once."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.plain, self.begun = tokenizer, copy.deepcopy(tokenizer)
        self.begun.bos_token = "<|endoftext|>"
        self.begun.chat_template = "{{ bos_token }}" + str(tokenizer.chat_template)
        self._made: dict[str, Subject] = {}

    def subject(self, kind: str) -> Subject:
        """The healthy subject of a kind."""
        if kind not in self._made:
            self._made[kind] = self._make(kind)
        return self._made[kind]

    def _make(self, kind: str) -> Subject:
        config, asked = KINDS[kind]
        recipe = resolve({"model": {"name": config}, "data": {"train": "memory.jsonl"}, **asked})
        tokenizer = self.begun if kind == "begun" else self.plain
        template = ChatTemplate.of(tokenizer)
        rows = rows_of(template, recipe.objective.data)
        groups = [_with_facts(row.group, recipe.objective.facts, i) for i, row in enumerate(rows)]
        model = shrink(CONFIGS[config](), seed=1)
        teacher = shrink(CONFIGS[config](), seed=2) if "divergence" in recipe.objective.needs else None
        like = Likeness(recipe=recipe, model=model, tokenizer=tokenizer, template=template, rows=rows, groups=groups, teacher=teacher)
        return subject_of(with_reference(like))


def rows_of(template: ChatTemplate, shape: str) -> list[Row]:
    """Four rows of a shape of data."""
    said = [(Message("user", asked), Message("assistant", told)) for asked, told in SAID]
    others = [(one[0], Message("assistant", SAID[i - 1][1])) for i, one in enumerate(said)]
    talks: list[tuple[Conversation, ...]] = [(one, other) if shape == "pair" else (one,) for one, other in zip(said, others, strict=True)]
    return [_row(template, number, each, shape) for number, each in enumerate(talks, start=1)]


def _row(template: ChatTemplate, number: int, said: tuple[Conversation, ...], shape: str) -> Row:
    facts: dict[str, Any] = {"label": float(number % 2)} if shape == "label" else {}
    group = tuple(Sequence(one.tokens, one.weights, dict(facts), Origin("memory.jsonl", number)) for one in map(template.sequence, said))
    return Row(group, said, fate=sum(one.learned for one in group))


def _with_facts(group: Group, facts: str, number: int) -> Group:
    """What an objective must know of answers that a model wrote."""
    for one in group if "advantage_N" in facts else ():
        one.facts |= {"advantage": [1.0 - 2.0 * (number % 2)] * len(one.tokens), "old_logp": [-3.0] * len(one.tokens)}
    for one in group if "margin_S" in facts else ():
        one.facts |= {"margin": 0.0}
    return group
