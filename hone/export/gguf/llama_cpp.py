"""llama.cpp itself, where llama-cpp-python is installed: it quantises in its K- and I-types, and answers probes.

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

BLOCK = 256
"""K-types cut rows into pieces of this length."""
INSTALL = "pip install llama-cpp-python (it compiles for many minutes), or use --quant Q8_0, Q5_0 or Q4_0, which need no llama.cpp"

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
ANSWER = """
import json, sys
import llama_cpp
order = json.load(sys.stdin)
model = llama_cpp.Llama(order["file"], n_ctx=order["context"], n_threads=order["threads"], verbose=False, logits_all=False)
found = []
for text, tokens, most in order["prompts"]:
    seen = model.tokenize(text.encode(), add_bos=False, special=True)
    answer, stop = [], set(order["stop"])
    model.reset()
    for token in model.generate(tokens, temp=0.0, top_k=1, repeat_penalty=1.0):
        answer.append(int(token))
        if token in stop or len(answer) >= most:
            break
    found.append([seen, answer])
json.dump(found, sys.stdout)
"""


class Sized(Protocol):
    """A tensor to be."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, rows first."""


def installed() -> bool:
    """Whether llama-cpp-python is here. It is not imported."""
    return importlib.util.find_spec("llama_cpp") is not None


def check_quantiser(tensors: Iterable[Sized]) -> None:
    """Raise F044 without llama-cpp-python, M085 for a model that K-types do not fit."""
    if not installed():
        raise HoneError("F044", "K- and I-quantisations are made by llama.cpp, which is not installed", where="--quant", fix=INSTALL)
    odd = sorted({each.shape[-1] for each in tensors if len(each.shape) > 1 and each.shape[-1] % BLOCK})
    if odd:
        what = f"rows of {odd[0]} numbers do not divide into blocks of {BLOCK}, as K- and I-types need"
        raise HoneError("M085", what, where="--quant", fix="use --quant Q8_0, Q5_0 or Q4_0, whose blocks are of 32")


def quantise(source: Path, target: Path, file_type: int, *, importance: Mapping[str, Sequence[float]], threads: int = 1) -> None:
    """Let llama.cpp write another type. `importance` weighs columns, by tensor. Raises F047 where it fails or dies."""
    order = {"source": str(source), "target": str(target), "type": file_type, "threads": threads, "importance": dict(importance)}
    _run(QUANTISE, order)


def answers(
    file: Path, prompts: Sequence[tuple[str, Sequence[int], int]], stop: Iterable[int], *, context: int = 1024
) -> list[tuple[list[int], list[int]]]:
    """For each (text, tokens, most new tokens): the text as llama.cpp encodes it, and its greedy answer to the tokens."""
    order = {"file": str(file), "context": context, "threads": 1, "stop": list(stop), "prompts": [[t, list(i), n] for t, i, n in prompts]}
    return [(seen, answer) for seen, answer in json.loads(_run(ANSWER, order))]


def _run(script: str, order: dict[str, Any]) -> str:
    done = subprocess.run([sys.executable, "-c", script], input=json.dumps(order), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        how = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"ended with status {done.returncode}"
        line = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")[:200]
        raise HoneError(
            "F047", f"llama.cpp {how}: {line}", where="llama-cpp-python", fix="try another --quant, or another version of llama-cpp-python"
        )
    return done.stdout
