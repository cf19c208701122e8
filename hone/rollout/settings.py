"""The `rollout` section of a run file: prompts that the model answers itself, and who judges the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from hone.core.config import settings
from hone.rollout.credit import CREDITS, Scheme
from hone.rollout.rewards.panel import OnError

Cut = Literal["keep", "mask", "drop"]


@settings
class Drawing:
    """How answers are drawn while training."""

    max_new_tokens: Annotated[int, Ge(1)] = 256
    """An answer that has not stopped by then is cut."""
    temperature: Annotated[float, Ge(0)] = 1.0
    """1 draws from the model's own distribution, which is what the objectives assume; 0 would write the same answer each time."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Draw only from the likeliest tokens that together reach this share."""
    top_k: Annotated[int, Ge(0)] = 0
    """Draw only from this many of the likeliest tokens; 0 is all."""
    min_p: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Draw only from tokens at least this share as likely as the likeliest."""
    stop_strings: tuple[str, ...] = ()
    """An answer ends when one of these has been written."""


@settings
class RolloutSettings:
    """Where sequences come from when the model writes them."""

    prompts: str | None = None
    """File, folder or hub id with a prompt in each row; an SFT file will do, its answers become what is expected. Or gym:TASK.
    None takes data.train."""
    rewards: str | tuple[str | Mapping[str, Any], ...] = ()
    """Who judges: names (see `hone list rewards`), file.py:function, or {name, weight, settings ...}. They are added up."""
    group_size: Annotated[int, Ge(1)] = 8
    """Answers to each prompt."""
    credit: str | Mapping[str, Any] = "centred"
    """From rewards to what each answer teaches (see `hone list credits`), as a name or {name, settings ...}."""
    sampling: Drawing = Drawing()
    """How answers are drawn."""
    kl: Annotated[float, Ge(0)] = 0.0
    """Taken off the reward for each token, times its log-ratio to the reference: RLHF's leash."""
    passes: Annotated[int, Ge(1)] = 1
    """How often each rollout is learned from."""
    parts: Annotated[int, Ge(1)] = 1
    """Optimiser steps of one pass: a rollout has optim.batch_size prompts for each."""
    environment: str | None = None
    """A world that answers back, as file.py:Class (see `hone.rollout.env`). None is question and answer."""
    turns: Annotated[int, Ge(1)] = 8
    """Most turns of the model in an environment."""
    engine: Literal["hone", "vllm"] = "hone"
    """Who writes: the live weights in this process, or vLLM, to which they are sent before each rollout."""
    rounds: Annotated[int, Ge(1)] = 1
    """Dynamic sampling: up to so many rounds of further prompts take the place of groups whose answers all got the same."""
    cut: Cut = "keep"
    """Answers that did not end by themselves: judged like others, judged but not learned (mask), or left out (drop)."""
    ahead: Annotated[int, Ge(0), Le(1)] = 0
    """1 writes the next rollout while this one is learned from: it is one rollout old, and its importance ratios correct for that."""
    on_error: OnError = "zero"
    """An answer that a reward has no score for: that reward counts as 0, the answer is dropped, or the run stops (fail)."""
    timeout: Annotated[float, Gt(0)] = 10.0
    """Seconds that judging an answer may take."""

    @property
    def wanted(self) -> tuple[str | Mapping[str, Any], ...]:
        """The rewards as a list."""
        return (self.rewards,) if isinstance(self.rewards, str) else self.rewards

    @property
    def scheme(self) -> Scheme:
        """The credit with its settings. Raises C001, C002 and C003."""
        named = {"name": self.credit} if isinstance(self.credit, str) else dict(self.credit)
        return CREDITS[str(named.pop("name", "centred"))].bind(named)

    @property
    def steps(self) -> int:
        """Optimiser steps of a rollout."""
        return self.passes * self.parts
