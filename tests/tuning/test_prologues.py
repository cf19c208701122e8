"""Prompts and prefixes: peft's files and gradients, starting from words, and what is left once training is over."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BloomConfig, BloomForCausalLM, PreTrainedModel

from hone.core.errors import HoneError
from hone.data.batching import pack
from hone.models import decode
from hone.models.policy import Policy
from hone.rollout.sample import Sampler
from hone.tuning import Tuning, trainable
from hone.tuning.prefix import Prefix, PTuningV2, keys_values_of
from hone.tuning.prompt import Prompt, PTuning, virtual_tokens_of
from hone.tuning.shapes import Shapes
from tests import nets

LOGP = "logp"
BASE = {"name": "tiny", "fingerprint": "shape-bytes"}
GROUPS = nets.singles(5)
METHODS: dict[str, Tuning] = {
    "prefix": Prefix(length=4, start="random"),
    "prefix+encoder": Prefix(length=4, encoder=6, start="random"),
    "ptuning_v2": PTuningV2(length=4, start="random"),
    "prompt": Prompt(length=4, start="random"),
    "ptuning": PTuning(length=4, width=6),
    "ptuning+lstm": PTuning(length=4, width=6, encoder="lstm"),
}
PREFIXES = ("prefix", "prefix+encoder", "ptuning_v2")


class Numbers:
    """A tokenizer whose text is its ids."""

    def decode(self, ids: list[int], **_: object) -> str:
        return " ".join(map(str, ids))


def logp(policy: Policy) -> Tensor:
    return policy.signals(pack(GROUPS), LOGP).logp


def gradient(policy: Policy) -> Tensor:
    policy.model.zero_grad()
    logp(policy).sum().backward()
    return torch.cat([p.grad.flatten() for p in trainable(policy.model).values()])


def with_peft(name: str, base: PreTrainedModel) -> Any:
    """The same method in peft, at a random start."""
    peft = pytest.importorskip("peft")
    common = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
    config = {
        "prefix": lambda: peft.PrefixTuningConfig(**common),
        "prefix+encoder": lambda: peft.PrefixTuningConfig(**common, prefix_projection=True, encoder_hidden_size=6),
        "ptuning_v2": lambda: peft.PrefixTuningConfig(**common),
        "prompt": lambda: peft.PromptTuningConfig(**common),
        "ptuning": lambda: peft.PromptEncoderConfig(**common, encoder_hidden_size=6),
        "ptuning+lstm": lambda: peft.PromptEncoderConfig(**common, encoder_hidden_size=6, encoder_reparameterization_type="LSTM"),
    }[name]()
    torch.manual_seed(5)
    return peft.get_peft_model(base, config)


def pefts_logp(model: Any) -> Tensor:
    """Log-probabilities of the learned tokens, row by row, by a model that may put virtual tokens in front."""
    found = []
    for group in GROUPS:
        for sequence in group:
            ids = torch.tensor([sequence.tokens])
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -len(sequence.tokens) :]
            scores = logits.log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
            found.append(scores[torch.tensor(sequence.weights[1:]) != 0])
    return torch.cat(found)


def fresh(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return nets.MODELS[family]().eval()


def take_over(name: str, policy: Policy, peft_model: Any) -> dict[str, nn.Parameter]:
    """Copy peft's numbers into ours. Returns our parameters by peft's names, where these are whole tensors there."""
    theirs = dict(peft_model.prompt_encoder.default.named_parameters())
    if name.startswith("p") and "prefix" not in name and name != "ptuning_v2":
        tokens = virtual_tokens_of(policy.model)
        ours = {"embedding.weight": tokens.table} | dict(tokens.encoder.named_parameters() if tokens.encoder is not None else ())
        assert ours.keys() == theirs.keys()
        for key, parameter in ours.items():
            parameter.data.copy_(theirs[key].data)
        return ours
    prologue = keys_values_of(policy.model)
    if prologue.words is None:
        for table, part in zip(prologue.tables, theirs["embedding.weight"].data.split(32, 1), strict=True):
            table.data.copy_(part)
        return {}
    prologue.words.data.copy_(theirs["embedding.weight"].data)
    prologue.inner.load_state_dict(peft_model.prompt_encoder.default.transform[0].state_dict())
    last = peft_model.prompt_encoder.default.transform[2]
    for layer, weight, bias in zip(prologue.outer, last.weight.data.split(32), last.bias.data.split(32), strict=True):
        layer.weight.data.copy_(weight)
        layer.bias.data.copy_(bias)
    return {"embedding.weight": prologue.words}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["qwen3"])
@pytest.mark.parametrize("name", METHODS)
def test_peft_computes_the_same_with_the_same_gradient(name: str, family: str) -> None:
    theirs = with_peft(name, fresh(family))
    policy = Policy.of(fresh(family), METHODS[name])
    METHODS[name].attach(policy.model, seed=0)
    pairs = take_over(name, policy, theirs)
    ours_says, theirs_says = logp(policy), pefts_logp(theirs)
    assert (ours_says - theirs_says).abs().max() <= 1e-5
    ours_says.sum().backward()
    theirs_says.sum().backward()
    parameters = dict(theirs.prompt_encoder.default.named_parameters())
    for key, parameter in pairs.items():
        assert (parameter.grad - parameters[key].grad).norm() <= 1e-5 * parameters[key].grad.norm(), key
    if not pairs:
        tables = torch.cat([table.grad for table in keys_values_of(policy.model).tables], 1)
        assert (tables - parameters["embedding.weight"].grad).norm() <= 1e-5 * tables.norm()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("name", METHODS)
def test_peft_reads_ours_and_we_read_pefts(name: str, family: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    policy = nets.policy(nets.MODELS[family], METHODS[name])
    says = logp(policy).detach()
    policy.tuning.save(policy.model, tmp_path / "ours", base=BASE)
    read = peft.PeftModel.from_pretrained(fresh(family), tmp_path / "ours")
    assert (pefts_logp(read) - says).abs().max() <= 1e-5

    theirs = with_peft(name, fresh(family)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    tuning = type(METHODS[name]).from_peft(tmp_path / "theirs")
    mine = nets.policy(nets.MODELS[family], tuning, moved=False)
    tuning.load(mine.model, tmp_path / "theirs", base={})
    assert (logp(mine) - pefts_logp(theirs)).abs().max() <= 1e-5


@pytest.mark.parametrize("name", METHODS)
def test_the_network_is_gone_from_the_file_and_nothing_else_is_in_it(name: str, tmp_path: Path) -> None:
    policy = nets.policy(nets.llama, METHODS[name])
    says = logp(policy).detach()
    policy.tuning.save(policy.model, tmp_path, base=BASE)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    width = 2 * 2 * 16 if name in PREFIXES else 32
    assert {key: tuple(tensor.shape) for key, tensor in stored.items()} == {"prompt_embeddings": (4, width)}
    policy.tuning.load(policy.model, tmp_path, base=BASE)
    assert sum(p.numel() for p in trainable(policy.model).values()) == 4 * width
    assert (logp(policy) - says).abs().max() <= 1e-6, "an LSTM rounds differently with and without gradients"


@pytest.mark.parametrize("encoder", [None, 9, 3])
@pytest.mark.parametrize("family", nets.MODELS)
def test_a_prefix_started_from_a_text_is_the_base_after_that_text(family: str, encoder: int | None) -> None:
    text = [7, 99, 23, 51, 8]
    tuning = Prefix(length=5, encoder=encoder, text="x")
    model = fresh(family)
    tuning.attach(model, seed=0)
    tuning.prime(model, lambda _: text)
    policy = Policy.of(model, tuning)
    base = fresh(family)
    ids = [*text, *GROUPS[0][0].tokens]
    own = base(input_ids=torch.tensor([ids])).logits[0, 5:].log_softmax(-1)[:-1]
    own = own.gather(1, torch.tensor(ids[6:])[:, None])[:, 0][torch.tensor(GROUPS[0][0].weights[1:]) != 0]
    difference = (policy.signals(pack(GROUPS[:1]), LOGP).logp - own).abs().max()
    assert difference <= 1e-5 or encoder == 3, "exact where the network can hold it"


def test_a_prompt_started_from_a_text_holds_the_embeddings_of_its_words() -> None:
    tuning = Prompt(length=5, text="the task")
    model = fresh("llama")
    tuning.attach(model, seed=0)
    tuning.prime(model, lambda text: [3, 4, 5] if text == "the task" else [])
    embedding = model.get_input_embeddings().weight
    assert torch.equal(virtual_tokens_of(model).prompt(), embedding[[3, 4, 5, 3, 4]])
    with pytest.raises(HoneError, match="M061"):
        Prompt(length=5, text="").prime(model, lambda _: [])


@pytest.mark.parametrize("start", ["words", "random"])
def test_starts_are_of_the_size_of_embeddings_and_follow_the_seed(start: str) -> None:
    def table(seed: int) -> Tensor:
        model = fresh("llama")
        Prompt(length=50, start=start).attach(model, seed=seed)  # type: ignore[arg-type]
        return virtual_tokens_of(model).prompt().detach()

    assert torch.equal(table(1), table(1))
    assert not torch.equal(table(1), table(2))
    assert 0.8 < table(1).std() / fresh("llama").get_input_embeddings().weight.std() < 1.2


def test_layers_have_keys_and_values_of_their_own() -> None:
    model = fresh("llama")
    PTuningV2(length=3).attach(model, seed=0)
    first, second = (keys_values_of(model).keys_values(layer) for layer in range(2))
    assert first[0].shape == (2, 3, 8)
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[0], first[1])


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("name", METHODS)
def test_it_works_with_gradient_checkpointing(name: str, family: str) -> None:
    """Where peft's prefix loses its keys, because checkpointing turns the cache off."""
    policy = nets.policy(nets.MODELS[family], METHODS[name], torch.float64)
    policy.model.train()
    plain = gradient(policy)
    policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    assert (gradient(policy) - plain).norm() <= 1e-12 * plain.norm()


@pytest.mark.parametrize("name", ["prefix", "prompt"])
def test_the_cache_holds_the_prompt_and_the_prologue(name: str) -> None:
    policy = nets.policy(nets.llama, METHODS[name])
    sampler = Sampler(policy.model, Numbers(), stock=policy.stock, reuse=True)
    sampler.generate([[5, 6, 7, 8]], max_new_tokens=1)
    cache = sampler._cache
    assert cache is not None
    assert len(cache.held[0]) == 4 + 4
    assert cache.filled == (4 if name == "prefix" else 0)
    with policy.tuning.disabled(policy.model):
        sampler.generate([[5, 6, 7, 8]], max_new_tokens=1)
        assert sampler._cache is not None
        assert sampler._cache.filled == 0


@pytest.mark.parametrize("family", nets.MODELS)
@pytest.mark.parametrize("name", ["prefix", "prompt"])
def test_the_models_own_cache_writes_the_same(name: str, family: str) -> None:
    policy = nets.policy(nets.MODELS[family], METHODS[name])
    prompts = [[5, 6, 7, 8], [9, 10, 11, 12], [90, 70]]
    sampler = Sampler(policy.model, Numbers(), stock=policy.stock)
    ours = sampler.generate(prompts, max_new_tokens=5)
    sampler.fit = decode.Fit(False)
    theirs = sampler.generate(prompts, max_new_tokens=5)
    assert [a.tokens for a in ours] == [a.tokens for a in theirs]
    assert all(abs(x - y) < 1e-4 for a, b in zip(ours, theirs, strict=True) for x, y in zip(a.logps, b.logps, strict=True))


def test_the_context_is_shorter_by_the_prologue() -> None:
    policy = nets.policy(nets.gpt2, Prompt(length=100))
    answer = Sampler(policy.model, Numbers(), stock=policy.stock).generate([[5] * 20], max_new_tokens=50)[0]
    assert len(answer.tokens) == 128 - 120
    with pytest.raises(HoneError, match="M002"):
        Sampler(policy.model, Numbers(), stock=policy.stock).generate([[5] * 28])


def test_attention_that_cannot_be_reached_is_refused() -> None:
    model = BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=32, n_layer=1, n_head=4))
    with pytest.raises(HoneError, match="M060"):
        Prefix(length=4).attach(model, seed=0)
    policy = nets.policy(lambda: copy.deepcopy(model), Prompt(length=4))
    assert not policy.packed
    answer = Sampler(policy.model, Numbers(), stock=policy.stock).generate([[5, 6]], max_new_tokens=3)[0]
    assert len(answer.tokens) == 3


def test_sizes_that_are_known_from_elsewhere() -> None:
    """The counts of a well-known series on bloomz-560m, and of the UniPELT paper on BERT-base."""
    bloomz = Shapes.from_config(BloomConfig(hidden_size=1024, n_layer=24, n_head=16, vocab_size=250880))
    assert Prompt(length=8).count(bloomz) == 8_192
    assert PTuning(length=20, width=128).count(bloomz) == 300_288
    assert PTuning(length=20, width=128, encoder="lstm").count(bloomz) == 1_926_400
    assert PTuningV2(length=30).count(bloomz) == 1_474_560
    assert Prefix(length=30, encoder=1024).count(bloomz) == 51_461_120


@pytest.mark.parametrize("method", [Prefix(length=4), Prompt(length=4)], ids=["prefix", "prompt"])
def test_an_adapter_of_another_kind_or_size_is_refused(method: Tuning, tmp_path: Path) -> None:
    policy = nets.policy(nets.llama, method)
    policy.tuning.save(policy.model, tmp_path, base=BASE)
    other = nets.policy(nets.llama, type(method)(length=5))  # type: ignore[call-arg]
    with pytest.raises(HoneError, match="M041"):
        other.tuning.load(other.model, tmp_path, base=BASE)
    wrong = Prompt(length=4) if isinstance(method, Prefix) else Prefix(length=4)
    other = nets.policy(nets.llama, wrong)
    with pytest.raises(HoneError, match="M019"):
        wrong.load(other.model, tmp_path, base=BASE)
