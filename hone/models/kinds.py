"""Which models can be trained here: causal language models of a known architecture, plain or quantised by bitsandbytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from hone.core.errors import HoneError
from hone.core.registry import nearest
from hone.plan.packed import scheme_of
from hone.plan.shapes import quantisation

CHOOSE = "choose a causal language model (its config.json says ...ForCausalLM)"


def check_kind(config: Mapping[str, Any], *, trust_remote_code: bool, where: str) -> None:
    """Raise M006 for a model that cannot be trained as a causal language model, M014 for an unknown architecture."""
    method = quantisation(config)
    if method is not None and scheme_of(config) is None:
        what = f"the weights are already quantised ({method}): of the ways to do that, only bitsandbytes' can be trained on here"
        raise HoneError("M006", what, where=where, fix="start from the model that it was made from (the card's base_model)")
    if trust_remote_code and config.get("auto_map"):
        return
    family = str(config.get("model_type") or "")
    if not family:
        raise HoneError("M013", "config.json names no model_type", where=where, fix="use the config.json that came with the model")
    if family not in CONFIG_MAPPING:
        raise _unknown(family, config.get("transformers_version"), where)
    reason = _not_causal(config, family)
    if reason:
        raise HoneError("M006", reason, where=where, fix=CHOOSE)


def _unknown(family: str, saved_with: Any, where: str) -> HoneError:
    what = f"this transformers ({transformers.__version__}) knows no architecture '{family}'"
    newer = f"pip install -U transformers (the model was saved with {saved_with})" if saved_with else ""
    return HoneError("M014", what, where=where, fix=newer or nearest(family, CONFIG_MAPPING))


def _not_causal(config: Mapping[str, Any], family: str) -> str:
    """Why a known architecture is no causal language model; empty if it is one."""
    named = [str(name) for name in config.get("architectures") or []]
    shown = ", ".join(named) or family
    if config.get("is_encoder_decoder"):
        return f"{shown} is an encoder-decoder, which reads a source and writes a target; it is trained another way"
    if family in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return f"{shown} reads images as well as text; only its text-only relatives can be trained"
    # transformers files encoders under causal models too, for the rare copies that were turned into decoders.
    turned = family in MODEL_FOR_MASKED_LM_MAPPING_NAMES or family in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    causal = family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and (not turned or bool(config.get("is_decoder")))
    classes = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if not causal or (named and not any(name.endswith("ForCausalLM") or name in classes for name in named)):
        return f"{shown} is no causal language model: it does not write text from left to right"
    return ""
