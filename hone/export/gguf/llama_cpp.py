"""llama.cpp itself, where llama-cpp-python is installed: it quantises in its K- and I-types.

It runs in a child process, because it is C++ that may abort, and an abort must not take hone along.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hone.core.errors import HoneError

INSTALL = "pip install 'hone-llm[llamacpp]' (it compiles for many minutes), or use --quant Q8_0, Q5_0 or Q4_0, which need no llama.cpp"

QUANTISE = """
import ctypes, json, sys
import llama_cpp
order = json.load(sys.stdin)
options = llama_cpp.llama_model_quantize_default_params()
options.ftype = order["type"]
options.nthread = order["threads"]
columns = [(name.encode(), (ctypes.c_float * len(numbers))(*numbers)) for name, numbers in order["importance"].items()]
if columns:
    matrix = (llama_cpp.llama_model_imatrix_data * (len(columns) + 1))()
    for place, (name, numbers) in zip(matrix, columns):
        place.name, place.data, place.size = name, ctypes.cast(numbers, ctypes.POINTER(ctypes.c_float)), len(numbers)
    options.imatrix = matrix
sys.exit(llama_cpp.llama_model_quantize(order["source"].encode(), order["target"].encode(), ctypes.byref(options)))
"""


class Sized(Protocol):
    """A tensor to be."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, rows first."""


def installed() -> bool:
    """Whether llama-cpp-python is here. It is not imported."""
    return importlib.util.find_spec("llama_cpp") is not None


def check_quantiser(tensors: Iterable[Sized], block: int) -> None:
    """Raise F044 without llama-cpp-python, M085 for a model whose rows do not divide into blocks."""
    if not installed():
        raise HoneError("F044", "K- and I-quantisations are made by llama.cpp, which is not installed", where="--quant", fix=INSTALL)
    odd = sorted({each.shape[-1] for each in tensors if len(each.shape) > 1 and each.shape[-1] % block})
    if odd:
        what = f"rows of {odd[0]} numbers do not divide into blocks of {block}, as this type needs"
        raise HoneError("M085", what, where="--quant", fix="use --quant Q8_0, Q5_0 or Q4_0, whose blocks are of 32")


def quantise(source: Path, target: Path, file_type: int, *, importance: Mapping[str, Sequence[float]], threads: int = 1) -> None:
    """Let llama.cpp write another type. `importance` weighs columns, by tensor. Raises F047 where it fails or dies."""
    order = {"source": str(source), "target": str(target), "type": file_type, "threads": threads, "importance": dict(importance)}
    _run(QUANTISE, order)


def died(status: int, said: str) -> HoneError:
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    line = next((line for line in lines if "error loading model" in line), lines[-1] if lines else "")[:200]
    fix = "try another --quant, or another version of llama-cpp-python"
    return HoneError("F047", f"llama.cpp {how}{f': {line}' if line else ''}", where="llama-cpp-python", fix=fix)


def _run(script: str, order: dict[str, Any]) -> str:
    done = subprocess.run([sys.executable, "-c", script], input=json.dumps(order), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise died(done.returncode, done.stderr)
    return done.stdout
