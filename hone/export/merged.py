"""`--to merged`: the adapter folded into its base, added in fp32 and rounded once, as a folder that everything loads."""

from __future__ import annotations

from pathlib import Path

import torch

from hone.core.errors import HoneError
from hone.export.adapter import SLACK
from hone.export.base import TARGETS, Artifact, Order
from hone.export.packed import PackedWeights, paths_of
from hone.export.papers import FolderTarget, write_config, write_tokenizer
from hone.export.quantised import head_path
from hone.export.shards import needed_bytes, write_weights
from hone.export.tensors import Weights
from hone.models.quantise import available
from hone.plan.packed import Scheme, config_of

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
PACKED = {"nf4": Scheme("nf4", double=True), "fp4": Scheme("fp4", double=True), "int8": Scheme("int8")}
"""Quantised on the way, one matrix at a time, in bitsandbytes' layout."""


AGAIN = "packed again, a change of less than half a step between two values is rounded away: trust the check, not the training"


@TARGETS.add("merged")
class Merged(FolderTarget):
    """A whole model in safetensors. By default each tensor keeps the type that it has in the base."""

    quants: tuple[str, ...] = ("as-base", *DTYPES, *PACKED)

    def needed(self, order: Order) -> int:
        quant = order.quant
        if quant in PACKED:
            _check_bitsandbytes(quant)
        return SLACK + needed_bytes(written(order), DTYPES.get(quant))

    def fill(self, stage: Path, order: Order, hashes: dict[str, str]) -> Artifact:
        source, word = order.source, order.folder.name
        hashes |= write_model(stage, order)
        bits = f", in {PACKED[order.quant]}" if order.quant in PACKED else ""
        rounded = f"the base was quantised to {source.scheme} for the training, so what is folded into are its rounded weights: beside the "
        rounded += "change, they differ from those of the 16-bit base"
        return Artifact(
            target="merged",
            path=order.folder,
            what=f"A whole model: the trained change is folded into the base's weights{bits}.",
            commands=(f"hone chat {word}", f"vllm serve ./{word} --served-model-name {source.name}"),
            notes=(rounded, *([AGAIN] if order.quant in PACKED else [])) if source.scheme is not None else (),
        )


def write_model(stage: Path, order: Order) -> dict[str, str]:
    """config.json, tokenizer and weights; returns the hashes that are known from the writing."""
    source, dtype = order.source, DTYPES.get(order.quant)
    weights = source.weights()
    kept = dtype or weights.dtype(weights.names()[0])
    quantised = config_of(PACKED[order.quant], head_path(source.base_folder)) if order.quant in PACKED else None
    write_config(stage, source, str(kept).removeprefix("torch."), quantised=quantised)
    write_tokenizer(stage, source)
    return write_weights(stage, written(order), dtype=dtype, tell=order.tell)


def written(order: Order) -> Weights:
    """The trained weights as they are to lie in the files."""
    weights = order.source.weights()
    scheme = PACKED.get(order.quant)
    return weights if scheme is None else PackedWeights(weights, scheme, paths_of(order.source.base_folder, scheme))


def _check_bitsandbytes(quant: str) -> None:
    if not available():
        fix = "pip install 'hone-llm[quant]', or use --quant bf16, or --to gguf --quant Q4_K_M"
        raise HoneError("F044", f"weights in {quant} are made by bitsandbytes, which is not installed", where=f"--quant {quant}", fix=fix)
