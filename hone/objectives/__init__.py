"""What we want from log-probabilities. Importing this fills the registry."""

from __future__ import annotations

from hone.objectives import distill, mixed, paired, policy, reward, supervised, unpaired
from hone.objectives.base import OBJECTIVES, Objective, objective

__all__ = ["OBJECTIVES", "Objective", "distill", "mixed", "objective", "paired", "policy", "reward", "supervised", "unpaired"]
