"""A run on a quantised base: what is asked for, what contradicts, what is chosen, and that it is the base in every place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone.core.errors import HoneError
from hone.plan.packed import Scheme
from hone.recipe.quantised import automatic
from hone.recipe.settings import resolve
from hone.recipe.words import read

BASE = ("model=a/b", "data=x.jsonl")


def asked(*words: str) -> Any:
    raw, notes = read("sft", [*BASE, *words])
    recipe = resolve(raw)
    return recipe.model.scheme, recipe.resolved["tuning"]["method"], notes


@pytest.mark.parametrize(
    ("words", "scheme", "method"),
    [
        (("quantise=nf4",), Scheme("nf4", double=True), "lora"),
        (("model.quantise=fp4", "model.double_quant=false"), Scheme("fp4"), "lora"),
        (("quantize=int8", "tuning=dora"), Scheme("int8"), "dora"),
        (("load_in_4bit=true",), Scheme("nf4", double=True), "lora"),
        (("load_in_8bit=true",), Scheme("int8"), "lora"),
        (("load_in_4bit=true", "bnb_4bit_quant_type=nf4"), Scheme("nf4", double=True), "lora"),
        (("load_in_16bit=true",), None, "lora"),
        (("bnb_4bit_quant_type=fp4", "load_in_4bit=true"), Scheme("fp4", double=True), "lora"),
        (("tuning=qlora",), Scheme("nf4", double=True), "lora"),
        (("tuning=qlora", "quantise=int8"), Scheme("int8"), "lora"),
        (("load_in_4bit=false", "tuning=full"), None, "full"),
        (("tuning=auto",), None, "lora"),
    ],
)
def test_bits_by_any_of_their_names(words: tuple[str, ...], scheme: Scheme | None, method: str) -> None:
    assert asked(*words)[:2] == (scheme, method)


@pytest.mark.parametrize(
    ("words", "both"),
    [
        (("load_in_4bit=true", "load_in_8bit=true"), ("load_in_4bit", "load_in_8bit")),
        (("load_in_4bit=true", "load_in_16bit=true"), ("load_in_4bit", "load_in_16bit")),
        (("load_in_8bit=true", "load_in_16bit=true"), ("load_in_8bit", "load_in_16bit")),
        (("full_finetuning=true", "load_in_4bit=true"), ("full_finetuning", "load_in_4bit")),
        (("full_finetuning=true", "load_in_8bit=true"), ("full_finetuning", "load_in_8bit")),
        (("full_finetuning=true", "load_in_16bit=true"), ("full_finetuning", "load_in_16bit")),
        (("load_in_8bit=true", "quantise=nf4"), ("load_in_8bit", "quantise")),
        (("load_in_8bit=true", "bnb_4bit_quant_type=fp4"), ("load_in_8bit", "bnb_4bit_quant_type")),
        (("tuning=full", "quantise=nf4"), ("tuning", "quantise")),
        (("tuning=freeze", "model.quantise=int8"), ("tuning", "model.quantise")),
        (("tuning=qlora", "quantise=none"), ("qlora", "model.quantise")),
    ],
)
def test_two_at_once_are_an_error_that_names_both(words: tuple[str, ...], both: tuple[str, str]) -> None:
    with pytest.raises(HoneError) as fault:
        asked(*words)
    assert fault.value.code == "C100"
    assert all(name in str(fault.value) for name in both)


def test_a_run_file_is_checked_as_the_words_are(tmp_path: Path) -> None:
    with pytest.raises(HoneError, match=r"C100.*tuning\.method=freeze.*nf4"):
        resolve({"model": {"name": "a/b", "quantise": "nf4"}, "data": {"train": "x"}, "tuning": {"method": "freeze"}})


@pytest.mark.parametrize(
    ("device", "raw", "quantise", "says"),
    [
        ("cuda", {}, "nf4", "QLoRA"),
        ("cuda", {"tuning": {"method": "auto"}}, "nf4", "QLoRA"),
        ("cpu", {}, "none", "no GPU"),
        ("cuda", {"tuning": {"method": "lora"}}, "none", None),
        ("cuda", {"tuning": {"method": "full"}}, "none", None),
        ("cuda", {"model": {"quantise": "none"}}, "none", "asked for"),
        ("cuda", {"tuning": {"rank": 8}}, "nf4", "QLoRA"),
    ],
)
def test_the_method_that_is_chosen_and_the_reason(device: str, raw: dict[str, Any], quantise: str, says: str | None) -> None:
    pytest.importorskip("bitsandbytes", reason="without it, nothing is quantised by itself")
    found, reasons = automatic(raw, device)
    assert found["model"].get("quantise", "none") == quantise
    assert (says in reasons["tuning.method"]) if says else not reasons
