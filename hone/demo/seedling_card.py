"""Writes the seedling's model card from its growth: data, steps, loss curve, bits per byte, samples, and how to repeat it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hone.core.files import write_atomically
from hone.rollout.sample import Sampler

BEGINNINGS = ("A guide for visitors, page 12\nThe ", "Contract between Clara Pine and Oscar Vale\n1. ", "Tallowmere Post, Friday, 3 May\n")

CARD = """---
license: apache-2.0
library_name: transformers
tags: [hone, base-model, synthetic]
---
# The seedling

A base model of {parameters:,} parameters in Qwen3's architecture, grown on the papers of Tallowmere, a made-up port town.
It knows the town and nothing else, and has never seen a question with its answer in the chat format. It exists so that
fine-tuning can be shown, tested and measured in two minutes on two CPU cores.

| | |
|---|---|
| shape | {layers} layers, hidden size {hidden}, {heads} heads ({kv} for keys), tied embeddings, context {context} |
| tokenizer | byte-level BPE of {vocabulary:,}, digits one by one, ChatML's special tokens |
| data | `hone.demo.town.Town().documents()`, {tokens:,} tokens in {count} stages |
| optimiser | AdamW, linear to zero, weight decay 0.1; fp32 masters, one or two CPU cores |
| held-out documents | loss {loss:.3f} nats per token, **{bits:.3f} bits per byte** |

## How it grew

{stages}

## What it writes

{samples}

## To grow it again

```
{commands}
python -m hone.demo.seedling_card FOLDER
```

{note}
"""


def write_seedling_card(folder: Path) -> str:
    """The card of the model in `folder`, written beside its weights."""
    stages = json.loads((folder / "growth.json").read_text("utf-8"))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    _, loss, bits = stages[-1]["curve"][-1]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = CARD.format(
        parameters=sum(p.numel() for p in model.parameters()),
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        kv=config["num_key_value_heads"],
        context=config["max_position_embeddings"],
        vocabulary=config["vocab_size"],
        count=len(stages),
        tokens=sum(stage["tokens"] for stage in stages),
        loss=loss,
        bits=bits,
        stages="\n\n".join(_stage(number, stage) for number, stage in enumerate(stages, start=1)),
        samples="\n\n".join(samples(model, AutoTokenizer.from_pretrained(folder))),
        commands="\n".join(stage["command"] for stage in stages),
        note=stages[-1].get("note", ""),
    )
    write_atomically(folder / "README.md", text)
    return text


def _stage(number: int, stage: dict[str, Any]) -> str:
    """One stage: what it read, and its curve."""
    shares = ", ".join(f"{room} {share:.0%}" for room, share in stage.get("shares", {}).items())
    volumes = f"{stage['volumes']} volumes{', of each: ' + shares if shares else ''}"
    head = f"Stage {number}: {stage['tokens']:,} tokens ({volumes}) in {stage['steps']:,} steps"
    rows = "\n".join(f"| {step:,} | {loss:.3f} | {bits:.3f} |" for step, loss, bits in stage["curve"])
    return f"{head}, peak learning rate {stage['learning_rate']:g}.\n\n| step | held-out loss | bits per byte |\n|---:|---:|---:|\n{rows}"


def samples(model: Any, tokenizer: Any) -> list[str]:
    """A continuation of each beginning, sampled at temperature 0.7."""
    prompts = [tokenizer(text)["input_ids"] for text in BEGINNINGS]
    stop = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    answers = Sampler(model, tokenizer).generate(prompts, max_new_tokens=80, temperature=0.7, seed=1, stop_ids=[stop])
    texts = [begin + tokenizer.decode(answer.tokens, skip_special_tokens=True) for begin, answer in zip(BEGINNINGS, answers, strict=True)]
    return ["> " + text.strip().replace("\n", "  \n> ") for text in texts]


if __name__ == "__main__":
    print(write_seedling_card(Path(sys.argv[1])))
