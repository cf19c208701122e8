"""The benchmark's bench: fresh child processes, the machine's facts, medians and a table."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
IDLE_LOAD = 0.3


def machine() -> dict[str, Any]:
    """lscpu's main lines, versions, load."""
    text = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    pairs = [line.partition(":") for line in text.splitlines()]
    cpu = {key.strip(): value.strip() for key, _, value in pairs}
    shown = ("Architecture", "CPU(s)", "Model name", "CPU family", "Model", "Thread(s) per core", "L2 cache", "L3 cache", "Flags")
    return {
        "lscpu": {key: cpu[key] for key in shown if key in cpu},
        "versions": {"python": platform.python_version(), "hone": _hone_version()} | {name: version(name) for name in PACKAGES},
        "load_average": os.getloadavg(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _hone_version() -> str:
    import hone

    return hone.__version__


def wait_until_idle(seconds: float) -> float:
    """The load average of the last minute, after waiting up to so long for it to fall."""
    end = time.monotonic() + seconds
    while os.getloadavg()[0] >= IDLE_LOAD and time.monotonic() < end:
        time.sleep(5)
    return os.getloadavg()[0]


def idle(*, busy: bool) -> float:
    """The load average before a measurement; exits where other programs are running, unless `busy` allows it."""
    load = wait_until_idle(0 if busy else 180)
    if load >= IDLE_LOAD and not busy:
        sys.exit(f"the machine is busy (load average {load:.2f}, wanted below {IDLE_LOAD}); wait, or pass --busy")
    return load


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("this system has no VmHWM")


def in_child(module: str, job: Path, threads: int) -> float:
    """Seconds that `python -m module --child job` takes in a fresh process, imports and all. Its output goes beside the job."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", module, "--child", str(job)]
    log = job.with_suffix(".log")
    started = time.perf_counter()
    with log.open("w") as out:
        done = subprocess.run(command, env=env, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        sys.exit(f"{job.name} failed:\n{log.read_text()[-4000:]}")
    return time.perf_counter() - started


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median and range."""
    values = list(values)
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Columns as wide as their widest cell; the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in (header, *rows)]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def save(name: str, result: dict[str, Any]) -> Path:
    """Raw figures into bench/results/<name>-<date>.json."""
    file = ROOT / "bench" / "results" / f"{name}-{time.strftime('%Y-%m-%d-%H%M')}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n")
    return file
