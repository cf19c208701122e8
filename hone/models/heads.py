"""The language-model head of any architecture: its weight, bias, scale and soft cap, checked against the model itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from hone.core.errors import HoneError
from hone.models.logprob import Head
from hone.tuning.rows import HeadRows


def text_config(model: nn.Module) -> Any:
    """The configuration of the language part; multimodal models keep it one level down."""
    config: Any = model.config
    return config.get_text_config()


def head_of(model: nn.Module) -> Head:
    """The head as it stands now, with the scale and soft cap that the model's configuration names."""
    layer = model.get_output_embeddings()  # type: ignore[operator]
    if layer is None:
        raise HoneError("M006", "this model has no language-model head", fix="choose a causal language model")
    options = text_config(model).to_dict()
    scale = float(options.get("logit_scale") or 1.0)
    if options.get("logits_scaling"):
        scale /= float(options["logits_scaling"])
    cap = options.get("final_logit_softcapping")
    if not isinstance(layer, HeadRows):
        return Head(layer.weight, layer.bias, scale, cap)
    head = Head(layer.table, layer.bias, scale, cap)
    return replace(head, moved_K=layer.get_buffer("tokens"), change_KD=layer.change()) if layer.active else head


@torch.no_grad()
def check(model: nn.Module) -> None:
    """Compare our head with the model's own logits on a few tokens. Raises M012 where they differ."""
    device = next(model.parameters()).device
    tokens = torch.arange(3, 11, device=device)[None] % text_config(model).vocab_size
    training = model.training
    model.eval()
    own = model(input_ids=tokens, use_cache=False).logits[0].float().log_softmax(-1)
    hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[0]  # type: ignore[operator]
    ours = head_of(model).logits(hidden).float().log_softmax(-1)
    model.train(training)
    if (own - ours).abs().max() > 0.05 * own.abs().max().clamp(min=1):
        raise HoneError("M012", "this model's head does more than hone knows how to reproduce", fix="please report the architecture")
