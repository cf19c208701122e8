"""Which floating-point type the weights are loaded in, and on which device, each with its reason."""

from __future__ import annotations

import os

import torch

from hone.core.errors import HoneError
from hone.core.registry import nearest
from hone.models.probe import cpu_seconds
from hone.plan.hardware import memory
from hone.plan.shapes import ModelFacts

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
DTYPES |= {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
WHERE = "hardware.device"
WORTH = 1.15
"""bfloat16 has 8 bits of precision against 24, so it must be clearly faster to be chosen for speed alone."""
ROOM = 1.6
"""Memory to have, in multiples of the float32 weights, before they are called a fit."""


def choose_device(name: str) -> torch.device:
    """The device to train on: "auto" is the GPU where there is one. Raises M020 for one that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise HoneError("M020", f"'{name}' is no device", where=WHERE, fix="use auto, cpu, cuda or mps") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        why = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no GPU; does nvidia-smi see one?"
        raise HoneError("M020", f"there is no GPU to use: {why}", where=WHERE, fix=f"set {WHERE}=cpu to train on the processor")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise HoneError("M020", f"there is no GPU number {device.index}", where=WHERE, fix=f"this machine has {torch.cuda.device_count()}")
    return device


def choose_dtype(name: str, device: torch.device, facts: ModelFacts) -> tuple[torch.dtype, str]:
    """(type, reason). A name is obeyed; "auto" asks the environment (HONE_DTYPE), then the hardware."""
    if name != "auto":
        return _named(name, "hardware.dtype"), "as asked"
    override = os.environ.get("HONE_DTYPE", "")
    if override:
        return _named(override, "HONE_DTYPE"), "as HONE_DTYPE says"
    return _on_gpu(device, facts) if device.type == "cuda" else _on_cpu(device, facts)


def _named(name: str, where: str) -> torch.dtype:
    if name not in DTYPES:
        raise HoneError("M020", f"'{name}' is no type to load weights in", where=where, fix=nearest(name, ["auto", *DTYPES]))
    return DTYPES[name]


def _on_gpu(device: torch.device, facts: ModelFacts) -> tuple[torch.dtype, str]:
    gpu = torch.cuda.get_device_name(device)
    if torch.cuda.get_device_capability(device) >= (8, 0) or (torch.version.hip is not None and torch.cuda.is_bf16_supported()):
        return torch.bfloat16, f"{gpu} computes in it"
    if torch.cuda.mem_get_info(device)[0] > ROOM * 4 * facts.parameters:
        return torch.float32, f"{gpu} has no bfloat16, and the model fits in float32"
    return torch.float16, f"{gpu} has no bfloat16, and the model does not fit in float32"


def _on_cpu(device: torch.device, facts: ModelFacts) -> tuple[torch.dtype, str]:
    if device.type != "cpu":
        return torch.float32, f"the safe choice on {device.type}"
    free = memory()[1]
    if free is not None and free < ROOM * 4 * facts.parameters:
        return torch.bfloat16, f"float32 weights need {4 * facts.parameters / 1e9:.1f} GB and {free / 1e9:.1f} GB are free"
    sizes = (facts.hidden, facts.intermediate)
    ratio = cpu_seconds(torch.float32, *sizes) / cpu_seconds(torch.bfloat16, *sizes)
    faster, slower, times = ("bfloat16", "float32", ratio) if ratio >= 1 else ("float32", "bfloat16", 1 / ratio)
    reason = f"{faster} is {times:.1f} times as fast as {slower} on this processor at hidden size {facts.hidden}"
    return (torch.bfloat16, reason) if ratio >= WORTH else (torch.float32, reason)
