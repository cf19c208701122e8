"""The rules of the field as checks: each a small function with a code, a level and a source. Importing this fills the table."""

from __future__ import annotations

from hone.plan.rules import comparing, data, model, numbers
from hone.plan.rules.base import RULES, Case, Finding, Rule, check

__all__ = ["RULES", "Case", "Finding", "Rule", "check", "comparing", "data", "model", "numbers"]
