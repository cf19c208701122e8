"""Worlds that answer back: the model and an environment take turns, and only what the model says is learned.

Every token that others wrote (questions, results of tools, the marks between turns) has weight 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any, Protocol

from hone.core.errors import HoneError
from hone.core.types import Conversation, Message, Sequence
from hone.data.chat import ChatTemplate
from hone.data.rendering import Tools
from hone.rollout.answer import Answer
from hone.rollout.draft import Draft, Pen, Writer
from hone.rollout.prompts import Prompt

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the world answers to what the model said."""

    messages: Conversation = ()
    """Results of tools, or the next thing that a user says."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """What this turn earned, by name; turns are added up."""
    done: bool = False


class Environment(Protocol):
    """One episode. Made afresh for each answer to a prompt."""

    tools: Tools
    """What may be called, for the chat template; may be empty."""

    def reset(self, prompt: Prompt) -> Conversation:
        """Begin: what the model sees first."""

    def step(self, said: Message) -> Reply:
        """The model has spoken. Calls that it made with <tool_call>{"name": ..., "arguments": {...}}</tool_call> are in `tool_calls`."""


def multi_turn(writer: Writer, template: ChatTemplate, make: Callable[[], Environment], *, turns: int = 8) -> Pen:
    """Episodes of at most `turns` turns of the model, all of a rollout side by side."""

    def write(prompts: Seq[Prompt], seed: int, sampling: dict[str, Any]) -> list[Draft]:
        episodes = [_Episode(make(), prompt, template) for prompt in prompts]
        for turn in range(turns):
            playing = [episode for episode in episodes if not episode.over]
            if not playing:
                break
            answers = writer.generate([e.tokens for e in playing], stop_ids=template.stop_ids, seed=seed + turn, **sampling)
            for episode, answer in zip(playing, answers, strict=True):
                episode.hear(answer)
        return [episode.draft() for episode in episodes]

    return write


class _Episode:
    """One conversation while it goes on: messages for the template, tokens for the model."""

    def __init__(self, environment: Environment, prompt: Prompt, template: ChatTemplate) -> None:
        self.environment, self.template, self.origin = environment, template, prompt.origin
        self.talk = list(environment.reset(prompt))
        self.tokens = template.prompt_ids(self.talk, environment.tools)
        self.weights, self.logps = [0.0] * len(self.tokens), [0.0] * len(self.tokens)
        self.said: list[str] = []
        self.earned: dict[str, float] = {}
        self.over, self.stopped = False, True

    def hear(self, answer: Answer) -> None:
        """Add what the model said, and let the world answer."""
        self._add(answer.tokens, 1.0, answer.logps)
        self.said.append(answer.text)
        message = spoken(answer.text)
        self.talk.append(message)
        self.stopped = answer.stop_reason == "stop"
        reply = self.environment.step(message)
        for name, reward in reply.rewards.items():
            self.earned[name] = self.earned.get(name, 0.0) + reward
        self.over = reply.done or not self.stopped or not reply.messages
        if not self.over:
            self._continue(reply.messages)

    def _continue(self, messages: Conversation) -> None:
        """The tokens from the end of what the model said to where it speaks again, as the template writes them.

        Raises R012 where the template writes earlier turns anew, so that what was sampled is not what would be trained.
        """
        before = self.template.sequence(tuple(self.talk), tools=self.environment.tools)
        end = max((i for i, weight in enumerate(before.weights) if weight), default=-1) + 1
        self.talk += messages
        whole = self.template.prompt_ids(self.talk, self.environment.tools)
        if whole[:end] != before.tokens[:end]:
            what = f"the chat template '{self.template.name}' writes earlier turns anew when the conversation goes on"
            raise HoneError("R012", what, where=str(self.origin), fix="choose another template: data.template=chatml")
        self._add(whole[end:], 0.0, [0.0] * len(whole[end:]))

    def _add(self, tokens: Seq[int], weight: float, logps: Seq[float]) -> None:
        self.tokens = [*self.tokens, *tokens]
        self.weights += [weight] * len(tokens)
        self.logps += logps

    def draft(self) -> Draft:
        sequence = Sequence(self.tokens, self.weights, {"old_logp": self.logps}, self.origin)
        return Draft(sequence, "\n".join(self.said), int(sum(self.weights)), self.stopped, self.earned)


def spoken(text: str) -> Message:
    """What the model said as a message: calls of tools apart from the rest. A call that is no JSON stays text."""
    calls = [call for call in map(_call, _CALL.findall(text)) if call is not None]
    return Message("assistant", text if not calls else _CALL.sub("", text).strip(), tool_calls=tuple(calls))


def _call(text: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str) or not isinstance(found.get("arguments", {}), dict):
        return None
    return {"type": "function", "function": {"name": found["name"], "arguments": found.get("arguments", {})}}
