"""What the model writes: with a cache and in company it writes, with the same log-probabilities, what it would write alone without.

Shape legend: N reads, V vocabulary.
"""

from __future__ import annotations

import torch

from hone.core.types import Sequence
from hone.prove import plain
from hone.prove.base import Found, Mute, proof, worst
from hone.prove.subject import Subject

LENGTH = 6
"""Tokens that are written."""
TIE = 1e-3
"""Nats within which two tokens are as likely."""


@proof("V025", bound=1e-3, unit="nats")
def cache(s: Subject) -> Found | Mute:
    """Written with a cache, among prompts of other lengths, each token is the likeliest, and as likely as without."""
    policy = plain.moved(s)
    prompts = _prompts(s)
    if not prompts:
        return Mute("no row has a prompt")
    twin = plain.twin(s, policy)
    found: dict[str, float] = {}
    for prompt, (tokens, logps) in zip(prompts, s.write(policy, prompts, LENGTH), strict=True):
        whole = Sequence([*prompt, *tokens], [0.0] * len(prompt) + [1.0] * len(tokens))
        with torch.no_grad():
            states = plain.alone(twin, whole)[len(prompt) - 1 : -1]
            logp_NV = twin.head().logits(states).log_softmax(-1)
        said = logp_NV[torch.arange(len(tokens)), torch.tensor(tokens)]
        found[f"after {len(prompt)} tokens"] = (said - torch.tensor(logps)).abs().max().item()
        lost = (logp_NV.max(-1).values - said).max().item()
        found[f"the likeliest after {len(prompt)} tokens"] = max(0.0, lost - TIE)
    return worst(found)


def _prompts(s: Subject) -> list[list[int]]:
    """What stands before the first learned token of each group."""
    firsts = [(group[0], plain.learned(group[0])) for group in s.groups]
    return [one.tokens[: at[0]] for one, at in firsts if at]
