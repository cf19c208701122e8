"""Watches loss and gradient: what is not finite never moves a weight, and says which rows it came from."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from hone.core.errors import HoneError
from hone.core.types import Origin

_WINDOW, _ENOUGH = 64, 16
_SIGMA = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""
_SHOWN = 8

Emit = Callable[..., None]
"""`Events.emit`: a kind, and fields by name."""


class Health:
    """The verdict on every optimiser step, before the weights move.

    `limit` steps in a row that are not finite stop the run. A loss more than `spike` deviations (by the median) above
    its recent past is reported and let through.
    """

    def __init__(self, emit: Emit, *, limit: int = 3, spike: float = 10.0) -> None:
        self.emit, self.limit, self.spike = emit, limit, spike
        self.recent: list[float] = []
        self.bad: list[int] = []
        """The latest steps in a row that were skipped."""
        self.skipped = 0

    def observe(self, step: int, loss: float, grad_norm: float, origins: Sequence[Origin]) -> Literal["ok", "skip"]:
        """Judge a step by its mean loss and the norm of its whole gradient; `origins` are its rows.

        Raises F010 with a diagnosis at the `limit`-th bad step in a row.
        """
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self.bad = []
            self._look_for_spike(step, loss, origins)
            self.recent = [*self.recent, loss][-_WINDOW:]
            return "ok"
        self.bad.append(step)
        self.skipped += 1
        what = "loss" if not math.isfinite(loss) else "gradient"
        self.emit("skipped_step", code="F010", step=step, what=f"the {what} was not finite", rows=[str(origin) for origin in origins])
        if len(self.bad) >= self.limit:
            raise self._diagnosis(what, origins)
        return "skip"

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run judges as the uninterrupted one."""
        return {"recent": self.recent, "bad": self.bad, "skipped": self.skipped}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.recent, self.bad, self.skipped = list(state["recent"]), list(state["bad"]), state["skipped"]

    def _look_for_spike(self, step: int, loss: float, origins: Sequence[Origin]) -> None:
        if len(self.recent) < _ENOUGH:
            return
        middle = statistics.median(self.recent)
        deviation = _SIGMA * statistics.median(abs(x - middle) for x in self.recent)
        if loss > middle + self.spike * max(deviation, 1e-3 * abs(middle)):
            what = f"the loss jumped from about {middle:.4g} to {loss:.4g}"
            self.emit("loss_spike", code="F017", step=step, what=what, rows=[str(origin) for origin in origins])

    def _diagnosis(self, what: str, origins: Sequence[Origin]) -> HoneError:
        steps = f"steps {self.bad[0]} to {self.bad[-1]}" if len(self.bad) > 1 else f"step {self.bad[0]}"
        text = f"the {what} was not finite in {steps}; {self._cause(what)}"
        more = len(origins) - _SHOWN
        rows = ", ".join(str(origin) for origin in origins[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        fix = "the weights are those before these steps; `hone explain F010` lists what to try"
        return HoneError("F010", text, where=f"rows of the last one: {rows}", fix=fix)

    def _cause(self, what: str) -> str:
        """The likeliest reason, from what the run looked like before."""
        if not self.recent:
            return "no step was ever finite, so look at the model's weights and at these rows, not at the learning rate"
        if len(self.recent) >= 4 and statistics.median(self.recent[-4:]) > 1.5 * min(self.recent):
            return "the loss had been rising before, so the learning rate is probably too high"
        if what == "gradient":
            return "the loss itself was finite, so a number overflowed on the way back: try a wider number type"
        return "the loss had been healthy before, so look at these rows, and at the number type"
