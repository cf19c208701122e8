"""What an answer is worth: kinds of rewards by name, and the panel that asks several of them. Importing this fills the registry."""

from __future__ import annotations

from hone.rollout.rewards import code, gym, judge, maths, model, rules
from hone.rollout.rewards.base import REWARDS, Fault, Tools, Written
from hone.rollout.rewards.panel import Panel, Verdict

__all__ = ["REWARDS", "Fault", "Panel", "Tools", "Verdict", "Written", "code", "gym", "judge", "maths", "model", "rules"]
