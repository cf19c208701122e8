"""The engine elsewhere: asked in its own words, given the weights before it writes, and stopped where it is not the policy."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from hone.core.errors import HoneError
from hone.objectives import OBJECTIVES
from hone.rollout.draft import single_turn
from hone.rollout.gate import gate, measure
from hone.rollout.reading import reader
from hone.rollout.sample import Sampler
from hone.rollout.vllm import Kit, VllmWriter, start
from hone.train.loop import train
from hone.tuning.full import Full
from hone.tuning.lora import Lora
from tests.rollout import studio

Build = Callable[..., PreTrainedModel]
BASE = {"name": "tiny", "fingerprint": "0"}


class StandIn:
    """What the interface of vllm.LLM does, done by a second copy of the model with a sampler of its own."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, tuning: Any) -> None:
        self.model, self.tuning, self.tokenizer = model, tuning, tokenizer
        tuning.attach(model, seed=0)
        self.sampler = Sampler(model, tokenizer)
        self.requests: list[Any] = []
        self.resets = 0

    def generate(self, prompts: Any, params: Any, *, lora_request: Any, use_tqdm: bool) -> list[Any]:
        if lora_request is not None and lora_request not in self.requests:
            self.requests.append(lora_request)
            self.tuning.load(self.model, Path(lora_request.path), base=BASE)
        return [self._one(prompt["prompt_token_ids"], how) for prompt, how in zip(prompts, params, strict=True)]

    def _one(self, prompt: list[int], how: Any) -> Any:
        options = {
            "max_new_tokens": how.max_tokens,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "top_k": how.top_k,
            "seed": how.seed,
        }
        (answer,) = self.sampler.generate([prompt], stop_ids=how.stop_token_ids, **options)
        rows = [{token: SimpleNamespace(logprob=logp)} for token, logp in zip(answer.tokens, answer.logps, strict=True)]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=answer.tokens, logprobs=rows, finish_reason=answer.stop_reason)])

    def collective_rpc(self, method: str, *, kwargs: dict[str, Any]) -> None:
        assert method == "reload_weights"
        self.model.load_state_dict(load_file(Path(kwargs["weights_path"]) / "model.safetensors"), strict=False)

    def reset_prefix_cache(self) -> None:
        self.resets += 1


@dataclass(frozen=True)
class Request:
    name: str
    number: int
    path: str


@pytest.fixture(params=["adapter", "tensors"])
def studio_of(request: pytest.FixtureRequest, tiny_llama: Build, tiny_tokenizer: Any) -> Iterator[tuple[Any, VllmWriter, StandIn]]:
    adapter = request.param == "adapter"
    engine = studio.engine(studio.lively(tiny_llama()), Lora(rank=4) if adapter else Full(), rate=0.05 if adapter else 1e-3)
    stand_in = StandIn(studio.lively(tiny_llama()), tiny_tokenizer, Lora(rank=4) if adapter else Full())
    kit = Kit(stand_in, lambda **how: SimpleNamespace(**how), Request)
    writer = VllmWriter(kit, tiny_tokenizer, save=lambda folder: engine.policy.save(folder, base=BASE), adapter=adapter)
    yield engine, writer, stand_in
    writer.close()


def source(engine: Any, writer: VllmWriter, tokenizer: Any, *, sync: bool = True, told: bool = True, **settings: Any) -> Any:
    made = studio.source(engine, tokenizer, steps=4, **settings)
    check = gate(reader(engine.policy, budget=200), synced=(lambda: writer.version) if told else None)
    send = (lambda: writer.send(engine.taken)) if sync else None
    made.crew = replace(made.crew, pen=single_turn(writer, (studio.END,)), check=check, sync=send)
    if settings.get("ahead"):
        from concurrent.futures import ThreadPoolExecutor

        made._pool = ThreadPoolExecutor(1)
    return made


def test_weights_are_sent_before_each_rollout_and_both_sides_agree(studio_of: Any, tiny_tokenizer: Any) -> None:
    engine, writer, stand_in = studio_of
    made = source(engine, writer, tiny_tokenizer)
    gaps = []
    for _ in range(1):
        train(engine, made, OBJECTIVES["grpo"])
        gaps.append(made.metrics["logp_gap_max"])
    assert writer.version == 3 and stand_in.resets == 4
    assert max(gaps) <= 1e-5
    if writer.adapter:
        assert [request.number for request in stand_in.requests] == [1, 2, 3, 4]


def test_weights_that_were_never_sent_stop_the_run(studio_of: Any, tiny_tokenizer: Any) -> None:
    engine, writer, _ = studio_of
    with pytest.raises(HoneError) as caught:
        train(engine, source(engine, writer, tiny_tokenizer, sync=False), OBJECTIVES["grpo"])
    assert caught.value.code == "R007"


def test_an_engine_with_other_weights_is_found_by_its_numbers(studio_of: Any, tiny_tokenizer: Any) -> None:
    """Nobody says that nothing was sent: the first rollout agrees, as the engine began with the same weights, a later one does not."""
    engine, writer, stand_in = studio_of
    made = source(engine, writer, tiny_tokenizer, sync=False, told=False)
    with torch.no_grad():
        for parameter in stand_in.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    with pytest.raises(HoneError) as caught:
        train(engine, made, OBJECTIVES["grpo"])
    assert caught.value.code == "R006"


def test_writing_ahead_while_the_policy_learns(studio_of: Any, tiny_tokenizer: Any) -> None:
    engine, writer, _ = studio_of
    made = source(engine, writer, tiny_tokenizer, ahead=1)
    versions = []
    for step, batches in enumerate(made.steps(), start=1):
        versions.append({float(v) for batch in batches for v in batch.facts["version"]})
        engine.begin(step, 4)
        tally = engine.forward_backward(batches, OBJECTIVES["grpo"])
        engine.step(1e-3, engine.gradient_norm(tally))
        engine.taken = step
    assert versions == [{0.0}, {0.0}, {1.0}, {2.0}]


def test_settings_reach_the_engine_in_its_own_words(tiny_tokenizer: Any) -> None:
    asked: list[Any] = []

    class Engine:
        def generate(self, prompts: Any, params: Any, **options: Any) -> list[Any]:
            asked.extend([prompts, params, options])
            return []

    kit = Kit(Engine(), lambda **how: how, Request)
    writer = VllmWriter(kit, tiny_tokenizer, save=lambda folder: None, adapter=True)
    writer.generate([[3, 4]], stop_ids=(1,), max_new_tokens=7, temperature=0.5, top_p=0.9, top_k=5, stop_strings=("x",), seed=11)
    assert asked[0] == [{"prompt_token_ids": [3, 4]}] and asked[2] == {"lora_request": None, "use_tqdm": False}
    how = asked[1][0]
    assert (how["max_tokens"], how["temperature"], how["top_k"], how["seed"], how["logprobs"]) == (7, 0.5, 5, 11, 0)
    assert how["stop"] == ["x"] and how["stop_token_ids"] == [1] and how["include_stop_str_in_output"] and how["detokenize"]


def test_tokens_without_log_probabilities_are_refused(tiny_tokenizer: Any) -> None:
    class Mute:
        def generate(self, *args: Any, **options: Any) -> list[Any]:
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=[3, 1], logprobs=None, finish_reason="stop")])]

    writer = VllmWriter(Kit(Mute(), lambda **how: how, Request), tiny_tokenizer, save=lambda folder: None, adapter=True)
    with pytest.raises(HoneError) as caught:
        writer.generate([[3]])
    assert caught.value.code == "R008"


def test_the_gap_is_measured_on_learned_tokens_only(tiny_llama: Build, tiny_tokenizer: Any) -> None:
    engine = studio.engine(studio.lively(tiny_llama()))
    drafts = studio.source(engine, tiny_tokenizer)._drafts(0, 0)
    gaps = measure(reader(engine.policy, budget=200), drafts)
    assert len(gaps) == sum(draft.tokens for draft in drafts) and max(gaps) <= 1e-5


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vllm is installed, so it is not missing")
def test_a_missing_vllm_is_said() -> None:
    with pytest.raises(HoneError) as caught:
        start("model", rank=8, context=128)
    assert caught.value.code == "C062"


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed: its own engine is not tried here")
def test_the_real_engine(tmp_path: Path, tiny_llama: Build, tiny_tokenizer: Any) -> None:
    model = studio.lively(tiny_llama())
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    engine = studio.engine(model)
    writer = VllmWriter(
        start(str(tmp_path), rank=8, context=128), tiny_tokenizer, save=lambda f: engine.policy.save(f, base=BASE), adapter=True
    )
    state = train(engine, source(engine, writer, tiny_tokenizer), OBJECTIVES["grpo"])
    assert state.step == state.total
