"""Stops a run whose writer is not the policy that learns: its log-probabilities are measured, not trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq

from hone.core.errors import HoneError
from hone.rollout.draft import Draft
from hone.rollout.on_policy import Check, Read

ALLOWED = 0.05
"""Mean absolute difference in nats. An engine with other kernels in bf16 shows about 0.01; one with other weights far more."""
CHECKED = 16
"""Answers that are read again."""


def gate(read: Read, *, every: int = 1, synced: Callable[[], int] | None = None, allowed: float = ALLOWED) -> Check:
    """A check for `Crew.check`, done where the policy has taken a multiple of `every` steps, so that a resumed run tells the same.

    `synced` tells the version of the weights that the writer holds. Raises R006 where log-probabilities differ by more than `allowed`
    on average, and R007 where the writer holds other weights than the policy.
    """

    def check(drafts: Seq[Draft], version: int) -> Mapping[str, float]:
        claimed = max((int(draft.sequence.facts["version"]) for draft in drafts), default=version)  # type: ignore[arg-type]
        if synced is not None and synced() < claimed:
            what = f"the engine writes with the weights of step {synced()}, and the policy was at step {claimed}"
            raise HoneError("R007", what, where="rollout", fix="send the weights before each rollout")
        if claimed != version or version % every:
            return {}  # answers written ahead are of weights that have moved on: their ratios tell
        gaps = measure(read, drafts[:CHECKED])
        mean = sum(gaps) / max(1, len(gaps))
        if mean > allowed:
            what = f"the writer and the policy disagree by {mean:.3f} nats a token on what was just written (allowed: {allowed})"
            fix = "send the weights, use the same type and template on both sides, or write in-process"
            raise HoneError("R006", what, where="rollout", fix=fix)
        return {"logp_gap": mean, "logp_gap_max": max(gaps, default=0.0)}

    return check


def measure(read: Read, drafts: Seq[Draft]) -> list[float]:
    """|log p when written - log p now| of every learned token, in nats."""
    gaps: list[float] = []
    for draft, said in zip(drafts, read([draft.sequence for draft in drafts], "logp"), strict=True):
        old = draft.sequence.facts["old_logp"]
        assert isinstance(old, list)
        at = [j for j, weight in enumerate(draft.sequence.weights) if j and weight]
        gaps += [abs(old[j] - now) for j, now in zip(at, said["logp"], strict=True)]
    return gaps
