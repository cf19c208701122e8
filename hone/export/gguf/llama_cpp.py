"""llama.cpp itself, where llama-cpp-python is installed: it quantises in its K- and I-types, and answers probes.

It runs in a child process, because it is C++ that may abort, and an abort must not take hone along.

Shape legend: P places, V vocabulary.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from hone.core.errors import HoneError

BLOCK = 256
"""K-types cut rows into pieces of this length."""
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
ANSWER = """
import json, sys
import llama_cpp
order = json.load(sys.stdin)
model = llama_cpp.Llama(order["file"], n_ctx=order["context"], n_threads=order["threads"], type_k=0, type_v=0)
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

SESSION = """
import base64, json, sys
import llama_cpp
order = json.loads(sys.stdin.readline())
size, fp32 = order["context"], {"type_k": 0, "type_v": 0}
model = llama_cpp.Llama(order["file"], n_ctx=size, n_batch=size, n_threads=order["threads"], verbose=False, logits_all=True, **fp32)
for line in sys.stdin:
    order = json.loads(line)
    if "text" in order:
        found = model.tokenize(order["text"].encode(), add_bos=False, special=True)
    else:
        model.reset()
        model.eval(order["tokens"])
        found = base64.b64encode(model.scores[order["places"]].astype("<f4").tobytes()).decode()
    print(json.dumps(found), flush=True)
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


class Session:
    """A file held open by llama.cpp in a process of its own, while the context lasts. Raises F047 where that dies."""

    def __init__(self, file: Path, *, context: int) -> None:
        self._order = {"file": str(file), "context": context, "threads": 1}

    def __enter__(self) -> Session:
        command, pipe = [sys.executable, "-c", SESSION], subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self._send(self._order)
        return self

    def __exit__(self, *_: object) -> None:
        with self._process as process:
            process.kill()

    def tokens(self, text: str) -> list[int]:
        """A text with its control tokens, as llama.cpp encodes it; without BOS."""
        return [int(token) for token in self._ask({"text": text})]

    def logprobs(self, tokens: Sequence[int], places: Sequence[int]) -> Tensor:
        """Log-probabilities of what follows some places of a text, (P, V)."""
        raw = bytearray(base64.b64decode(self._ask({"tokens": list(tokens), "places": list(places)})))
        return torch.frombuffer(raw, dtype=torch.float32).view(len(places), -1).log_softmax(-1)

    def _send(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise _died(self._process.wait(), "") from None

    def _ask(self, order: dict[str, Any]) -> Any:
        self._send(order)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise _died(self._process.wait(), "")
        return json.loads(line)


def _died(status: int, said: str) -> HoneError:
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    line = next((line for line in lines if "error loading model" in line), lines[-1] if lines else "")[:200]
    fix = "try another --quant, or another version of llama-cpp-python"
    return HoneError("F047", f"llama.cpp {how}{f': {line}' if line else ''}", where="llama-cpp-python", fix=fix)


def _run(script: str, order: dict[str, Any]) -> str:
    done = subprocess.run([sys.executable, "-c", script], input=json.dumps(order), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise _died(done.returncode, done.stderr)
    return done.stdout
