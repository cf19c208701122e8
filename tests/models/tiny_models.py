"""Tiny real models of several families, and ways to damage them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

WORDS = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(45))]
SIZES = {
    "llama": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True},
    "gemma3_text": {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 16},
    "gpt2": {"n_inner": 64, "n_positions": 64},
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 4},
    "phi3": {"num_key_value_heads": 2, "pad_token_id": 0},
}
COMMON = {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": 2}


def make_model(folder: Path, family: str = "llama", seed: int = 0, **changes: Any) -> Path:
    """A random model of a family with its tokenizer, saved as transformers saves it."""
    torch.manual_seed(seed)
    sizes = COMMON if family == "gpt2" else COMMON | {"intermediate_size": 64, "max_position_embeddings": 64}
    config = CONFIG_MAPPING[family](**(sizes | SIZES[family] | changes))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_tokenizer(folder, WORDS)
    return folder


def make_tokenizer(folder: Path, words: list[str], **special: Any) -> None:
    """A tokenizer of whole words."""
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=raw, **({"unk_token": "<unk>", "eos_token": "</s>"} | special)).save_pretrained(folder)


def edit_json(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file; a key set to `...` is removed."""
    kept = json.loads(file.read_text("utf-8")) | changes
    file.write_text(json.dumps({key: value for key, value in kept.items() if value is not ...}), "utf-8")


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the dictionary of stored tensors."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def split(folder: Path) -> None:
    """Save a model's weights again in several files."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert not (folder / "model.safetensors").exists()
