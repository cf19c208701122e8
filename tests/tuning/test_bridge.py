"""Methods that only peft has, through the bridge: peft reads what is written, what peft wrote is read, faults are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.tuning import trainable
from hone.tuning.bridge import Peft
from hone.tuning.opening import open_adapter
from tests import nets

peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
TOKENS = torch.arange(3, 23)[None]
BASE = {"name": "tiny", "fingerprint": "shape-bytes"}
TWO = ["q_proj", "down_proj"]
KINDS: dict[str, dict[str, Any]] = {
    "loha": {"r": 4, "target_modules": TWO},
    "boft": {"boft_block_size": 4, "target_modules": TWO},
    "hira": {"r": 4, "target_modules": TWO},
}


def make() -> nn.Module:
    torch.manual_seed(0)
    return nets.llama().eval()


@torch.no_grad()
def said(model: nn.Module) -> Tensor:
    logits: Tensor = model(input_ids=TOKENS).logits
    return logits


@torch.no_grad()
def shake(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in trainable(model).values():
        parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_peft_reads_ours_and_we_read_theirs(kind: str, tmp_path: Path) -> None:
    tuning, model = Peft(kind=kind, options=KINDS[kind]), make()
    tuning.attach(model, seed=0)
    assert (said(model) - said(make())).abs().max() <= 1e-5
    ours = said(shake(model))
    assert (ours - said(make())).abs().max() > 1e-4
    tuning.save(model, tmp_path / "ours", base=BASE)
    assert (said(peft.PeftModel.from_pretrained(make(), tmp_path / "ours").eval()) - ours).abs().max() <= 1e-5
    theirs = peft.PeftModel.from_pretrained(make(), tmp_path / "ours").eval()
    theirs.save_pretrained(tmp_path / "theirs")
    again, fresh = open_adapter(tmp_path / "theirs").tuning, make()
    assert isinstance(again, Peft)
    again.attach(fresh, seed=5)
    again.load(fresh, tmp_path / "theirs", base=BASE)
    assert (said(fresh.eval()) - ours).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "lohaa"}, "lohaa"),
        ({"kind": "prefix_tuning"}, "prefix_tuning"),
        ({"options": {"rank": 3}}, "rank"),
        ({"options": {"target_modules": ["nothing"]}}, "nothing"),
    ],
)
def test_what_peft_cannot_do_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(HoneError, match="M043") as caught:
        Peft(**settings).attach(make(), seed=0)
    assert said in caught.value.what
