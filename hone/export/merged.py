"""`--to merged`: the adapter folded into its base, added in fp32 and rounded once, as a folder that everything loads."""

from __future__ import annotations

from pathlib import Path

import torch

from hone.core.errors import HoneError
from hone.export.adapter import SLACK
from hone.export.base import TARGETS, Artifact, Order
from hone.export.papers import FolderTarget, write_config, write_tokenizer
from hone.export.shards import needed_bytes, write_weights

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
FOUR_BIT = "4bit"


@TARGETS.add("merged")
class Merged(FolderTarget):
    """A whole model in safetensors. By default each tensor keeps the type that it has in the base."""

    quants: tuple[str, ...] = ("as-base", *DTYPES, FOUR_BIT)

    def needed(self, order: Order) -> int:
        source, quant = order.source, order.quant
        if quant == FOUR_BIT:
            _bitsandbytes()
        whole = needed_bytes(source.weights(), DTYPES.get(quant))
        return SLACK + (2 * whole if quant == FOUR_BIT else whole)

    def fill(self, stage: Path, order: Order, hashes: dict[str, str]) -> Artifact:
        source, word = order.source, order.folder.name
        hashes |= write_model(stage, order)
        bits = ", in 4 bits (NF4)" if order.quant == FOUR_BIT else ""
        return Artifact(
            target="merged",
            path=order.folder,
            what=f"A whole model: the trained change is folded into the base's weights{bits}.",
            commands=(f"hone chat {word}", f"vllm serve ./{word} --served-model-name {source.name}"),
        )


def write_model(stage: Path, order: Order) -> dict[str, str]:
    """config.json, tokenizer and weights; returns the hashes that are known from the writing."""
    source, dtype = order.source, DTYPES.get(order.quant)
    weights = source.weights()
    kept = dtype or weights.dtype(weights.names()[0])
    write_config(stage, source, str(kept).removeprefix("torch."))
    write_tokenizer(stage, source)
    hashes = write_weights(stage, weights, dtype=dtype, tell=order.tell)
    if order.quant == FOUR_BIT:
        _four_bits(stage)
        return {}
    return hashes


def _bitsandbytes() -> None:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        fix = "pip install 'hone-llm[quant]', or use --quant bf16, or --to gguf --quant Q4_K_M"
        raise HoneError("F044", "4-bit weights are made by bitsandbytes, which is not installed", where="--quant 4bit", fix=fix) from None


def _four_bits(folder: Path) -> None:
    """Read the merged model into NF4 with double quantisation, and save it in the place of the wide one."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantised = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantised, local_files_only=True, use_safetensors=True)
    for file in folder.glob("model*.safetensors*"):
        file.unlink()
    model.save_pretrained(folder)
