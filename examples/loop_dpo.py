"""Direct preference optimisation in one screen, written with the four verbs. `python examples/loop_dpo.py` takes a minute.

The better answers are polite, short and signed, the worse ones lack one of it. The loss begins at ln 2 = 0.693.
"""

from __future__ import annotations

from hone.core.types import Message
from hone.data.batching import micro_batches
from hone.data.chat import ChatTemplate
from hone.demo import SEEDLING, Town
from hone.models.load import load
from hone.models.policy import Policy
from hone.objectives import OBJECTIVES, Objective
from hone.train.engine import Engine
from hone.train.settings import OptimSettings
from hone.tuning.lora import Lora

RATE = 3e-4


def main(steps: int = 24, objective: Objective = OBJECTIVES["dpo"]) -> float:
    """Train on pairs; returns the share of them whose better answer wins at the end."""
    loaded = load(str(SEEDLING), dtype="float32")
    template = ChatTemplate.of(loaded.tokenizer)
    tuning = Lora(rank=16)
    tuning.attach(loaded.model, seed=0)
    engine = Engine(Policy.of(loaded.model, tuning), OptimSettings(learning_rate=RATE))

    def talk(row: dict, side: str) -> tuple[Message, ...]:
        asked = [Message(m["role"], m["content"], weight=0.0) for m in row["prompt"]]
        return (*asked, *(Message(m["role"], m["content"]) for m in row[side]))

    rows = list(Town().preferences("train"))
    groups = [tuple(template.sequence(talk(row, side)) for side in ("chosen", "rejected")) for row in rows[: 8 * steps]]

    accuracy = 0.0
    for step in range(steps):
        batches = micro_batches(groups[8 * step : 8 * step + 8], budget=2048)  # the prompt of a pair is computed once
        tally = engine.forward_backward(batches, objective)  # the reference is the same model with the adapter stepping aside
        engine.step(learning_rate=RATE, norm=engine.gradient_norm(tally))
        means = tally.means()
        accuracy = 0.8 * accuracy + 0.2 * means["accuracy"] if step else means["accuracy"]
        if step % 6 == 0:
            print(f"step {step:3d}  loss {means['loss']:.3f}  better answer wins {accuracy:.0%}  margin {means['margin']:+.3f}")
    return accuracy


if __name__ == "__main__":
    main()
