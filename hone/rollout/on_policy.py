"""Sequences that the policy writes itself: when the loop asks for a step it samples, judges, gives credit, and hands out batches.

What is sampled is a function of (seed, rollout) and of the weights, so nothing needs to be stored for a run to resume bit for bit;
only rollouts that outlive a step, because they are learned from several times or written ahead, travel with the checkpoint.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Seq
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hone.core.errors import HoneError
from hone.core.faults import fault_point
from hone.core.types import Batch, Group, Sequence
from hone.data.batching import micro_batches
from hone.rollout.credit import Outcome, Scheme, contrast
from hone.rollout.draft import Draft, Pen, draft_of, sequence_of
from hone.rollout.prompts import Prompt
from hone.rollout.rewards import Panel, Verdict, Written
from hone.rollout.settings import RolloutSettings

Read = Callable[[Seq[Sequence], str], list[dict[str, list[float]]]]
"""(sequences, signals) -> what the policy says at each learned token, by signal; see `hone.rollout.reading.reader`."""
Check = Callable[[Seq[Draft], int], Mapping[str, float]]
"""(drafts, version of the policy) -> numbers to be shown; it raises where the writer cannot be trusted."""


@dataclass(frozen=True, slots=True)
class Crew:
    """Those who make a rollout."""

    pen: Pen
    """Who writes."""
    panel: Panel
    """Who judges."""
    credit: Scheme
    read: Read
    """Who reads values and reference log-probabilities, where credit or `rollout.kl` need them."""
    version: Callable[[], int]
    """How many steps the weights at hand have taken."""
    check: Check = lambda drafts, version: {}
    """Compares what the writer thought of its tokens with what the policy does; see `hone.rollout.gate`."""
    sync: Callable[[], None] | None = None
    """Sends the weights to a writer that has weights of its own, and can therefore write while the policy learns."""
    tell: Callable[..., None] = lambda kind, **fields: None
    agree: Callable[[Callable[[], Verdict]], Verdict] = lambda judge: judge()
    """Where several processes learn together, one judges and all hear the same; see `hone.rollout.ranks`."""


@dataclass(slots=True)
class Rollout:
    """What was written, judged and credited at one time."""

    index: int
    groups: list[Group]
    metrics: dict[str, float] = field(default_factory=dict)


class OnPolicy:
    """A source of steps whose sequences the live policy writes. `step_prompts` prompts make one optimiser step.

    Sequences carry the facts `version` (how many steps the policy had taken when it wrote them), `old_logp`, and `limit` (the longest
    answer that was allowed), beside what credit adds.
    """

    def __init__(
        self, crew: Crew, prompts: Seq[Prompt], settings: RolloutSettings, *, step_prompts: int, total_steps: int, budget: int = 2048,
        seed: int = 0,
    ) -> None:  # fmt: skip
        if not prompts:
            raise HoneError("R010", "there is not a single prompt", where="rollout.prompts", fix="check the source")
        self.crew, self.prompts, self.settings = crew, prompts, settings
        self.step_prompts, self.total_steps, self.budget, self.seed = step_prompts, total_steps, budget, seed
        self.metrics: dict[str, float] = {}
        """Of the step at hand: rewards, lengths, how old its sequences are."""
        self._now: Rollout | None = None
        self._next: tuple[int, Future[list[Draft]]] | None = None
        self._pool = ThreadPoolExecutor(1) if settings.ahead and crew.sync is not None else None

    def __len__(self) -> int:
        return self.total_steps

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every prompt is answered once."""
        return max(1, len(self.prompts) * self.settings.passes // self.step_prompts)

    def steps(self, first: int = 1) -> Iterator[list[Batch]]:
        """The micro-batches of step `first` and of all that follow; each is written when it is asked for."""
        for step in range(first, self.total_steps + 1):
            index, place = divmod(step - 1, self.settings.steps)
            if self._now is None or self._now.index != index:
                self._now = self._take(index)
            yield self._batches(self._now, place)

    def state(self) -> dict[str, Any]:
        """What a resumed run could not write again: a rollout that is still in use, and answers that were written ahead."""
        kept: dict[str, Any] = {}
        if self._now is not None and (self.settings.steps > 1 or self.settings.ahead):
            kept["now"] = asdict(self._now)
        if self._next is not None:
            kept["next"] = {"index": self._next[0], "drafts": [asdict(draft) for draft in self._next[1].result()]}
        return kept

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` told."""
        self._now = self._next = None
        if "now" in state:
            groups = [tuple(map(sequence_of, group)) for group in state["now"]["groups"]]
            self._now = Rollout(state["now"]["index"], groups, dict(state["now"]["metrics"]))
        if "next" in state:
            drafts = [draft_of(draft) for draft in state["next"]["drafts"]]
            self._next = state["next"]["index"], _done(drafts)

    def _take(self, index: int) -> Rollout:
        """The rollout of this index; with `ahead`, its answers are there already, and those of the following one are begun."""
        waiting, self._next = self._next, None
        assert waiting is None or waiting[0] == index, "rollouts are taken in order"
        rollout = self._write(index, waiting[1].result() if waiting is not None else self._drafts(index, 0))
        if self.settings.ahead and (index + 1) * self.settings.steps < self.total_steps:
            self._next = index + 1, self._begin(index + 1)
        return rollout

    def _begin(self, index: int) -> Future[list[Draft]]:
        """The answers to the prompts of a rollout, written by the weights at hand."""
        if self._pool is None:
            return _done(self._drafts(index, 0))
        write = self._order(index, 0, self.chosen(index, 0))
        return self._pool.submit(write)

    def _batches(self, rollout: Rollout, place: int) -> list[Batch]:
        number, part = divmod(place, self.settings.parts)
        order = list(range(len(rollout.groups)))
        if self.settings.steps > 1:
            random.Random(f"{self.seed}/{rollout.index}/{number}").shuffle(order)
        chosen = [rollout.groups[i] for i in order[part :: self.settings.parts]]
        versions = [float(s.facts["version"]) for group in chosen for s in group]  # type: ignore[arg-type]
        lag = self.crew.version() - sum(versions) / len(versions) if versions else 0.0
        self.metrics = rollout.metrics | {"lag": lag}
        return micro_batches(chosen, self.budget)

    def chosen(self, index: int, attempt: int = 0) -> list[Prompt]:
        """The prompts of a rollout: the next ones of a shuffled pass over all; further attempts draw anew."""
        count = self.step_prompts * self.settings.parts
        if attempt:
            return random.Random(f"{self.seed}/{index}/{attempt}").choices(self.prompts, k=count)
        first = index * count
        passes = range(first // len(self.prompts), (first + count - 1) // len(self.prompts) + 1)
        order = [i for number in passes for i in _shuffled(len(self.prompts), self.seed, number)]
        start = first - passes[0] * len(self.prompts)
        return [self.prompts[i] for i in order[start : start + count]]

    def _write(self, index: int, drafts: list[Draft]) -> Rollout:
        """Judge and credit. With several rounds, groups without contrast make way for the answers to further prompts."""
        prompts = self.chosen(index, 0)
        first, metrics = self._judged(drafts, prompts)
        kept = [group for group in first if contrast(group)] if self.settings.rounds > 1 else first
        attempt = 0
        while len(kept) < len(prompts) and attempt + 1 < self.settings.rounds:
            attempt += 1
            more = self.chosen(index, attempt)[: len(prompts) - len(kept)]
            kept += filter(contrast, self._judged(self._drafts(index, attempt, more), more)[0])
        metrics["without_contrast"] = sum(not contrast(group) for group in first) / max(1, len(first))
        metrics |= {"rounds": attempt + 1.0} if self.settings.rounds > 1 else {}
        return Rollout(index, self.crew.credit(kept or first) if kept or first else [], metrics)

    def _drafts(self, index: int, attempt: int, prompts: Seq[Prompt] | None = None) -> list[Draft]:
        return self._order(index, attempt, self.chosen(index, attempt) if prompts is None else prompts)()

    def _order(self, index: int, attempt: int, prompts: Seq[Prompt]) -> Callable[[], list[Draft]]:
        """The writing of some answers, which no longer depends on the policy: the writer has the weights, and the version is known."""
        if self.crew.sync is not None:
            self.crew.sync()
        seed = random.Random(f"{self.seed}/{index}/{attempt}").getrandbits(48)
        facts = {"version": float(self.crew.version()), "limit": float(self.settings.sampling.max_new_tokens)}
        fault_point("generation")
        repeated = [prompt for prompt in prompts for _ in range(self.settings.group_size)]

        def write() -> list[Draft]:
            drafts = self.crew.pen(repeated, seed, asdict(self.settings.sampling))
            for draft in drafts:
                draft.sequence.facts |= facts
            return drafts

        return write

    def _judged(self, drafts: Seq[Draft], prompts: Seq[Prompt]) -> tuple[list[list[Outcome]], dict[str, float]]:
        """The answers to some prompts with what they got, group by group; groups without an answer left are gone."""
        size = self.settings.group_size
        checked = self.crew.check(drafts, self.crew.version())
        verdict = self._verdict(drafts, prompts, size)
        outcomes: list[list[Outcome]] = [[] for _ in prompts]
        for i, (draft, total) in enumerate(zip(drafts, verdict.totals, strict=True)):
            if total is not None and (draft.stopped or self.settings.cut != "drop"):
                outcomes[i // size].append(Outcome(self._masked(draft), total, verdict.weighted(i)))
        self._read(outcomes)
        self._compare(outcomes, prompts)
        self._show(drafts[:size], prompts[0], verdict.totals)
        return [group for group in outcomes if group], verdict.metrics() | _shape(drafts, self.settings.group_size) | dict(checked)

    def _verdict(self, drafts: Seq[Draft], prompts: Seq[Prompt], size: int) -> Verdict:
        """What the panel says, and what the answers earned while they were written."""
        written = [_written(draft, prompts[i // size], i // size) for i, draft in enumerate(drafts)]
        return self.crew.agree(lambda: self.crew.panel.judge(written, [draft.earned for draft in drafts]))

    def _masked(self, draft: Draft) -> Sequence:
        if draft.stopped or self.settings.cut != "mask":
            return draft.sequence
        return replace(draft.sequence, weights=[0.0] * len(draft.sequence.tokens))

    def _read(self, outcomes: list[list[Outcome]]) -> None:
        """Ask the policy for what credit and penalties need beside rewards."""
        flat, kl = [outcome for group in outcomes for outcome in group], self.settings.kl
        wanted = ["value"] * ("values" in self.crew.credit.needs) + ["ref_logp"] * (kl > 0)
        if not wanted:
            return
        for outcome, said in zip(flat, self.crew.read([o.sequence for o in flat], " ".join(wanted)), strict=True):
            outcome.values = said.get("value", [])
            if kl:
                old = outcome.sequence.facts["old_logp"]
                assert isinstance(old, list)
                outcome.penalties = [kl * (old[j] - ref) for j, ref in zip(outcome.learned, said["ref_logp"], strict=True)]

    def _compare(self, outcomes: list[list[Outcome]], prompts: Seq[Prompt]) -> None:
        """Let the greedy answer to each prompt be judged too, where credit compares with it."""
        if "greedy" in self.crew.credit.needs:
            drafts = self.crew.pen(prompts, 0, asdict(self.settings.sampling) | {"temperature": 0.0})
            for group, total in zip(outcomes, self._verdict(drafts, prompts, 1).totals, strict=True):
                for outcome in group:
                    outcome.baseline = total or 0.0

    def _show(self, drafts: Seq[Draft], prompt: Prompt, totals: Seq[float | None]) -> None:
        """A few answers of each rollout into the diary, for people to read."""
        answers = [{"text": draft.text, "reward": total} for draft, total in zip(drafts[:4], totals, strict=False)]
        said = [message.to_dict() for message in prompt.conversation]
        self.crew.tell("rollout", version=drafts[0].sequence.facts["version"], prompt=said, answers=answers)


def _shuffled(count: int, seed: int, number: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}/{number}").shuffle(order)
    return order


def _written(draft: Draft, prompt: Prompt, group: int) -> Written:
    return Written(draft.text, prompt.conversation, prompt.row, group, draft.tokens, draft.stopped, prompt.origin)


def _shape(drafts: Seq[Draft], size: int) -> dict[str, float]:
    """Length, share of cut answers, share of each prompt's answers that differ, and the mean of -log p of what was written, in nats a
    token: an estimate of the entropy that costs nothing."""
    count, groups = len(drafts), [drafts[start : start + size] for start in range(0, len(drafts), size)]
    said = [logp for draft in drafts for logp in draft.sequence.facts["old_logp"] if logp]  # type: ignore[union-attr]
    return {
        "answer_tokens": sum(d.tokens for d in drafts) / count,
        "cut": sum(not d.stopped for d in drafts) / count,
        "distinct": sum(len({draft.text for draft in group}) for group in groups) / count,
        "surprise": -sum(said) / max(1, len(said)),
    }


def _done(drafts: list[Draft]) -> Future[list[Draft]]:
    future: Future[list[Draft]] = Future()
    future.set_result(drafts)
    return future
