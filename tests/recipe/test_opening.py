"""Models that are opened together hold what they have in common once, and do not disturb each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hone.cli.main import main
from hone.core.errors import HoneError
from hone.models.policy import using_attention
from hone.recipe.opening import Bases, open_model
from hone.tuning.lora import Lora, lora_layers


@pytest.fixture
def folder(tmp_path: Path, tiny_llama: Callable[..., Any], tiny_tokenizer: Any) -> Path:
    model = tiny_llama()
    model.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    tuning = Lora(rank=2)
    tuning.attach(model, seed=0)
    for name, amount in (("one", 0.1), ("two", -0.2)):
        for layer in lora_layers(model).values():
            layer.b.data.fill_(amount)
        (tmp_path / name).mkdir()
        tuning.save(model, tmp_path / name, base={"name": str(tmp_path / "base")})
    return tmp_path


@torch.no_grad()
def said(model: Any) -> torch.Tensor:
    with using_attention(model, "eager"):
        return model(input_ids=torch.arange(5, 15)[None]).logits


def test_several_on_one_base_are_what_each_is_alone(folder: Path) -> None:
    bases = Bases()
    names = ("base", "one", "two")
    together = [open_model(folder / name, load=bases).policy.model for name in names]
    bases.check("two")
    for name, model in zip(names, together, strict=True):
        torch.testing.assert_close(said(model), said(open_model(folder / name).policy.model))
    weights = [{p.data_ptr() for p in model.parameters() if not p.requires_grad} for model in together]
    assert weights[0] == weights[1] == weights[2]
    with using_attention(together[1], "eager"):
        assert together[0].config._attn_implementation != "eager"


def test_a_model_that_writes_into_the_shared_base_is_found_out(folder: Path) -> None:
    bases = Bases()
    model = open_model(folder / "base", load=bases).policy.model
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    with pytest.raises(HoneError, match="S043"):
        bases.check("base")


@pytest.mark.parametrize("text", ["", '{"model": ', "[]", '{"model": "x"}'])
def test_a_run_whose_settings_are_damaged_is_told(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "resolved.json").write_text(text)
    (tmp_path / "ledger.json").write_text('{"total": 0, "sources": {}}')
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    for words in (
        ["chat", str(tmp_path)],
        ["export", str(tmp_path), "--to", "merged"],
        ["train", "sft", f"model={tmp_path}", f"data={tmp_path / 'rows.jsonl'}", f"output={tmp_path / 'run'}"],
    ):
        status, said = main(words), capsys.readouterr().err
        assert status == 4 and "F062" in said and "resolved.json" in said, said
