"""Devices by name: memory, speed and power, for plans on a machine that is not this one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hone.core.errors import HoneError
from hone.core.registry import nearest
from hone.plan.hardware import Hardware

GIB = 2**30
CORE_FLOPS = 20e9
"""Operations a second that training reaches on one core with AVX2 in fp32; the seedling's bench gives 15 to 30 GFLOP/s."""
CORE_WATTS = 12.0
CUDA_SHARE = 0.97
"""Share of a GPU's memory that can be used; the driver keeps the rest."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a run is planned to be. Memory in bytes; `flops` is dense 16-bit matrix arithmetic a second, None if unknown."""

    name: str
    device: str
    memory: int
    flops: float | None
    watts: float | None
    utilisation: float = 0.35
    """Share of `flops` that training reaches."""
    bf16: bool = True

    @property
    def usable(self) -> int:
        """Bytes that a run may take."""
        return int(self.memory * (CUDA_SHARE if self.device == "cuda" else 0.95))


def _gpu(name: str, gigabytes: float, teraflops: float, watts: float, *, bf16: bool = True) -> Machine:
    return Machine(name, "cuda", int(gigabytes * GIB), teraflops * 1e12, watts, bf16=bf16)


GPUS = {
    "t4": _gpu("T4", 14.6, 65, 70, bf16=False),
    "v100": _gpu("V100", 32, 125, 300, bf16=False),
    "l4": _gpu("L4", 22.5, 121, 72),
    "a10g": _gpu("A10G", 22.5, 70, 150),
    "rtx3060": _gpu("RTX 3060", 12, 25, 170),
    "rtx3090": _gpu("RTX 3090", 24, 71, 350),
    "rtx4090": _gpu("RTX 4090", 24, 165, 450),
    "rtx5090": _gpu("RTX 5090", 32, 210, 575),
    "a6000": _gpu("RTX A6000", 48, 155, 300),
    "l40s": _gpu("L40S", 45, 362, 350),
    "a100-40": _gpu("A100 40 GB", 39.5, 312, 400),
    "a100": _gpu("A100 80 GB", 79.2, 312, 400),
    "h100": _gpu("H100", 79.6, 989, 700),
    "h200": _gpu("H200", 139.8, 989, 700),
    "b200": _gpu("B200", 178, 2250, 1000),
}
"""Makers' data sheets: memory as the driver shows it, dense 16-bit matrix arithmetic, board power."""


def named(text: str) -> Machine:
    """A machine by name (h100), by its memory (24GB), or `cpu:16GB`. Raises C003 for a name that nobody knows."""
    cpu, _, rest = text.partition(":")
    size = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(gb|gib|g)", (rest if cpu.lower() == "cpu" else text).strip().lower())
    if size is not None and cpu.lower() == "cpu":
        return Machine(f"CPU with {size[1]} GB", "cpu", int(float(size[1]) * 1e9), CORE_FLOPS * 4, CORE_WATTS * 4, 1.0)
    if size is not None:
        return Machine(f"a GPU with {size[1]} GB", "cuda", int(float(size[1]) * 1e9), None, None)
    key = re.sub(r"[^a-z0-9]", "", text.lower()).removeprefix("nvidia").removesuffix("80gb").removesuffix("gb")
    plain = {re.sub(r"[^a-z0-9]", "", name): machine for name, machine in GPUS.items()}
    found = plain.get(key) or plain.get(f"rtx{key}")
    if found is None:
        raise HoneError("C003", f"no GPU is called '{text}' here", where="--gpu", fix=f"{nearest(text, GPUS)} or its memory, as in 24GB")
    return found


def here(hardware: Hardware, device: str = "auto") -> Machine:
    """This machine: its first GPU if there is one and it is wanted, else its processor."""
    if hardware.gpus and device in ("auto", "cuda"):
        gpu = hardware.gpus[0]
        known = next((one for one in GPUS.values() if re.search(rf"\b{_model(one.name)}\b", gpu.name.lower())), None)
        flops, watts = (known.flops, known.watts) if known else (None, None)
        return Machine(gpu.name, "cuda", gpu.free, flops, watts, bf16=gpu.bf16)
    free = hardware.memory_free or hardware.memory or 8 * 10**9
    cores = hardware.cores
    return Machine(f"{cores} CPU core{'s' * (cores != 1)}", "cpu", free, CORE_FLOPS * cores, CORE_WATTS * cores, 1.0, bf16=False)


def _model(name: str) -> str:
    """The word that tells a GPU from others: "RTX 4090" is 4090, "A100 80 GB" a100."""
    return next(word for word in name.lower().split() if re.search(r"\d", word))
