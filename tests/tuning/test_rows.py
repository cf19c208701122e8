"""Single rows of a frozen embedding and head: found where needed, exact in every reading, the same in peft."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from hone.core.errors import HoneError
from hone.models.heads import head_of
from hone.models.logprob import token_logprobs
from hone.models.vocabulary import entropy, per_read
from hone.tuning.lora import Lora
from hone.tuning.opening import open_adapter
from hone.tuning.rows import HeadRows, Rows, choose_rows
from tests import nets

MOVED = (5, 17, 40)
BASE = {"name": "tiny", "fingerprint": "shape-bytes"}


def dense(model: nn.Module) -> tuple[nn.Module, nn.Parameter]:
    """The head's own module and the whole table with the rows as they stand, as one leaf: the plain twin."""
    head = model.get_submodule("lm_head")
    assert isinstance(head, HeadRows)
    return head, nn.Parameter(head.weight.clone())


@pytest.mark.parametrize("family", nets.MODELS)
def test_every_reading_has_the_gradient_of_the_whole_matrix(family: str) -> None:
    one = nets.policy(nets.MODELS[family], Lora(rank=3, tokens=MOVED), torch.float64)
    head, whole_VD = dense(one.model)
    hidden_ND = torch.randn(11, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    target_N = torch.arange(35, 46)  # token 40, whose row moves, is among them
    ours, twin = head_of(one.model), hidden_ND @ whole_VD.t()
    logp_NV = torch.log_softmax(twin, -1)
    pairs = (
        (token_logprobs(hidden_ND, ours, target_N), logp_NV[torch.arange(11), target_N]),
        (per_read(hidden_ND, head_of(one.model), (entropy,))[0], -(logp_NV.exp() * logp_NV).sum(-1)),
    )
    for mine, theirs in pairs:
        assert (mine - theirs).abs().max() < 1e-12
        weights_N = torch.linspace(-1, 2, 11, dtype=torch.float64)
        d_hidden, d_rows = torch.autograd.grad((mine * weights_N).sum(), (hidden_ND, head.get_parameter("rows")), retain_graph=True)
        d_twin, d_whole = torch.autograd.grad((theirs * weights_N).sum(), (hidden_ND, whole_VD), retain_graph=True)
        assert (d_hidden - d_twin).abs().max() < 1e-12
        assert (d_rows - d_whole[list(MOVED)]).abs().max() < 1e-12


def test_a_tied_table_keeps_one_set_of_rows_and_others_two() -> None:
    for family, sets in (("qwen3", 1), ("gpt2", 1), ("llama", 2)):
        model = nets.policy(nets.MODELS[family], Lora(rank=3, tokens=MOVED)).model
        assert len({id(module.rows) for module in model.modules() if isinstance(module, Rows)}) == sets


def test_an_embedding_that_scales_what_it_finds_scales_its_moving_rows() -> None:
    torch.manual_seed(0)
    shape = {**nets.SHAPE, "query_pre_attn_scalar": 8, "bos_token_id": 1, "eos_token_id": 2}
    model = Gemma3ForCausalLM(Gemma3TextConfig(**shape)).eval()
    ids = torch.tensor([[4, 5, 17, 9]])
    before = model(input_ids=ids).logits
    Lora(rank=3, tokens=MOVED).attach(model, seed=0)
    assert (model(input_ids=ids).logits - before).abs().max() < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", nets.MODELS)
def test_peft_says_what_we_say_both_ways(family: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    ids = torch.tensor([[3, 5, 17, 9, 40, 6]])
    one = nets.policy(nets.MODELS[family], Lora(rank=3, tokens=MOVED))
    one.model.set_attn_implementation(one.stock)  # type: ignore[operator]
    one.tuning.save(one.model, tmp_path / "ours", base=BASE)
    torch.manual_seed(0)
    theirs = peft.PeftModel.from_pretrained(nets.MODELS[family]().eval(), tmp_path / "ours")
    said = one.model.eval()(input_ids=ids).logits
    assert (theirs(input_ids=ids).logits - said).abs().max() < 1e-5
    theirs.save_pretrained(tmp_path / "theirs")
    tuning = open_adapter(tmp_path / "theirs").tuning
    assert isinstance(tuning, Lora) and tuning.tokens == MOVED
    again = nets.policy(nets.MODELS[family], tuning, moved=False)
    tuning.load(again.model, tmp_path / "theirs", base=BASE)
    again.model.set_attn_implementation(again.stock)  # type: ignore[operator]
    assert (again.model.eval()(input_ids=ids).logits - said).abs().max() < 1e-6


def test_no_adapter_lowers_the_loss_of_a_mute_token_but_its_row_does() -> None:
    def best(tuning: Lora) -> float:
        torch.manual_seed(0)
        model = nets.llama()
        with torch.no_grad():
            model.lm_head.weight[10:18] = model.lm_head.weight[10]
        tuning.attach(model, seed=0)
        moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.Adam(moving, lr=0.05)
        ids = torch.tensor([[3, 7, 5]])
        for _ in range(40):
            loss = -model(input_ids=ids).logits[0, -1].log_softmax(-1)[12]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return float(loss.detach())

    assert best(Lora(rank=4)) >= math.log(8) - 1e-3
    assert best(Lora(rank=4, tokens=(12,))) < 0.1


def test_what_names_no_row_is_refused() -> None:
    with pytest.raises(HoneError, match="M101"):
        Lora(rank=2, tokens=(5,), train=("lm_head",)).attach(nets.llama(), seed=0)
    model = nets.llama()
    with pytest.raises(HoneError, match="M100"):
        Lora(rank=2, tokens=(999,)).attach(model, seed=0)
    model = nets.llama()
    tuning = Lora(rank=2, tokens=("two words",))
    tuning.attach(model, seed=0)
    with pytest.raises(HoneError, match="M100"):
        tuning.prime(model, lambda text: [3, 4])
    choose_rows(model, ("word",), lambda text: [9])
    assert head_of(model).moved_K is not None and head_of(model).moved_K.tolist() == [9]  # type: ignore[union-attr]
