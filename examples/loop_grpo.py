"""GRPO in one screen: the seedling gets better at sums by nothing but right or wrong. `python examples/loop_grpo.py` takes two minutes.

The loop is the one that SFT uses, and here it does both: first forty steps on examples, so that there is something to reinforce, then
on-policy, where the source samples with the live weights, judges, gives credit, and hands the loop its batches.
"""

from __future__ import annotations

from hone.core.types import Message, Origin
from hone.data.chat import ChatTemplate
from hone.data.offline import Offline
from hone.demo import SEEDLING, Town
from hone.models.load import load
from hone.models.policy import Policy
from hone.objectives import OBJECTIVES
from hone.rollout.credit import CREDITS
from hone.rollout.draft import single_turn
from hone.rollout.on_policy import Crew, OnPolicy
from hone.rollout.prompts import Prompt
from hone.rollout.reading import reader
from hone.rollout.rewards import Panel
from hone.rollout.sample import Sampler
from hone.rollout.settings import Drawing, RolloutSettings
from hone.train.engine import Engine
from hone.train.loop import BaseHook, State, train
from hone.train.settings import OptimSettings
from hone.tuning.lora import Lora


class Rewards(BaseHook):
    """Remembers the mean reward of each step."""

    def __init__(self, source: OnPolicy) -> None:
        self.source, self.each = source, list[float]()

    def stepped(self, state: State) -> None:
        self.each.append(self.source.metrics["reward"])


def main(steps: int = 20, taught_steps: int = 40) -> list[float]:
    """Reinforce right sums; returns the mean reward of each step."""
    loaded = load(str(SEEDLING), dtype="float32")
    template, tuning = ChatTemplate.of(loaded.tokenizer), Lora(rank=16)
    tuning.attach(loaded.model, seed=0)
    policy = Policy.of(loaded.model, tuning)
    teacher, engine = (Engine(policy, OptimSettings(learning_rate=rate, schedule="constant")) for rate in (2e-3, 3e-4))

    taught = [[Message(**turn) for turn in row["messages"]] for row in Town().instructions("train") if row["task"] == "arithmetic"]
    examples = [(template.sequence(tuple(talk)),) for talk in taught]
    train(teacher, Offline(examples, step_groups=16, budget=2048, max_steps=taught_steps), OBJECTIVES["sft"])

    prompts = []
    for number, row in enumerate(Town().checkable("train"), start=1):
        asked = tuple(Message(m["role"], m["content"]) for m in row["prompt"])
        prompts.append(Prompt(asked, template.prompt_ids(asked), row, Origin("town", number)))

    crew = Crew(
        pen=single_turn(Sampler(loaded.model, loaded.tokenizer), template.stop_ids),
        panel=Panel.of(["number"]),  # 1 where the last number of the answer is the right one
        credit=CREDITS["centred"],
        read=reader(policy, budget=2048),
        version=lambda: engine.taken,
    )
    how = RolloutSettings(group_size=8, sampling=Drawing(max_new_tokens=24))
    source = OnPolicy(crew, prompts, how, step_prompts=8, total_steps=steps, seed=1)
    heard = Rewards(source)
    train(engine, source, OBJECTIVES["grpo"], (heard,))
    rewards = heard.each
    print(f"mean reward of the first five steps {sum(rewards[:5]) / 5:.2f}, of the last five {sum(rewards[-5:]) / 5:.2f}")
    return rewards


if __name__ == "__main__":
    main()
