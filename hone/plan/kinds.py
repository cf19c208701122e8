"""What a model is, read from its files alone: base or instruct, how it was quantised, its template, its licence, its faults."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hone.core.errors import HoneError
from hone.plan.headers import stored_tensors
from hone.plan.packed import Share, contradiction, share_of
from hone.plan.shapes import ModelFacts, facts_of, model_facts, read_json

Kind = Literal["base", "instruct"]
INSTRUCT = re.compile(r"(instruct|chat|[-_]it\b|assistant|dpo|rlhf|sft|thinking|reason|zephyr|vicuna|alpaca|tulu|hermes)", re.IGNORECASE)
BASE = re.compile(r"([-_]base\b|[-_]pt\b|pretrain)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Identity:
    """What `hone model info` tells. `because` gives the reason for base or instruct."""

    name: str
    facts: ModelFacts
    kind: Kind
    because: str
    template: bool
    quantised: str | None
    """In words, None for plain weights."""
    files: int
    """Bytes of the weights on the disk; 0 where they are not here."""
    licence: str | None
    share: Share
    """The quantised part of the weights, as they lie in the files."""
    doubt: str
    """Where name, configuration and files say different things of the quantisation; empty if they agree."""


def identity(name: str, folder: Path) -> Identity:
    """Everything about a model from its folder (and the name by which it was asked for). Raises M013 and M005 for broken files."""
    config = read_json(folder / "config.json")
    stored = sorted(folder.glob("*.safetensors"))
    headers = stored_tensors(folder) if stored else {}
    facts = model_facts(folder) if stored else facts_of(config, where=str(folder / "config.json"))
    template = has_template(folder)
    kind, because = base_or_instruct(name, template)
    licence = _licence(folder)
    bytes_ = sum(file.stat().st_size for file in stored)
    doubt = contradiction(name, config, headers or None)
    return Identity(
        name, facts, kind, because, template, quantisation_of(name, config), bytes_, licence, share_of(None, (), headers), doubt
    )


def has_template(folder: Path) -> bool:
    """Whether the tokenizer brings a chat template."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    file = folder / "tokenizer_config.json"
    return file.is_file() and bool(_object(file).get("chat_template"))


def base_or_instruct(name: str, template: bool) -> tuple[Kind, str]:
    """By the words of the name first, then by whether there is a chat template. Some base models carry one, and their name says so."""
    last = Path(name.rstrip("/")).name
    said = BASE.search(last)
    if said is not None:
        return "base", f"its name says '{said[0].strip('-_')}'"
    said = INSTRUCT.search(last)
    if said is not None:
        return "instruct", f"its name says '{said[0].strip('-_')}'"
    if template:
        return "instruct", "it comes with a chat template"
    return "base", "it has no chat template, and its name says nothing else"


def quantisation_of(name: str, config: Mapping[str, Any]) -> str | None:
    """How the weights are stored, by the config first and the name second, in words; None for plain weights.

    A skip list other than the head means that somebody chose layers to keep: a dynamic quantisation.
    """
    settings = config.get("quantization_config")
    last = Path(name).name.lower()
    if not isinstance(settings, Mapping):
        if "bnb-4bit" in last:
            return "dynamic 4-bit by its name, though the config does not say so" if "unsloth" in last else "4-bit by its name"
        return None
    method = str(settings.get("quant_method", "unknown"))
    if settings.get("load_in_4bit"):
        skipped = [each for each in settings.get("llm_int8_skip_modules") or () if each not in ("lm_head", "embed_tokens")]
        kind = f"dynamic 4-bit ({len(skipped)} modules kept in 16)" if skipped else "standard 4-bit"
        double = ", scales quantised again" if settings.get("bnb_4bit_use_double_quant") else ""
        return f"{kind}, {settings.get('bnb_4bit_quant_type', 'fp4')}{double} (bitsandbytes)"
    if settings.get("load_in_8bit"):
        return "8-bit (bitsandbytes)"
    bits = settings.get("bits") or settings.get("num_bits")
    return f"{method}, {bits}-bit" if bits else method


def _licence(folder: Path) -> str | None:
    """From the card's front matter, or the presence of a licence file."""
    card = folder / "README.md"
    if card.is_file():
        said = re.search(r"^license:\s*(\S+)", card.read_text("utf-8", errors="replace")[:4000], re.MULTILINE)
        if said is not None:
            return said[1]
    return "see LICENSE" if (folder / "LICENSE").is_file() else None


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except ValueError:
        raise HoneError("M013", f"{file.name} is not valid JSON", where=str(file), fix="copy or download it again") from None
    return found if isinstance(found, dict) else {}
