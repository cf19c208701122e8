"""A quantised copy of a model: read and packed one matrix at a time, in the layout that transformers, peft and vLLM load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.core.disk import check_output
from hone.core.files import staged_folder, write_atomically
from hone.export.packed import PackedWeights, paths_of
from hone.export.shards import needed_bytes, write_weights
from hone.export.tensors import StoredWeights, total_bytes
from hone.models.skeleton import skeleton
from hone.plan.packed import Scheme, config_of
from hone.plan.shapes import read_json

LEFT = ("config.json", "README.md", "model.safetensors.index.json", "golden.json", "golden.safetensors")
"""Files of the source that are written anew, or that tell of the plain model."""
SLACK = 64 << 20
"""Bytes of tokenizer and papers."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was made."""

    folder: Path
    nbytes: int
    """Of all weights."""
    plain_bytes: int
    """Of the source's."""


def head_path(folder: Path) -> str:
    """What the model in a folder calls its head."""
    model = skeleton(folder)
    head = model.get_output_embeddings()  # type: ignore[operator]
    return next((path for path, module in model.named_modules() if module is head), "lm_head")


def write_quantised(source: Path, out: Path, scheme: Scheme, *, papers: dict[str, str], tell: Callable[[str], None]) -> Written:
    """Write the model of a folder, quantised, under its final name only when it is whole. `papers` are further files by name.

    Memory is that of the largest matrix. Raises M088 without bitsandbytes, F001 or F002 where it cannot be written.
    """
    base = StoredWeights(source)
    weights = PackedWeights(base, scheme, paths_of(source, scheme))
    check_output(out, SLACK + needed_bytes(weights, None))
    hashes: dict[str, str] = {}
    with staged_folder(out, hashes=hashes) as stage:
        copy_papers(source, stage)
        config: dict[str, Any] = read_json(source / "config.json") | {"quantization_config": config_of(scheme, head_path(source))}
        write_atomically(stage / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        hashes |= write_weights(stage, weights, tell=tell)
        for name, text in papers.items():
            write_atomically(stage / name, text)
    return Written(out, total_bytes(weights), total_bytes(base))


def copy_papers(source: Path, stage: Path) -> None:
    """Tokenizer, template, generation settings and licence; nothing that holds weights or tells of them."""
    for file in source.iterdir():
        weights = file.suffix in (".safetensors", ".bin", ".pt", ".pth", ".gguf")
        if file.is_file() and not weights and file.name not in LEFT and not file.name.startswith("."):
            shutil.copyfile(file, stage / file.name)
