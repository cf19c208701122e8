"""What this machine has: cores, memory, disk and GPUs, asked from the system in milliseconds and without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hone.core.disk import free_bytes

NVIDIA_FIELDS = ("name", "memory.total", "memory.free", "driver_version", "compute_cap")
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU. Memory in bytes; `capability` such as (9, 0)."""

    name: str
    memory: int
    free: int
    driver: str
    capability: tuple[int, int]

    @property
    def bf16(self) -> bool:
        """Whether bfloat16 arithmetic is in the hardware (Ampere and later)."""
        return self.capability >= (8, 0)


@dataclass(frozen=True, slots=True)
class Hardware:
    """Memory and disk in bytes; None where the system does not tell. `cores` are those that this process may use."""

    cores: int
    memory: int | None
    memory_free: int | None
    disk_free: int
    gpus: tuple[Gpu, ...]


def hardware(folder: str | Path = ".") -> Hardware:
    """This machine, with the free space of the disk on which `folder` lies (or will lie)."""
    total, free = memory()
    return Hardware(cores(), total, free, free_bytes(Path(folder)), gpus())


def cores() -> int:
    """Processors that this process may use: its affinity, and the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _first_line("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        allowed = min(allowed, max(1, int(quota[0]) // int(quota[1])))
    return allowed


def memory() -> tuple[int | None, int | None]:
    """(total, free) main memory in bytes, bounded by the container's limit."""
    total, free = _system_memory()
    limit, used = _first_line("/sys/fs/cgroup/memory.max"), _first_line("/sys/fs/cgroup/memory.current")
    if total is not None and limit.isdigit() and int(limit) < total:
        total = int(limit)
        left = total - int(used) if used.isdigit() else total
        free = left if free is None else min(free, left)
    return total, free


def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that this process may use, as nvidia-smi lists them; none where there is no such program."""
    if shutil.which("nvidia-smi") is None:
        return ()
    command = ["nvidia-smi", f"--query-gpu=index,uuid,{','.join(NVIDIA_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpus(answer, os.environ)


def parse_gpus(answer: str, environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The lines of nvidia-smi, in the order that CUDA_VISIBLE_DEVICES asks for."""
    found: dict[str, Gpu] = {}
    for line in answer.splitlines():
        index, uuid, name, total, free, driver, capability = (part.strip() for part in line.split(","))
        if total.isdigit() and free.isdigit():
            major, minor = (int(part) if part.isdigit() else 0 for part in f"{capability}.".split(".")[:2])
            gpu = Gpu(name, int(total) * MIB, int(free) * MIB, driver, (major, minor))
            found[index] = found[uuid] = gpu
    asked = environment.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return tuple(gpu for key, gpu in found.items() if key.isdigit())
    return tuple(found[key.strip()] for key in asked.split(",") if key.strip() in found)


def _system_memory() -> tuple[int | None, int | None]:
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    kib = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in lines) if rest.split()[:1]}
    if "MemTotal" in kib:
        return kib["MemTotal"] * 1024, kib.get("MemAvailable", kib.get("MemFree", 0)) * 1024
    names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
    if "SC_PHYS_PAGES" in names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
    return None, None


def _first_line(path: str) -> str:
    file = Path(path)
    return file.read_text().partition("\n")[0].strip() if file.exists() else ""
