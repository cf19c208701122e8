"""vLLM as the writer: the sampler's interface in front of its engine, and the weights sent to it by adapter or by tensors.

The engine is `vllm.LLM` (0.30), whose log-probabilities are asked for as the model's own, before temperature. Adapters are sent as
a LoRA request of a new number, whole models by `reload_weights` from a folder in memory; either way as safetensors.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hone.core.config import parse
from hone.core.errors import HoneError
from hone.rollout.answer import Answer, Stops
from hone.rollout.warp import Sampling

MEMORY = Path("/dev/shm")
"""Where weights are put down for the engine, if the system has such a place."""


@dataclass(frozen=True, slots=True)
class Kit:
    """The engine and the classes of vLLM that speak to it."""

    engine: Any
    """`vllm.LLM`."""
    sampling_params: Callable[..., Any]
    """`vllm.SamplingParams`."""
    lora_request: Callable[..., Any]
    """`vllm.lora.request.LoRARequest`."""


def start(model: str, *, rank: int | None, context: int, memory: float = 0.4, seed: int = 0, **options: Any) -> Kit:
    """An engine for a model in this process; with `rank`, it takes adapters of at most that rank. Raises C062 without vLLM."""
    if find_spec("vllm") is None:
        raise HoneError("C062", "writing with vLLM needs the package vllm", fix="pip install vllm, or leave rollout.engine at hone")
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    adapters = {"enable_lora": True, "max_lora_rank": rank} if rank is not None else {}
    engine = LLM(
        model=model, max_model_len=context, gpu_memory_utilization=memory, seed=seed, logprobs_mode="raw_logprobs", **adapters, **options
    )
    return Kit(engine, SamplingParams, LoRARequest)


class VllmWriter:
    """Writes answers with an engine that has weights of its own; `send` brings it those of the policy."""

    def __init__(self, kit: Kit, tokenizer: Any, *, save: Callable[[Path], None], adapter: bool) -> None:
        self.kit, self.tokenizer, self.save, self.adapter = kit, tokenizer, save, adapter
        self.version = -1
        """The step of the weights that the engine holds; -1 before any were sent."""
        self._request: Any = None
        self._folder: Path | None = None

    def send(self, version: int) -> None:
        """Give the engine the policy's weights of this version; nothing is sent twice."""
        if version == self.version:
            return
        folder = Path(tempfile.mkdtemp(prefix=f"hone-weights-{version}-", dir=MEMORY if MEMORY.is_dir() else None))
        self.save(folder)
        if self.adapter:
            self._request = self.kit.lora_request(f"step-{version}", version + 1, str(folder))
        else:
            self.kit.engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        self.kit.engine.reset_prefix_cache()  # it holds keys and values of the old weights
        self._forget(folder)
        self.version = version

    def _forget(self, folder: Path) -> None:
        """An adapter is read when it is first used, so its folder stays until the next one; tensors have been read."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = folder
        if not self.adapter:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove what lies in memory."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def generate(self, prompts: Seq[Seq[int]], *, stop_ids: Iterable[int] = (), **sampling: Any) -> list[Answer]:
        """An answer for each prompt of token ids, in order. Raises C001, C002, and R008 where the engine leaves out log-probabilities."""
        how = parse(Sampling, sampling, section="sampling")
        stops = Stops(frozenset(stop_ids), how.stop_strings, self.tokenizer)
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        params = [self._params(how, stops, i) for i in range(len(asked))]
        found = self.kit.engine.generate(asked, params, lora_request=self._request, use_tqdm=False)
        return [_answer(each.outputs[0], stops) for each in found]

    def _params(self, how: Sampling, stops: Stops, place: int) -> Any:
        return self.kit.sampling_params(
            max_tokens=how.max_new_tokens,
            temperature=how.temperature,
            top_p=how.top_p,
            top_k=how.top_k,
            min_p=how.min_p,
            stop=list(how.stop_strings),
            include_stop_str_in_output=True,
            stop_token_ids=sorted(stops.ids),
            seed=(how.seed + place) % 2**31,
            logprobs=0,
            detokenize=bool(how.stop_strings),
        )


def _answer(output: Any, stops: Stops) -> Answer:
    tokens = list(output.token_ids)
    if output.logprobs is None or len(output.logprobs) != len(tokens):
        fix = "use vLLM 0.30 or later, with logprobs_mode=raw_logprobs"
        raise HoneError("R008", "the engine wrote tokens without their log-probabilities", where="rollout", fix=fix)
    logps = [float(row[token].logprob) for token, row in zip(tokens, output.logprobs, strict=True)]
    return Answer(tokens, logps, "stop" if output.finish_reason == "stop" else "length", stops.text(tokens))
