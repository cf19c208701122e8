"""`--to adapter`: the small file beside the base, in peft's format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from hone.core.errors import HoneError
from hone.export.base import TARGETS, Artifact, Order
from hone.export.papers import FolderTarget, write_tokenizer

SLACK = 64 << 20
"""Tokenizer, certificate and papers."""
FILES = ("adapter_config.json", "adapter_model.safetensors")


@TARGETS.add("adapter")
class Adapter(FolderTarget):
    """A copy of the adapter with tokenizer, template and certificate. Serves on top of the base that it was trained on."""

    quants: tuple[str, ...] = ("",)

    def needed(self, order: Order) -> int:
        source = order.source
        if source.adapter is None:
            what = f"'{source.name}' was trained with {source.method}, which leaves a whole model and no adapter"
            raise HoneError("F045", what, where="--to adapter", fix="use --to merged, which is the whole model")
        return SLACK + sum((source.adapter / name).stat().st_size for name in FILES)

    def fill(self, stage: Path, order: Order, hashes: dict[str, str]) -> Artifact:
        source = order.source
        assert source.adapter is not None
        base, word = source.base.get("name", "BASE"), order.folder.name
        write_tokenizer(stage, source)
        for name in FILES:
            shutil.copyfile(source.adapter / name, stage / name)
        note = f"it was trained on its base in {source.scheme}, which is what it fits: hone and peft quantise it again when asked to"
        bits = " --quantization bitsandbytes" if source.scheme is not None else ""
        served = f"vllm serve {base} --enable-lora{bits} --lora-modules {source.name}=./{word}"
        return Artifact(
            target="adapter",
            path=order.folder,
            what=f"An adapter for `{Path(base).name if Path(base).exists() else base}`.",
            commands=(f"hone chat {word}",) if unknown_to_vllm(stage) else (f"hone chat {word}", served),
            notes=(note,) if source.scheme is not None else (),
        )


def unknown_to_vllm(folder: Path) -> list[str]:
    """What of an adapter vLLM does not add to a base, by peft's names: it knows low-rank matrices of linear layers."""
    config = json.loads((folder / FILES[0]).read_text("utf-8"))
    wrong = ["peft_type"] if config.get("peft_type") != "LORA" else []
    return wrong + [key for key in ("modules_to_save", "trainable_token_indices", "target_parameters") if config.get(key)]
