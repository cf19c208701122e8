"""`hone env`: what this machine and this installation offer, for people and, with --json, for programs."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from hone import __version__
from hone.cli.style import console, pairs, paragraph
from hone.report.numbers import size

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "datasets", "pydantic", "numpy")
DISTRIBUTION = "hone-llm"


def command(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """This machine: versions, devices, threads, memory, disk, caches, and which extras are installed."""
    found = facts()
    out = console()
    if as_json:
        out.print(json.dumps(found, indent=2, ensure_ascii=False), soft_wrap=True)
        return
    for section, values in found.items():
        paragraph(out, section, style="bold")
        pairs(out, [_shown(name, value) for name, value in values.items()])


def facts() -> dict[str, dict[str, Any]]:
    """Everything, as plain JSON: memory and disk in bytes, None for what the system does not tell."""
    return {"versions": _versions(), "machine": _machine(), "torch": _torch(), "folders": _folders(), "extras": _extras()}


def _versions() -> dict[str, Any]:
    system = {"hone": __version__, "python": platform.python_version(), "system": platform.platform(), "executable": sys.executable}
    return system | {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    from hone.plan.hardware import hardware

    here = hardware()
    gpus = [f"{gpu.name}, {size(gpu.memory)}, {size(gpu.free)} free, driver {gpu.driver}" for gpu in here.gpus]
    return {
        "processor": platform.machine(),
        "cores": here.cores,
        "memory_bytes": here.memory,
        "memory_free_bytes": here.memory_free,
        "disk_free_bytes": here.disk_free,
        "gpus": gpus,
    }


def _torch() -> dict[str, Any]:
    import torch

    gpu = torch.cuda.is_available()
    return {
        "device": "cuda" if gpu else "cpu",
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "processor_instructions": torch.backends.cpu.get_cpu_capability(),
        "bf16_on_gpu": torch.cuda.is_bf16_supported(including_emulation=False) if gpu else None,
        "bf16_on_cpu": _fast_bf16(),
    }


def _fast_bf16() -> str:
    """Every processor computes in bfloat16, but only some are faster at it; this asks by trying."""
    import torch

    from hone.models.probe import cpu_seconds

    ratio = cpu_seconds(torch.float32, 512, 1536) / cpu_seconds(torch.bfloat16, 512, 1536)
    return f"{ratio:.1f} times as fast as float32"


def _folders() -> dict[str, Any]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    models = sum(1 for _ in cache.glob("models--*")) if cache.is_dir() else 0
    return {
        "working": os.getcwd(),
        "hub_cache": str(cache),
        "models_in_cache": models,
        "offline": constants.HF_HUB_OFFLINE,
        "hub_token": os.environ.get("HF_TOKEN") is not None or Path(constants.HF_TOKEN_PATH).exists(),
    }


def _extras() -> dict[str, Any]:
    """Extra -> "present", or what to install. The list is the one in the package's own metadata."""
    from packaging.requirements import Requirement

    missing: dict[str, list[str]] = {}
    wanted = [Requirement(text) for text in _requirements()]
    for extra in _names_of_extras():
        needs = [each.name for each in wanted if each.marker is not None and each.marker.evaluate({"extra": extra})]
        missing[extra] = [name for name in needs if _version(name) is None]
    return {extra: f"missing {', '.join(names)}" if names else "present" for extra, names in missing.items()}


def _requirements() -> list[str]:
    return (metadata.requires(DISTRIBUTION) or []) if _version(DISTRIBUTION) else []


def _names_of_extras() -> list[str]:
    return (metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []) if _version(DISTRIBUTION) else []


def _shown(name: str, value: Any) -> tuple[str, str]:
    """A fact as people read it."""
    label = name.removesuffix("_bytes").replace("_", " ")
    if value is None:
        return label, "none"
    if isinstance(value, bool):
        return label, "yes" if value else "no"
    if isinstance(value, list):
        return label, "; ".join(value) or "none"
    return label, size(value) if name.endswith("_bytes") else str(value)
