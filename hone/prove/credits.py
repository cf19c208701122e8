"""What a reward teaches: each group by itself, and straying from the reference costs."""

from __future__ import annotations

from hone.prove.base import Found, Mute, proof
from hone.prove.subject import Judged, Subject

REWARDS = ((0.0, 1.0, 0.25, 0.5), (3.0, 2.0, 2.5, 0.5), (0.1, 0.0, 0.3, 0.2))
"""Rewards of three groups of answers."""


@proof("V026", bound=1e-3, unit="of advantage")
def groups_apart(s: Subject) -> Found | Mute:
    """What an answer teaches does not change when every answer to another prompt is given a higher reward."""
    if s.credit is None:
        return Mute("nothing is rewarded here")
    if not s.per_group:
        return Mute("this credit is meant to look at the whole batch")
    before = s.credit([[Judged(reward, (0.0, 0.0)) for reward in group] for group in REWARDS])
    raised = [[reward + 7.0 * (number == 1) for reward in group] for number, group in enumerate(REWARDS)]
    after = s.credit([[Judged(reward, (0.0, 0.0)) for reward in group] for group in raised])
    if len(before) != len(REWARDS):
        return Mute("this credit chooses answers instead of weighing them")
    others = [abs(one - other) for number in (0, 2) for one, other in zip(before[number], after[number], strict=True)]
    return Found(max(others))


@proof("V027", bound=0, unit="of advantage")
def leash(s: Subject) -> Found | Mute:
    """Of two answers with one reward, the one that strays further from the reference teaches less."""
    if s.credit is None or not s.leash:
        return Mute("nothing is taken off for leaving the reference")
    found = s.credit([[Judged(1.0, (0.5, 0.9)), Judged(1.0, (0.0, 0.1)), Judged(1.0, (-0.1, -0.2)), Judged(0.0, (0.0, 0.0))]])
    if not found or len(found[0]) < 2:
        return Mute("this credit chooses answers instead of weighing them")
    return Found(found[0][0] - found[0][1] + 1e-6, "the answer that strays, less the one that stays")
