"""`--to vllm` and `--to openwebui`: the folder that a server takes, and the exact lines that start it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from hone.core.files import write_atomically
from hone.export.adapter import Adapter
from hone.export.base import TARGETS, Artifact, Order
from hone.export.merged import Merged

PORT = 8000


@TARGETS.add("vllm")
class Vllm:
    """A folder for vLLM and its command line: the adapter on its base (--quant adapter), or by default the merged model."""

    quants: tuple[str, ...] = ("merged", "adapter")

    def needed(self, order: Order) -> int:
        target, inner = _inner(order)
        return target.needed(inner)

    def write(self, order: Order) -> Artifact:
        target, inner = _inner(order)
        made = target.write(inner)
        lines = vllm_lines(order, made.path)
        write_atomically(
            made.path / "serve.sh",
            "\n".join(["#!/bin/sh", "# Serves this model over OpenAI's protocol.", 'cd "$(dirname "$0")/.."', lines[0], ""]),
        )
        return replace(made, target="vllm", commands=tuple(lines))


@TARGETS.add("openwebui")
class OpenWebUi:
    """Open WebUI in front of hone's own server: both command lines, and the merged model that they serve."""

    quants: tuple[str, ...] = ("merged", "adapter")

    def needed(self, order: Order) -> int:
        target, inner = _inner(order)
        return target.needed(inner)

    def write(self, order: Order) -> Artifact:
        target, inner = _inner(order)
        made = target.write(inner)
        lines = (
            f"hone serve {shlex.quote(str(made.path))} --port {PORT}",
            f"OPENAI_API_BASE_URL=http://127.0.0.1:{PORT}/v1 OPENAI_API_KEY=$HONE_API_KEY open-webui serve --port 8080",
        )
        text = "\n".join(
            ["# Open WebUI", "", "Two programs, each in its own terminal. The second asks the first.", "", "```bash", *lines, "```", ""]
        )
        write_atomically(made.path / "OPENWEBUI.md", text)
        return replace(made, target="openwebui", commands=lines)


def _inner(order: Order) -> tuple[Adapter | Merged, Order]:
    """The target that writes the folder."""
    if order.quant == "adapter":
        return Adapter(), replace(order, quant="")
    return Merged(), replace(order, quant=Merged.quants[0])


def vllm_lines(order: Order, folder: Path) -> list[str]:
    """What starts vLLM, and what asks it."""
    source, word = order.source, shlex.quote(folder.name)
    length = f"--max-model-len {source.context}"
    if order.quant == "adapter":
        base = shlex.quote(source.base["name"])
        serve = f"vllm serve {base} --enable-lora --max-lora-rank {_rank(order)} --lora-modules {source.name}={word} {length}"
    else:
        serve = f"vllm serve {word} --served-model-name {source.name} {length}"
    return [serve, f"hone verify http://127.0.0.1:{PORT} --golden {word} --model {source.name}"]


def _rank(order: Order) -> int:
    """The smallest rank that vLLM can be told which holds the adapter's."""
    import json

    assert order.source.adapter is not None
    rank = json.loads((order.source.adapter / "adapter_config.json").read_text("utf-8")).get("r", 16)
    return next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), rank)
