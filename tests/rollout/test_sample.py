"""The sampler writes what transformers' `generate` writes, whatever shares its batch, and knows the probability of each token."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from hone.core.errors import HoneError
from hone.core.types import Sequence
from hone.data.batching import pack
from hone.models import decode
from hone.models.decode import KVCache
from hone.models.policy import Policy
from hone.rollout.answer import Answer
from hone.rollout.sample import Sampler
from hone.tuning.lora import Lora

Build = Callable[..., PreTrainedModel]


def prompts(seed: int = 0, lengths: tuple[int, ...] = (5, 30, 12, 1, 9, 20, 17, 30, 41)) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(3, 384) for _ in range(length)] for length in lengths]


def lively(model: PreTrainedModel) -> PreTrainedModel:
    """Weights large enough for answers that differ from prompt to prompt."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@torch.no_grad()
def by_transformers(model: PreTrainedModel, prompt: list[int], new: int) -> list[int]:
    out = model.generate(torch.tensor([prompt]), max_new_tokens=new, do_sample=False, eos_token_id=None, pad_token_id=0)
    return out[0, len(prompt) :].tolist()


def portions(monkeypatch: pytest.MonkeyPatch) -> list[list[list[int]]]:
    """Fills with the new tokens of the rows of each forward."""
    fed: list[list[list[int]]] = []
    hold = KVCache.hold

    def noted(cache: KVCache, rows: Any, tokens: list[list[int]], starts: list[int]) -> None:
        fed.append(list(tokens))
        hold(cache, rows, tokens, starts)

    monkeypatch.setattr(KVCache, "hold", noted)
    return fed


def computed(fed: list[list[list[int]]]) -> list[int]:
    """How many tokens each forward was fed."""
    return [sum(len(new) for new in tokens) for tokens in fed]


def tokens(answers: list[Answer]) -> list[list[int]]:
    return [answer.tokens for answer in answers]


@pytest.fixture(params=["llama", "qwen3", "gpt2", "bloom"])
def model(request: pytest.FixtureRequest, tiny_llama: Build, tiny_qwen3: Build) -> PreTrainedModel:
    small = {"vocab_size": 384, "n_head": 4, "eos_token_id": 1, "bos_token_id": 2}
    if request.param == "gpt2":
        return lively(GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_positions=256, **small)))
    if request.param == "bloom":
        return lively(BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=2, **small)))
    return lively(tiny_llama() if request.param == "llama" else tiny_qwen3())


@pytest.fixture
def llama(tiny_llama: Build) -> PreTrainedModel:
    return lively(tiny_llama())


def test_greedy_answers_are_those_of_transformers(model: PreTrainedModel, tiny_tokenizer: Any) -> None:
    sampler = Sampler(model, tiny_tokenizer, rows=4)
    asked = [*prompts(), prompts()[1], [*prompts()[7], 8, 9]]
    assert tokens(sampler.generate(asked, max_new_tokens=20)) == [by_transformers(model, prompt, 20) for prompt in asked]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_log_probabilities_are_the_policys(tiny_llama: Build, tiny_tokenizer: Any, temperature: float) -> None:
    model, tuning = lively(tiny_llama()), Lora(rank=4)
    tuning.attach(model, seed=0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05
    policy = Policy.of(model, tuning)
    asked = prompts()
    answers = Sampler(model, tiny_tokenizer, rows=3).generate(asked, max_new_tokens=15, temperature=temperature, seed=4)
    groups = [(Sequence(p + a.tokens, [0.0] * len(p) + [1.0] * len(a.tokens)),) for p, a in zip(asked, answers, strict=True)]
    with torch.no_grad():
        signals = policy.signals(pack(groups), "logp")
    ours = torch.tensor([logp for answer in answers for logp in answer.logps])
    torch.testing.assert_close(ours, signals.logp, rtol=0, atol=1e-5)


def test_a_seed_gives_each_prompt_its_answer_whatever_the_batch(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    how: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.95, "seed": 5}
    asked = prompts() * 2
    one, many = (tokens(Sampler(llama, tiny_tokenizer, rows=rows).generate(asked, **how)) for rows in (1, 64))
    assert one == many
    assert many[:9] != many[9:]
    assert tokens(Sampler(llama, tiny_tokenizer).generate(asked, **{**how, "seed": 6})) != many


def test_sampled_tokens_follow_the_models_distribution(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    prompt, count = prompts()[0], 4000
    with torch.no_grad():
        shares = (llama(torch.tensor([prompt])).logits[0, -1] / 4).softmax(-1)
    answers = Sampler(llama, tiny_tokenizer).generate([prompt] * count, max_new_tokens=1, temperature=4.0)
    seen = Counter(answer.tokens[0] for answer in answers)
    for token in shares.topk(20).indices.tolist():
        share = float(shares[token])
        assert abs(seen[token] / count - share) < 4.5 * (share * (1 - share) / count) ** 0.5


def test_equal_prompts_and_equal_beginnings_are_computed_once(
    llama: PreTrainedModel, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, sampler = prompts(7, (60,))[0], Sampler(llama, tiny_tokenizer, rows=16)
    fed = portions(monkeypatch)
    answers = sampler.generate([system] * 12, max_new_tokens=1, temperature=1.0)
    assert computed(fed) == [60]
    assert len({tuple(answer.tokens) for answer in answers}) > 1
    fed.clear()
    sampler.generate([[*system, i, i] for i in range(3, 11)], max_new_tokens=1)
    assert computed(fed) == [62, 14]
    narrow = Sampler(llama, tiny_tokenizer, rows=4)
    fed.clear()
    narrow.generate([system] * 12, max_new_tokens=3, temperature=1.0)
    assert sum(computed(fed)) < 60 + 12 * 3 + 12


def test_finished_rows_make_room_for_waiting_ones(llama: PreTrainedModel, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = prompts(3, (9,) * 40)
    free = tokens(Sampler(llama, tiny_tokenizer).generate(asked, max_new_tokens=30))
    stops = [token for token, _ in Counter(token for row in free for token in row[2:]).most_common(6)]
    expected = [row[: next((i for i, token in enumerate(row) if token in stops), 29) + 1] for row in free]
    assert len({len(row) for row in expected}) > 3
    sampler = Sampler(llama, tiny_tokenizer, rows=8)
    fed = portions(monkeypatch)
    answers = sampler.generate(asked, max_new_tokens=30, stop_ids=stops)
    sizes = [len(new) for new in fed if len(new[0]) == 1]
    assert tokens(answers) == expected
    assert [answer.stop_reason for answer in answers] == ["stop" if row[-1] in stops else "length" for row in expected]
    assert max(sizes) <= 8
    assert sum(sizes) / len(sizes) > 4, "a step serves many rows"


def test_the_cache_is_kept_within_its_bytes(llama: PreTrainedModel, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []

    class Noted(decode.KVCache):
        def __init__(self, rows: int, length: int, *more: Any) -> None:
            made.append((rows, length))
            super().__init__(rows, length, *more)

    sampler = Sampler(llama, tiny_tokenizer, cache_bytes=100_000)
    monkeypatch.setattr("hone.rollout.sample.KVCache", Noted)
    asked = prompts(2, (20,) * 30)
    answers = sampler.generate(asked, max_new_tokens=10)
    rows, length = made[0]
    assert rows * length * sampler.fit.bytes_per_token <= 100_000 < (rows + 1) * length * sampler.fit.bytes_per_token
    assert tokens(answers) == [by_transformers(llama, prompt, 10) for prompt in asked]


def test_an_answer_ends_where_the_context_does(tiny_llama: Build, tiny_tokenizer: Any) -> None:
    sampler = Sampler(tiny_llama(max_position_embeddings=32), tiny_tokenizer)
    answers = sampler.generate([[5] * 20, [5] * 31], max_new_tokens=100)
    assert [(len(answer.tokens), answer.stop_reason) for answer in answers] == [(12, "length"), (1, "length")]
    with pytest.raises(HoneError, match="M002") as caught:
        sampler.generate([[5], [5] * 32], max_new_tokens=1)
    assert caught.value.where == "prompt 2"


def test_beyond_the_horizon_the_models_own_cache_writes(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    expected = [by_transformers(llama, prompt, 10) for prompt in prompts()]
    sampler = Sampler(llama, tiny_tokenizer)
    sampler.fit = sampler.fit._replace(horizon=25)
    assert tokens(sampler.generate(prompts(), max_new_tokens=10)) == expected


def test_every_token_is_told_as_it_comes(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    told: dict[int, list[int]] = {}
    answers = Sampler(llama, tiny_tokenizer, rows=3).generate(
        prompts(), max_new_tokens=9, on_token=lambda index, token: told.setdefault(index, []).append(token)
    )
    assert [told[index] for index in range(len(answers))] == tokens(answers)


def test_stop_strings_end_rows_in_a_batch(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    sampler = Sampler(llama, tiny_tokenizer)
    free = sampler.generate(prompts(), max_new_tokens=20)
    stop = tiny_tokenizer.decode(free[0].tokens[4:6])
    held = sampler.generate(prompts(), max_new_tokens=20, stop_strings=(stop,))
    assert held[0].stop_reason == "stop"
    assert held[0].text == free[0].text.partition(stop)[0]
    assert [a.stop_reason for a in held] == ["stop" if stop in a.text else "length" for a in free]


def test_training_goes_on_as_before(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    tuning = Lora(rank=4, dropout=0.5)
    tuning.attach(llama, seed=0)
    policy = Policy.of(llama, tuning)
    attention = llama.config._attn_implementation
    sampler = Sampler(llama, tiny_tokenizer)
    llama.train()
    first, second = (tokens(sampler.generate(prompts(), max_new_tokens=5)) for _ in range(2))
    assert first == second, "dropout is off while it writes"
    assert llama.training
    assert llama.config._attn_implementation == attention
    batch = pack([(Sequence([5, 6, 7], [0, 1, 1]),)])
    policy.signals(batch, "logp").logp.sum().backward()


def test_the_weights_are_used_as_they_stand(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    sampler = Sampler(llama, tiny_tokenizer)
    before = tokens(sampler.generate(prompts(), max_new_tokens=8))
    with torch.no_grad():
        llama.model.layers[0].mlp.down_proj.weight.mul_(-3)
    after = tokens(sampler.generate(prompts(), max_new_tokens=8))
    assert after == [by_transformers(llama, prompt, 8) for prompt in prompts()] != before


@pytest.fixture
def talk(llama: PreTrainedModel, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Sampler, list[list[list[int]]]]:
    """A sampler that keeps its cache, and the tokens that each forward is fed."""
    sampler = Sampler(llama, tiny_tokenizer, rows=1, reuse=True)
    return sampler, portions(monkeypatch)


def test_a_conversation_goes_on_from_what_is_held(llama: PreTrainedModel, talk: tuple[Sampler, list[list[list[int]]]]) -> None:
    sampler, fed = talk
    history = prompts(5, (40,))[0]
    for turn in range(4):
        fed.clear()
        (answer,) = sampler.generate([history], max_new_tokens=6 + 10 * turn)
        assert answer.tokens == by_transformers(llama, history, 6 + 10 * turn)
        assert computed(fed)[0] == (40 if turn == 0 else 4)
        assert answer.recalled == len(history) - computed(fed)[0]
        history = [*history, *answer.tokens, 7, 8, 9]
    (again,) = sampler.generate([history[:30]], max_new_tokens=5)
    assert again.tokens == by_transformers(llama, history[:30], 5)


def test_output_that_is_not_a_number_is_an_error(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    sampler = Sampler(llama, tiny_tokenizer)
    with torch.no_grad():
        llama.lm_head.weight[5] = float("nan")
    with pytest.raises(HoneError, match="M030"):
        sampler.generate([[3, 4]], max_new_tokens=2)


def test_bfloat16_agrees_with_transformers_where_it_is_sure(tiny_llama: Build, tiny_tokenizer: Any) -> None:
    model = lively(tiny_llama()).to(torch.bfloat16)
    answers = Sampler(model, tiny_tokenizer).generate(prompts(), max_new_tokens=12)
    agreed = [a.tokens[0] == by_transformers(model, p, 1)[0] for a, p in zip(answers, prompts(), strict=True)]
    assert sum(agreed) >= 8
    assert all(isinstance(logp, float) and logp <= 0 for answer in answers for logp in answer.logps)


def test_a_real_story_goes_on_as_with_transformers(shared: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = shared / "weights" / "stories260k"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    asked = [tokenizer(start)["input_ids"] for start in ("Once upon a time", "Lily and Tom went to the", "The dog")]
    sampler = Sampler(model, tokenizer)
    expected = [by_transformers(model, prompt, 80) for prompt in asked]
    answers = sampler.generate(asked, max_new_tokens=80)
    assert tokens(answers) == expected
    assert answers[0].text.startswith(", there was a little girl")
