"""Counters of a server, in the text format that Prometheus reads."""

from __future__ import annotations

import threading
import time
from collections import Counter

HELP = {
    "hone_requests_total": "Requests by route and status.",
    "hone_prompt_tokens_total": "Tokens of prompts.",
    "hone_cached_tokens_total": "Tokens of prompts that were held from before and not computed again.",
    "hone_completion_tokens_total": "Tokens of answers.",
    "hone_answers_total": "Answers that were written to their end.",
    "hone_answers_abandoned_total": "Answers whose client went away.",
    "hone_busy_seconds_total": "Seconds of computing.",
}


class Metrics:
    """Sums that any thread may add to."""

    def __init__(self) -> None:
        self._lock, self._sums, self._started = threading.Lock(), Counter[tuple[str, str]](), time.monotonic()

    def add(self, name: str, amount: float = 1, labels: str = "") -> None:
        assert name in HELP, name
        with self._lock:
            self._sums[name, labels] += amount  # type: ignore[assignment]

    def total(self, name: str) -> float:
        """The sum over all labels."""
        return sum(value for (found, _), value in self._sums.items() if found == name)

    def text(self, gauges: dict[str, float]) -> str:
        """Everything so far, with the values of the moment."""
        lines = []
        for name, help in HELP.items():
            lines += [f"# HELP {name} {help}", f"# TYPE {name} counter"]
            with self._lock:
                found = {labels: value for (key, labels), value in sorted(self._sums.items()) if key == name}
            lines += [f"{name}{labels} {value:g}" for labels, value in (found or {"": 0}).items()]
        for name, value in {**gauges, "hone_uptime_seconds": time.monotonic() - self._started}.items():
            lines += [f"# TYPE {name} gauge", f"{name} {value:g}"]
        return "\n".join(lines) + "\n"
