"""What only the model itself can tell the doctor: does it still write as its base does, does it stop, how much of its rank does it use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hone.core.config import parse
from hone.core.files import write_atomically
from hone.core.types import Group
from hone.core.types import Sequence as Tokens
from hone.data.prepare import prepare
from hone.data.settings import DataSettings
from hone.eval.likelihood import likelihood, loss
from hone.models.policy import Policy
from hone.recipe.build import Opened
from hone.recipe.opening import Bases, open_model
from hone.rollout.sample import Sampler
from hone.tuning.lora import parts

TEXTS, LENGTH = 16, 64
"""Texts that the base writes, and their tokens."""
ASKED = 12
"""Held-out questions that are answered."""
NAME = "probe.json"


def probe(folder: Path) -> dict[str, Any]:
    """Measure a finished run and write probe.json into it.

    `drift`: nats for each token by which text of the base's own became less likely, on average (an estimate of the divergence of the base
    from the run); `drift_base`: what the base gives it. `stops`: share of greedy answers that end by themselves. `rank_use`: effective
    rank of the adapter's changes as a share of its rank. What does not apply is left out. Raises F007 for a run without a model.
    """
    bases = Bases()
    run = open_model(folder, load=bases)
    base = open_model(str(run.resolved["model"]["name"]), load=bases)
    texts = _written(base)
    before, after = (loss(likelihood(one.policy, one.tokenizer, texts)) for one in (base, run))
    found: dict[str, Any] = {"drift": after - before, "drift_base": before}
    if run.resolved["objective"]["name"] in ("sft", "dft", "distill"):
        found["stops"] = _stops(run)
    if (used := rank_use(run.policy)) is not None:
        found["rank_use"] = used
    write_atomically(folder / NAME, json.dumps(found, indent=1))
    return found


def _written(base: Opened) -> list[Group]:
    """Texts drawn from the base, from a few words that it is likely to have met at the start of a text."""
    opening = base.tokenizer.encode("The", add_special_tokens=True)
    answers = Sampler(base.policy.model, base.tokenizer).generate(
        [opening] * TEXTS, max_new_tokens=LENGTH, stop_ids=(), seed=0, temperature=1.0
    )
    return [(Tokens([*opening, *one.tokens], [0.0] * len(opening) + [1.0] * len(one.tokens)),) for one in answers if one.tokens]


def _stops(run: Opened) -> float | None:
    """Share of the answers to held-out questions that end by themselves within twice the longest given answer."""
    held = prepare(parse(DataSettings, run.resolved["data"], section="data"), run.tokenizer, run.template).held_out[:ASKED]
    if not held:
        return None
    prompts = [_prompt(group[0]) for group in held]
    longest = 8 + 2 * max(group[0].learned for group in held)
    answers = Sampler(run.policy.model, run.tokenizer).generate(
        prompts, max_new_tokens=longest, stop_ids=run.template.stop_ids, temperature=0.0
    )
    return sum(answer.stop_reason == "stop" for answer in answers) / len(answers)


def _prompt(sequence: Tokens) -> list[int]:
    first = next((i for i, weight in enumerate(sequence.weights) if weight), len(sequence.tokens))
    return sequence.tokens[: max(1, first)]


@torch.no_grad()
def rank_use(policy: Policy) -> float | None:
    """Mean over the adapted layers of exp(entropy of the squared singular values of B A) / rank; None without such layers."""
    shares = [_effective(*part.pair()) for part in parts(policy.model).values()]
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None


def _effective(a_RI: Tensor, b_OR: Tensor) -> float | None:
    """Of one layer; None where nothing has moved. R rank, I inputs, O outputs."""
    a_RR, b_RR = (torch.linalg.qr(half.float()).R for half in (a_RI.T, b_OR))
    energy_R = torch.linalg.svdvals(b_RR @ a_RR.T).square()
    total = float(energy_R.sum())
    if total <= 0:
        return None
    share_R = energy_R / total
    return float(torch.special.entr(share_R).sum().exp()) / len(share_R)
