"""`--to vllm` and `--to openwebui`: the folder that a server takes, and the exact lines that start it."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

from hone.core.errors import HoneError
from hone.core.files import write_atomically
from hone.export.adapter import Adapter, unknown_to_vllm
from hone.export.base import TARGETS, Artifact, Order
from hone.export.merged import Merged
from hone.export.papers import FolderTarget
from hone.tuning.folder import CONFIG

PORT = 8000
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


class _Served(FolderTarget):
    """The merged model, or the adapter on its base."""

    quants: tuple[str, ...] = ("merged", "adapter")

    def needed(self, order: Order) -> int:
        target, inner = _inner(order)
        return target.needed(inner)


@TARGETS.add("vllm")
class Vllm(_Served):
    """A folder for vLLM and its command line: by default the merged model, with --quant adapter the adapter on its base."""

    def fill(self, stage: Path, order: Order, hashes: dict[str, str]) -> Artifact:
        target, inner = _inner(order)
        made = target.fill(stage, inner, hashes)
        lines = vllm_lines(order, stage)
        script = ["#!/bin/sh", "# Serves this model over OpenAI's protocol.", 'cd "$(dirname "$0")/.." || exit 1', f"exec {lines[0]}", ""]
        write_atomically(stage / "serve.sh", "\n".join(script))
        return replace(made, target="vllm", commands=lines)


@TARGETS.add("openwebui")
class OpenWebUi(_Served):
    """Open WebUI in front of hone's own server: both command lines, and the model that they serve."""

    def fill(self, stage: Path, order: Order, hashes: dict[str, str]) -> Artifact:
        target, inner = _inner(order)
        made = target.fill(stage, inner, hashes)
        lines = (
            "export HONE_API_KEY=$(openssl rand -hex 24)",
            f"hone serve {shlex.quote(order.folder.name)} --port {PORT} &",
            f"OPENAI_API_BASE_URL=http://127.0.0.1:{PORT}/v1 OPENAI_API_KEY=$HONE_API_KEY open-webui serve --port 8080",
        )
        notes = ("two programs in one terminal: hone answers, Open WebUI asks it at http://127.0.0.1:8080; `kill %1` ends hone",)
        return replace(made, target="openwebui", commands=lines, notes=(*made.notes, *notes))


def _inner(order: Order) -> tuple[Adapter | Merged, Order]:
    """The target that writes the folder."""
    if order.quant == "adapter":
        _check_low_rank(order.source.adapter)
        return Adapter(), replace(order, quant="")
    return Merged(), replace(order, quant=Merged.quants[0])


def _check_low_rank(adapter: Path | None) -> None:
    """M103 for an adapter that holds more than vLLM adds: it knows low-rank matrices of linear layers only."""
    if adapter is not None and (more := unknown_to_vllm(adapter)):
        what = f"the adapter has {more[0]}, which vLLM does not load beside a base"
        raise HoneError("M103", what, where="--quant adapter", fix="export the merged model: leave --quant out")


def vllm_lines(order: Order, folder: Path) -> tuple[str, str]:
    """What starts vLLM, and what asks it."""
    source, word = order.source, shlex.quote(order.folder.name)
    length = f"--max-model-len {source.context}"
    if order.quant == "adapter":
        base = shlex.quote(source.base["name"])
        serve = f"vllm serve {base} --enable-lora --max-lora-rank {_rank(folder)} --lora-modules {source.name}={word} {length}"
    else:
        serve = f"vllm serve {word} --served-model-name {source.name} {length}"
    return serve, f"hone verify http://127.0.0.1:{PORT} --golden {word} --model {source.name}"


def _rank(folder: Path) -> int:
    """The smallest rank that vLLM can be told which holds the adapter's."""
    rank = int(json.loads((folder / CONFIG).read_text("utf-8")).get("r", 16))
    return next((size for size in RANKS if size >= rank), rank)
