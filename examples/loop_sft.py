"""Supervised fine-tuning in one screen, written with the four verbs. `python examples/loop_sft.py` takes half a minute.

Everything `hone train` adds to this (files, resume, evaluation, reports) hangs around these lines without changing them.
"""

from __future__ import annotations

from hone.core.types import Message
from hone.data.batching import micro_batches
from hone.data.chat import ChatTemplate
from hone.demo import SEEDLING, Town
from hone.models.load import load
from hone.models.policy import Policy
from hone.objectives import OBJECTIVES
from hone.rollout.sample import Sampler
from hone.train.engine import Engine
from hone.train.settings import OptimSettings
from hone.tuning.lora import Lora


def main(steps: int = 60) -> float:
    """Teach the seedling to sum at the till; returns the last loss."""
    loaded = load(str(SEEDLING), dtype="float32")
    template = ChatTemplate.of(loaded.tokenizer)
    tuning = Lora(rank=16)
    tuning.attach(loaded.model, seed=0)
    engine = Engine(
        Policy.of(loaded.model, tuning), OptimSettings(learning_rate=2e-3), sampler=Sampler(loaded.model, loaded.tokenizer).generate
    )

    rows = [row for row in Town().instructions("train") if row["task"] == "arithmetic"]
    talks = [tuple(Message(m["role"], m["content"]) for m in row["messages"]) for row in rows]
    groups = [(template.sequence(talk),) for talk in talks]

    loss = 0.0
    for step in range(steps):
        chosen = [groups[(16 * step + i) % len(groups)] for i in range(16)]
        tally = engine.forward_backward(micro_batches(chosen, budget=2048), OBJECTIVES["sft"])
        engine.step(learning_rate=2e-3, norm=engine.gradient_norm(tally))
        loss = tally.means()["loss"]
        if step % 10 == 0:
            print(f"step {step:3d}  loss {loss:.3f}")

    question = talks[0][:1]
    answer = engine.sample([template.prompt_ids(question)], max_new_tokens=16, stop_ids=template.stop_ids)[0]
    print(f"{question[0].content}  ->  {loaded.tokenizer.decode(answer.tokens, skip_special_tokens=True)}")
    return loss


if __name__ == "__main__":
    main()
