"""Builds and calls the fused CPU kernels of `cpu.c` and `llama.c`. Where there is no C compiler, their torch twins do the work.

A library is compiled once for each kind of processor (about two seconds) into the user's cache, and shares torch's
own OpenMP threads. `HONE_KERNELS=0` turns it off.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

_FOLDER = Path(__file__).parent
_FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-shared", "-fPIC", "-fopenmp", "-fno-math-errno")
_FLAGS_MATH = ("-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros", "-freciprocal-math")
_SUFFIX = {torch.bfloat16: "bf16", torch.float32: "f32"}

Arg = Tensor | int | float


@cache
def library(source: str, suffix: str = "f32") -> ctypes.CDLL | None:
    """The compiled functions of a C file for one storage type, or None where they cannot be built or are turned off."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    threads = Path(torch.__file__).parent / "lib" / "libgomp.so.1"
    if os.environ.get("HONE_KERNELS") == "0" or compiler is None or not threads.exists():
        return None
    built = _cache_folder() / f"{source}-{suffix}-{_fingerprint(compiler, source)}.so"
    if not built.exists() and not _build([compiler, str(_FOLDER / f"{source}.c")], suffix, threads, built):
        return None
    return ctypes.CDLL(str(built))


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "hone" / "kernels"


def _fingerprint(compiler: str, source: str) -> str:
    """What a build depends on: source, flags, compiler and processor."""
    info = Path("/proc/cpuinfo")
    processor = (
        next((line for line in info.read_text().splitlines() if line.startswith("flags")), "") if info.exists() else platform.processor()
    )
    texts = [(_FOLDER / name).read_text("utf-8") for name in (f"{source}.c", "exponential.h")]
    parts = (*texts, *_FLAGS, *_FLAGS_MATH, compiler, processor, torch.__version__)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _build(compiler: list[str], suffix: str, threads: Path, built: Path) -> bool:
    """Compile into place; processes that race for it write the same bytes, and the last rename wins."""
    try:
        built.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=built.parent) as folder:
            stage = Path(folder) / built.name
            define = ["-DBF16"] if suffix == "bf16" else []
            command = [*compiler, *_FLAGS, *_FLAGS_MATH, *define, "-o", str(stage), str(threads), "-lm"]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            stage.replace(built)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def kernel(name: str, sample: Tensor) -> Callable[..., None] | None:
    """A fused kernel for tensors like `sample`, or None: then the caller's twin in torch computes the same.

    Arguments are contiguous tensors, whole numbers (C long) and floats (C float), in the order of `cpu.c`.
    """
    suffix = _SUFFIX.get(sample.dtype)
    if suffix is None or sample.device.type != "cpu":
        return None
    found = library("cpu", suffix)
    return None if found is None else _function(found, f"{name}_{suffix}")


@cache
def _function(built: ctypes.CDLL, name: str) -> Callable[..., None]:
    symbol = built[name]
    symbol.restype = None

    def call(*args: Arg) -> None:
        symbol(*(_pass(arg) for arg in args))

    return call


def _pass(arg: Arg) -> ctypes.c_void_p | ctypes.c_long | ctypes.c_float:
    if isinstance(arg, Tensor):
        assert arg.is_contiguous()
        return ctypes.c_void_p(arg.data_ptr())
    return ctypes.c_long(arg) if isinstance(arg, int) else ctypes.c_float(arg)
