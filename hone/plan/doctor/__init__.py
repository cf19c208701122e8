"""The doctor: what a run's own numbers say about it. Importing this fills the table of findings."""

from __future__ import annotations

from hone.plan.doctor import data, fit, moves, rates, rewards
from hone.plan.doctor.base import FINDINGS, Diagnosis, Finding, Remedy, diagnose
from hone.plan.doctor.chart import Chart, Rows

__all__ = ["FINDINGS", "Chart", "Diagnosis", "Finding", "Remedy", "Rows", "data", "diagnose", "fit", "moves", "rates", "rewards"]
