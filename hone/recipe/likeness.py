"""The parts of a run, put together around a small model: the healthy subject of all proofs."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hone.core.events import Events
from hone.core.types import Batch, Conversation, Group
from hone.core.world import World
from hone.data.batching import micro_batches
from hone.data.chat import ChatTemplate
from hone.data.offline import Beside, Offline
from hone.data.rendering import dicts
from hone.models.kernels.fuse import fuse
from hone.models.load import Loaded
from hone.models.policy import Policy
from hone.models.recompute import recompute_blocks
from hone.prove.plain import asides
from hone.prove.subject import Judged, Row, Subject, Texts
from hone.recipe.build import held_out_loss, tuned
from hone.recipe.settings import Recipe
from hone.rollout.credit import Outcome
from hone.rollout.sample import Sampler
from hone.train import checkpoint
from hone.train.engine import Engine
from hone.train.hooks import Evaluate
from hone.train.loop import BaseHook, State, train
from hone.tuning.base import Untouched
from hone.tuning.opening import open_adapter

STEPS = 6
"""Optimiser steps of the run in small."""
BUDGET = 64
"""Tokens of its micro-batches."""
BASE = {"name": "the base of this run, in small", "fingerprint": "shrunken-0"}
RATE = 1e-3
"""Learning rate where the run leaves it to be advised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """What a subject is composed from. `recipe` is the run's, with a tuning that fits the small model."""

    recipe: Recipe
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    rows: Sequence[Row]
    groups: Sequence[Group]
    teacher: PreTrainedModel | None = None

    def loaded(self) -> Loaded:
        """A new copy of the base, as the run would load it, with its fast modules."""
        model = self.base()
        if not self.recipe.hardware.compile:
            fuse(model)
        recompute_blocks(model, self.recipe.hardware.recompute == "always")
        return Loaded(model, self.tokenizer, BASE["fingerprint"], (), BASE["name"], None)

    def base(self) -> PreTrainedModel:
        """A new copy of the base."""
        return copy.deepcopy(self.model)

    def policy(self) -> Policy:
        """The policy at the start of the run."""
        policy = tuned(self.loaded(), self.recipe.tuning, seed=self.recipe.seed).grow(self.recipe.objective.needs)
        if self.teacher is not None:
            teacher, tuning = copy.deepcopy(self.teacher), Untouched()
            tuning.attach(teacher, seed=0)
            policy.teacher = Policy.of(teacher, tuning)
        return policy


def subject_of(like: Likeness) -> Subject:
    """The healthy subject: every part is the one that `hone train` uses."""
    recipe, objective = like.recipe, like.recipe.objective
    optim = replace(recipe.optim, learning_rate=recipe.optim.learning_rate or RATE)
    source = Offline(
        like.groups, step_groups=-(-len(like.groups) // 2), budget=BUDGET, max_steps=STEPS, seed=recipe.seed, shuffle=recipe.data.shuffle
    ).asking(Beside(like.groups, objective.aside) if objective.aside is not None else ())  # fmt: skip

    def engine(policy: Policy, world: World) -> Engine:
        return Engine(policy, optim, world=world)

    def turn(engine: Any, done: int, until: int) -> None:
        train(engine, source, objective, (_StopAfter(until),), done=done, seed=recipe.seed)

    def batches(groups: Sequence[Group], budget: int, share: bool) -> list[Batch]:
        return micro_batches(groups, budget, share=share) + micro_batches(asides(objective, groups), budget, share=share, aside=True)

    def measure(policy: Policy, groups: Sequence[Group]) -> float:
        ask = partial(held_out_loss, policy, groups, objective, BUDGET, aside=asides(objective, groups))
        state = State(engine(policy, World()), 0, STEPS)
        Evaluate(ask, Events(None), every=1, patience=None).started(state)
        return state.metrics["eval_loss"]

    return Subject(
        rows=like.rows, groups=like.groups, texts=texts_of(like), objective=objective, tuning=recipe.tuning, optim=optim, total=STEPS,
        seed=recipe.seed, base=like.base, policy=like.policy, batches=batches, plan=source.batches, engine=engine, train=turn,
        measure=measure, save=save, open=partial(open_again, like), checkpoint=keep, resume=take_up, write=partial(write, like.tokenizer),
        **_credit(recipe),
    )  # fmt: skip


class _StopAfter(BaseHook):
    """Ends a run early."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, state: State) -> None:
        state.stop = "proved as far as wanted" if state.step >= self.step else state.stop


def save(policy: Policy, folder: Path) -> None:
    """Write the artifact of a run."""
    policy.save(folder, base=BASE)


def open_again(like: Likeness, folder: Path) -> Policy:
    """The artifact of a folder on a new copy of the base; a whole model needs none."""
    if like.recipe.tuning.about.artifact == "model":
        kind: Any = type(like.model)
        model, whole = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True), Untouched()
        whole.attach(model, seed=0)
        policy = Policy.of(model, whole)
        policy.load_heads(folder)
        return policy
    tuning = open_adapter(folder).tuning
    policy = tuned(like.loaded(), tuning, seed=0)
    policy.load(folder, base=BASE)
    return policy


def keep(engine: Any, step: int, folder: Path) -> None:
    """A checkpoint, as the loop's hook writes it."""
    checkpoint.write(folder, step, engine.save(), {"tokens": 0}, tell=_quiet)


def take_up(engine: Any, folder: Path) -> int:
    """Go on from the newest checkpoint."""
    found = checkpoint.latest(folder, tell=_quiet)
    assert found is not None, "there is no checkpoint"
    engine.load(checkpoint.read(found)[0])
    return found.step


def _quiet(sentence: str) -> None:
    """Nobody is told."""


def write(
    tokenizer: PreTrainedTokenizerBase, policy: Policy, prompts: Sequence[Sequence[int]], length: int
) -> list[tuple[list[int], list[float]]]:
    """Greedy answers by the sampler that rollouts, chat and the server use."""
    sampler = Sampler(policy.model, tokenizer, stock=policy.stock)
    answers = sampler.generate([list(prompt) for prompt in prompts], max_new_tokens=length, temperature=0.0)
    return [(list(answer.tokens), list(answer.logps)) for answer in answers]


def texts_of(like: Likeness) -> Texts:
    """The run's template, and what a server makes of the tokenizer that is saved with the artifact."""
    ours = like.tokenizer
    controls = [token.content for token in ours.added_tokens_decoder.values() if token.special]
    return Texts(
        decode=lambda ids: str(ours.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)),
        learn=like.recipe.data.learn,
        end=like.template.end_text,
        stops=frozenset(like.template.stop_ids),
        serve=_Server(ours, like.template),
        bos=ours.bos_token_id,
        controls=tuple(controls),
    )


class _Server:
    """Asks the saved tokenizer for prompts, by its own template and nothing of hone's."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> None:
        self.tokenizer, self.template = tokenizer, template
        self.saved: PreTrainedTokenizerBase | None = None

    def __call__(self, said: Conversation, tools: Sequence[Mapping[str, Any]]) -> list[int]:
        saved = self.saved = self.saved or self._save()
        found: Any = saved.apply_chat_template(
            dicts(said), tools=[dict(tool) for tool in tools] or None, add_generation_prompt=True, tokenize=True, return_dict=True
        )
        return list(found["input_ids"])

    def _save(self) -> PreTrainedTokenizerBase:
        mine: Any = copy.deepcopy(self.tokenizer)
        mine.chat_template = self.template.stored
        with tempfile.TemporaryDirectory() as place:
            mine.save_pretrained(place)
            return AutoTokenizer.from_pretrained(place, local_files_only=True)


def _credit(recipe: Recipe) -> dict[str, Any]:
    """What a run whose model writes for itself makes of rewards."""
    rollout = recipe.rollout
    if rollout is None or rollout.scheme.gives != "advantage":
        return {}
    scheme, named = rollout.scheme, rollout.credit if isinstance(rollout.credit, Mapping) else {}
    batched = scheme.name in ("batch_normalised", "gae") or named.get("scale") == "batch"

    def credit(judged: Sequence[Sequence[Judged]]) -> list[list[float]]:
        found = scheme([[outcome_of(one, rollout.kl) for one in group] for group in judged])
        return [[_mean(sequence.facts["advantage"]) for sequence in group] for group in found]

    return {"credit": credit, "per_group": not batched, "leash": rollout.kl}


def outcome_of(one: Judged, kl: float) -> Outcome:
    """An answer as credit sees it; where leaving the reference costs, each token pays for itself."""
    from hone.core.types import Sequence as Tokens

    count = len(one.log_ratios)
    sequence = Tokens([0] * (count + 1), [0.0] + [1.0] * count)
    return Outcome(sequence, one.reward, penalties=[kl * ratio for ratio in one.log_ratios] if kl else [], values=[0.0] * count)


def _mean(advantage: Any) -> float:
    """Over the learned tokens; the first token is not learned."""
    return sum(advantage[1:]) / (len(advantage) - 1)


def modules(model: nn.Module) -> int:
    """How many parameters a model has."""
    return sum(p.numel() for p in model.parameters())
