"""What a pipeline's table says of each model, on rows that none of its stages learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from hone.core.config import parse
from hone.core.types import Group, Message
from hone.data.batching import micro_batches
from hone.data.prepare import prepare
from hone.data.settings import DataSettings
from hone.eval.likelihood import likelihood, loss
from hone.models.policy import Policy, evaluating
from hone.recipe.build import Opened
from hone.recipe.opening import open_model
from hone.recipe.pipeline import plan
from hone.rollout.questions import prepare_questions
from hone.rollout.sample import Sampler

MOST = 128
"""Rows of each measure."""
BUDGET = 4096

Measure = Callable[[Opened], Mapping[str, float]]


def of(name: str, raw: Mapping[str, Any]) -> Measure:
    """All that can be measured with the data that the stages of a pipeline have."""
    found: list[Measure] = []
    stages = plan(name, raw)
    for stage, _, sections in stages:
        data = parse(DataSettings, sections["data"], section="data")
        if stage.method == "sft":
            found.append(partial(_loss, data))
        if stage.data == "preferences":
            found.append(partial(_preference, data))
        if stage.judge:
            judge = next(place for other, place, _ in stages if other.name == stage.judge)
            longest = int(sections.get("rollout", {}).get("sampling", {}).get("max_new_tokens", 256))
            found.append(_reward(str(judge), data, longest))
    return lambda opened: {key: value for measure in found for key, value in measure(opened).items()}


def _loss(data: DataSettings, opened: Opened) -> Mapping[str, float]:
    """Nats for each learned token of the good answers that were kept aside."""
    groups = prepare(data, opened.tokenizer, opened.template).held_out[:MOST]
    return {"held-out loss": loss(likelihood(opened.policy, opened.tokenizer, groups))}


def _preference(data: DataSettings, opened: Opened) -> Mapping[str, float]:
    pairs = prepare(data, opened.tokenizer, opened.template, shape="pair").held_out[:MOST]
    return {"prefers the chosen": preferred(opened.policy, pairs)}


@torch.no_grad()
def preferred(policy: Policy, pairs: Sequence[Group]) -> float:
    """The share of pairs whose chosen answer the model finds likelier, token for token."""
    right = 0.0
    with evaluating(policy.model):
        for batch in micro_batches(pairs, BUDGET):
            signals = policy.signals(batch.to(policy.device), "logp")
            mean_S = signals.mean(signals.logp)
            right += float((mean_S[0::2] > mean_S[1::2]).sum())
    return right / max(1, len(pairs))


def _reward(judge: str, data: DataSettings, longest: int) -> Measure:
    """The reward model's mean score of greedy answers to prompts that were kept aside."""

    def measure(opened: Opened) -> Mapping[str, float]:
        kept = prepare_questions(data, opened.template).kept[:MOST]
        answers = Sampler(opened.policy.model, opened.tokenizer).generate(
            [prompt.ids for prompt in kept], stop_ids=opened.template.stop_ids, max_new_tokens=longest
        )
        talks = [(*p.conversation, Message("assistant", a.text)) for p, a in zip(kept, answers, strict=True)]
        scores = open_model(judge).score(talks) if talks else [0.0]
        return {"reward": sum(scores) / len(scores)}

    return measure
