"""A GGUF file held open by llama.cpp in a process of its own: it encodes, says how likely tokens are, and writes.

It is C++ that may abort, and an abort must not take hone along.

Shape legend: P places, V vocabulary.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hone.core.errors import HoneError
from hone.export.gguf.llama_cpp import died, installed

ENGINE = "pip install 'hone-llm[llamacpp]' (it compiles for many minutes: docs/export.md)"
PROGRAM = """
import base64, codecs, ctypes, json, signal, sys
import llama_cpp

signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is for the one who asks
model = llama_cpp.Llama(verbose=False, **json.loads(sys.stdin.readline()))
vocabulary, buffer = llama_cpp.llama_model_get_vocab(model.model), ctypes.create_string_buffer(1024)
neutral = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}

def write(prompt, temperature, seed):
    held = model.input_ids[:model.n_tokens].tolist()
    alike = next((i for i, (a, b) in enumerate(zip(held, prompt)) if a != b), min(len(held), len(prompt)))
    text = codecs.getincrementaldecoder("utf-8")("replace")
    model.set_seed(seed)
    for token in model.generate(prompt, temp=temperature, **neutral):
        size = llama_cpp.llama_token_to_piece(vocabulary, token, buffer, len(buffer), 0, False)
        ends = bool(llama_cpp.llama_vocab_is_eog(vocabulary, token))
        yield int(token), text.decode(buffer.raw[:max(size, 0)]), ends, min(alike, len(prompt) - 1)

for line in sys.stdin:
    number, verb, *given = json.loads(line)
    if verb == "encode":
        found = model.tokenize(given[0].encode(), add_bos=False, special=True)
    elif verb == "likelihood":
        model.reset()
        model.eval(given[0])
        found = base64.b64encode(model.scores[given[1]].astype("<f4").tobytes()).decode()
    else:
        answer = write(*given) if verb == "begin" else answer
        found = next(answer)
    print(json.dumps([number, found]), flush=True)
"""


class Step(NamedTuple):
    """One token of an answer."""

    token: int
    text: str
    """What it adds to the text; nothing yet for a part of a character."""
    ends: bool
    """Whether llama.cpp ends an answer at it."""
    recalled: int
    """Tokens of the prompt that were held from before."""


class Session:
    """A file held open while the context lasts. `exact` keeps keys and values in fp32 and the scores of every place, for `logprobs`.

    Raises F044 without llama-cpp-python, and F047 where its process dies, also of a file that it cannot load.
    """

    def __init__(self, file: Path, *, context: int, threads: int = 1, exact: bool = False) -> None:
        if not installed():
            what = "GGUF files are run by llama.cpp, which is not installed"
            raise HoneError("F044", what, where=str(file), fix=f"{ENGINE}, or use the run that it was made from")
        self._options: dict[str, Any] = {"model_path": str(file), "n_ctx": context, "n_threads": threads, "n_gpu_layers": -1}
        self._options |= {"n_batch": context, "logits_all": True, "type_k": 0, "type_v": 0, "n_gpu_layers": 0} if exact else {}
        self._numbers = count()

    def __enter__(self) -> Session:
        command, pipe = [sys.executable, "-c", PROGRAM], subprocess.PIPE
        self._said = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._said, text=True)
        self._send(self._options)
        return self

    def __exit__(self, *_: object) -> None:
        with self._process as process, self._said:
            process.kill()

    def tokens(self, text: str) -> list[int]:
        """A text with its control tokens, as llama.cpp encodes it; without BOS."""
        return [int(token) for token in self._ask("encode", text)]

    def logprobs(self, tokens: Sequence[int], places: Sequence[int]) -> Tensor:
        """Log-probabilities of what follows some places of a text, (P, V)."""
        raw = bytearray(base64.b64decode(self._ask("likelihood", list(tokens), list(places))))
        return torch.frombuffer(raw, dtype=torch.float32).view(len(places), -1).log_softmax(-1)

    def write(self, prompt: Sequence[int], *, temperature: float = 0.0, seed: int = 0) -> Iterator[Step]:
        """An answer token by token, each computed when it is asked for; it has no end of its own.

        What the prompt has in common with what was read and written before is not computed again.
        """
        yield Step(*self._ask("begin", list(prompt), temperature, seed))
        while True:
            yield Step(*self._ask("go on"))

    def _ask(self, verb: str, *given: Any) -> Any:
        """The answer to this question: one that came too late for an earlier one, after a Ctrl-C, is passed over."""
        number = next(self._numbers)
        self._send([number, verb, *given])
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answered, found = json.loads(line)
            if answered == number:
                return found
        raise self._died()

    def _send(self, order: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _died(self) -> HoneError:
        status = self._process.wait()
        self._said.seek(0)
        return died(status, self._said.read())
