"""Writes the certificate of a live model: asks it the probes, and takes sketches of its weights.

Shape legend: P positions, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.data.chat import ChatTemplate
from hone.data.rendering import dicts
from hone.export.proof.golden import Golden, Vector, likeliest, positions
from hone.export.proof.probes import Probe, probes
from hone.export.proof.sketch import Sketches
from hone.models.heads import head_of, text_config
from hone.models.policy import Policy, using_attention

Answering = Callable[..., Sequence[Any]]
"""`Sampler.generate`: prompts of token ids to answers."""
ANSWER = 24
"""Tokens of the greedy continuation."""


@torch.no_grad()
def record(
    policy: Policy,
    tokenizer: Any,
    template: ChatTemplate,
    answering: Answering,
    *,
    about: Mapping[str, Any],
) -> Golden:
    """Ask all probes and keep what was said. `about` says how the model was made: base, method, dtype of training.

    A probe that the template refuses, or that does not fit the context, is left out; the certificate says which and why.
    """
    model = policy.model
    model.eval()
    context = text_config(model).to_dict().get("max_position_embeddings") or text_config(model).to_dict().get("n_positions") or 2048
    specials = [token for token in tokenizer.all_special_tokens if token.strip()]
    made: list[tuple[Probe, list[int], str]] = []
    left_out: dict[str, str] = {}
    for probe in probes(specials=specials, words=min(150, context // 8)):
        try:
            ids, text = _prompt(probe, tokenizer, template)
        except HoneError as error:
            left_out[probe.name] = error.code
            continue
        if ids and len(ids) + ANSWER <= context:
            made.append((probe, ids, text))
        else:
            left_out[probe.name] = "does not fit the context"
    answers = answering([ids for _, ids, _ in made], max_new_tokens=ANSWER, stop_ids=template.stop_ids)
    vectors = [_vector(policy, tokenizer, probe, (ids, text), answer) for (probe, ids, text), answer in zip(made, answers, strict=True)]
    sketches = Sketches(model, policy.tuning)
    found, changes = sketches.take()
    facts = {**about, "left_out": left_out, **_identity(tokenizer, template, model)}
    return Golden(facts, tuple(vectors), found, changes, sketches.rows())


def _prompt(probe: Probe, tokenizer: Any, template: ChatTemplate) -> tuple[list[int], str]:
    if not probe.conversation:
        return list(tokenizer(probe.text)["input_ids"]), probe.text
    return template.prompt_ids(probe.conversation, probe.tools), template.text(probe.conversation, probe.tools, add_generation_prompt=True)


def _vector(policy: Policy, tokenizer: Any, probe: Probe, prompt: tuple[list[int], str], answer: Any) -> Vector:
    ids, text = prompt
    tokens = list(answer.tokens)
    read = positions(len(ids), len(tokens))
    with using_attention(policy.model, policy.stock):
        top, logp = likeliest(logprobs(policy.model, ids + tokens, read))
    written = list(tokenizer(text, add_special_tokens=not probe.conversation)["input_ids"])
    return Vector(
        probe.name, dicts(probe.conversation), json.loads(json.dumps(probe.tools)), text, ids, written,
        tokens, answer.text, answer.stop_reason == "stop", top, logp,
    )  # fmt: skip


@torch.no_grad()
def logprobs(model: nn.Module, tokens: Sequence[int], read: Sequence[int]) -> Tensor:
    """Log-probabilities of every next token at some places of a text, (P, V) fp32 or wider."""
    device = next(model.parameters()).device
    out = model.base_model(input_ids=torch.tensor([list(tokens)], device=device), use_cache=False)  # type: ignore[operator]
    logits = head_of(model).logits(out.last_hidden_state[0][list(read)])
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1).cpu()


def vocabulary_hash(tokens: Mapping[str, int]) -> str:
    """One hash for which token has which id."""
    ordered = sorted(tokens.items(), key=lambda item: item[1])
    return hashlib.sha256(json.dumps(ordered, ensure_ascii=False).encode()).hexdigest()


def _identity(tokenizer: Any, template: ChatTemplate, model: nn.Module) -> dict[str, Any]:
    return {
        "template": template.source,
        "now": template.now.isoformat(),
        "end_text": template.end_text,
        "stop_ids": list(template.stop_ids),
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "vocabulary": len(tokenizer),
        "vocabulary_hash": vocabulary_hash(tokenizer.get_vocab()),
        "computed_in": str(next(model.parameters()).dtype).removeprefix("torch."),
        "architecture": type(model).__name__,
    }
