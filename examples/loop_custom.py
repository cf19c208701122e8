"""A preference loss of your own: one decorated function, and everything else is there. `python examples/loop_custom.py`.

From the command line: `hone train my_file.py:my_loss model=... data=...`, with the function in a file of its own.
"""

from __future__ import annotations

from torch.nn.functional import logsigmoid

from examples import loop_dpo
from hone.core.types import Loss, Signals
from hone.objectives import OBJECTIVES, objective
from hone.objectives.paired import log_ratios, preferred


@objective(needs="logp ref_logp", unit="group", data="pair", pace=0.025)
def tempered(s: Signals, *, beta: float = 0.1, most: float = 2.0) -> Loss:
    """DPO whose log-ratios count no further than `most` nats: a pair that is settled is left alone."""
    chosen_G, rejected_G = (most * (ratio_G / most).tanh() for ratio_G in log_ratios(s))
    return preferred(-logsigmoid(beta * (chosen_G - rejected_G)), beta * chosen_G, beta * rejected_G)


def main(steps: int = 12) -> float:
    """Train the seedling with it, in the loop of `loop_dpo`; returns the share of pairs whose better answer wins."""
    print(f"settings of {OBJECTIVES['tempered'].name}: {OBJECTIVES['tempered'].full}")
    return loop_dpo.main(steps, OBJECTIVES["tempered"])


if __name__ == "__main__":
    main()
