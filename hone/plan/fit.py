"""Does it fit, what is the most that would, and the cheapest changes that make it fit. All by asking the memory plan again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from hone.plan.advise import Advice
from hone.plan.layers import Adapters
from hone.plan.memory import Memory, Work, memory

RESERVE = 0.03
"""The plan has been under the truth by at most this share, so this much stays free."""
LARGEST = 1 << 22
"""Tokens beyond which nobody asks."""


@dataclass(frozen=True, slots=True)
class Change:
    """A legal change of settings that takes less memory."""

    settings: Mapping[str, Any]
    slower: float
    """Times as long as before."""
    price: float
    """What it costs in quality, 0 to 1: the order of what is tried."""
    why: str
    apply: Callable[[Work], Work]


@dataclass(frozen=True, slots=True)
class Way:
    """One or more changes that together make a run fit."""

    changes: tuple[Change, ...]
    peak: int

    @property
    def settings(self) -> dict[str, Any]:
        return {key: value for change in self.changes for key, value in change.settings.items()}

    @property
    def slower(self) -> float:
        product = 1.0
        for change in self.changes:
            product *= change.slower
        return product

    @property
    def cost(self) -> float:
        return sum(change.price for change in self.changes) + 0.3 * (self.slower - 1)


def fits(work: Work, capacity: int) -> bool:
    """Whether the fullest moment leaves the reserve free."""
    return memory(work).peak * (1 + RESERVE) <= capacity


@dataclass(frozen=True, slots=True)
class Settled:
    """How the micro-batches of a run are cut, and why."""

    budget: int
    recompute: bool
    work: Work
    advice: tuple[Advice, ...]


def settle(hardware: Mapping[str, Any], longest: int, capacity: int, work_at: Callable[[int], Work]) -> Settled:
    """The token budget, and whether blocks are computed again: as asked, or the fastest that fits.

    Halving a micro-batch costs a few per cent of speed and recomputing a third, so the budget is halved first, but not below
    what keeps the device busy. `longest` are the tokens of the largest group, which is never split in advance.
    """
    asked, mode = hardware["token_budget"], hardware["recompute"]
    first = work_at(longest)
    most, busy, why = _preferred(first, longest)
    halved = [max(longest, most >> i) for i in range(12) if most >> i >= min(busy, longest) or i == 0]
    budgets = [int(asked)] if asked is not None else list(dict.fromkeys(halved))
    modes = {"auto": (False, True), "never": (False,), "always": (True,)}[mode]
    tried = [(budget, again) for again in modes for budget in budgets if again == modes[-1] or budget >= min(busy, budgets[0])]
    works = ((budget, again, replace(work_at(budget), recompute=again)) for budget, again in tried)
    least = (*tried[-1], replace(work_at(tried[-1][0]), recompute=tried[-1][1]))
    budget, again, work = next((one for one in works if fits(one[2], capacity)), least)
    advice = []
    if asked is None:
        shrunk = f", and {memory(work).peak / 1e9:.3g} GB of {capacity / 1e9:.3g} GB are taken with it" if budget < most else ""
        advice.append(Advice("hardware.token_budget", budget, why + shrunk))
    if mode == "auto":
        need = "it does not fit otherwise" if again else f"it fits without: {memory(work).peak / 1e9:.3g} GB of {capacity / 1e9:.3g} GB"
        advice.append(Advice("hardware.recompute", "always" if again else "never", need))
    return Settled(budget, again, work, tuple(advice))


def _preferred(work: Work, longest: int) -> tuple[int, int, str]:
    """(the budget to start from, the least that keeps the device busy, why)."""
    if work.device == "cpu":
        most = 2048 if work.facts.hidden <= 512 else 1024
        return max(most, longest), 512, "on a CPU a micro-batch should stay in the cache"
    return max(16384, longest), 4096, "matrix products saturate at about 8k tokens, and attention is packed"


def changes(work: Work, *, longest: int, lora: Adapters, quantiser: bool) -> list[Change]:
    """What could be changed. `lora` are the sizes of default adapters; `quantiser` says whether 4-bit bases can be had there."""
    smaller = {max(longest, work.tokens // 2): 1.03, max(longest, work.tokens // 4): 1.08, longest: 1.15}
    found = [_in_pieces(budget, slow) for budget, slow in smaller.items() if budget < work.tokens]
    if not work.recompute:
        why = "blocks are computed again in the backward instead of being kept: the same gradient, a third more time"
        found.append(Change({"hardware.recompute": "always"}, 1.33, 0.0, why, lambda w: replace(w, recompute=True)))
    if work.width > 2 and work.device != "cpu":
        why = "weights and arithmetic in 16 bits; what is trained stays in 32"
        found.append(Change({"hardware.dtype": "bfloat16"}, 0.6, 0.05, why, lambda w: replace(w, dtype="bfloat16")))
    if work.adapters.trainable > lora.trainable:
        why = "adapters instead of all weights: near full quality on data of ordinary size"
        found.append(Change({"tuning.method": "lora"}, 0.8, 0.1, why, lambda w: replace(w, adapters=lora, reference=False)))
        work = replace(work, adapters=lora)
    if quantiser and work.quantised is None:
        why = "the frozen base in 4 bits, multiplied in 16: a little quality, some speed"
        found.append(Change({"model.quantise": "nf4"}, 1.25, 0.15, why, lambda w: replace(w, quantised="nf4", packed=0, adapters=lora)))
    for length in (longest // 2, longest // 4, longest // 8):
        if length >= 128:
            why = f"nothing longer than {length:,} tokens: what is longer is cut"
            found.append(Change({"data.max_length": length}, 1.0, 0.5, why, _length(length)))
    return found


def _in_pieces(budget: int, slower: float) -> Change:
    why = f"micro-batches of {budget:,} tokens: the same gradient in more pieces"
    return Change({"hardware.token_budget": budget}, slower, 0.0, why, _tokens(budget))


def _tokens(budget: int) -> Callable[[Work], Work]:
    def apply(work: Work) -> Work:
        share = min(1.0, budget / max(1, work.tokens))
        reads, evaluated = round(work.reads * share), min(work.eval_tokens, budget)
        eval_reads = round(work.eval_reads * evaluated / max(1, work.eval_tokens))
        return replace(work, tokens=min(work.tokens, budget), reads=reads, eval_tokens=evaluated, eval_reads=eval_reads)

    return apply


def _length(length: int) -> Callable[[Work], Work]:
    """Shorter sequences matter once the micro-batch is a single one."""
    return _tokens(length)


def ways(work: Work, capacity: int, options: list[Change]) -> list[Way]:
    """The cheapest ways to make it fit: single changes first, then pairs, triples and fours, until some do; at most five."""
    for many in range(1, 5):
        found = [Way(chosen, memory(changed).peak) for chosen, changed in _combined(work, options, many) if fits(changed, capacity)]
        if found:
            return sorted(found, key=lambda way: (way.cost, way.peak))[:5]
    return []


def _combined(work: Work, options: list[Change], many: int) -> Iterator[tuple[tuple[Change, ...], Work]]:
    for chosen in combinations(options, many):
        keys = [key for change in chosen for key in change.settings]
        if len(set(keys)) < len(keys) or {"data.max_length", "hardware.token_budget"} <= set(keys):
            continue
        changed = work
        for change in chosen:
            changed = change.apply(changed)
        yield chosen, changed


def largest_batch(work: Work, capacity: int) -> int:
    """Most tokens of a micro-batch that fit, by bisection; 0 where not even one does."""
    share = work.reads / max(1, work.tokens)
    return _most(lambda n: fits(replace(work, tokens=n, reads=round(n * share), eval_tokens=n, eval_reads=round(n * share)), capacity))


def longest_context(work: Work, capacity: int) -> int:
    """Longest single sequence that fits, with blocks computed again in the backward and every token learned; by bisection."""
    one = replace(work, recompute=True)
    return _most(lambda n: fits(replace(one, tokens=n, reads=n, eval_tokens=n, eval_reads=n), capacity))


def _most(suits: Callable[[int], bool]) -> int:
    low, high = 0, LARGEST
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if suits(middle) else (low, middle - 1)
    return low


def summary(found: Memory) -> dict[str, Any]:
    """As JSON: the peak, where it is, and every phase part by part, in bytes."""
    phases = {phase.name: {"total": phase.total, "parts": dict(phase.parts)} for phase in found.phases}
    return {"peak": found.peak, "fullest": found.fullest.name, "dominating": found.dominating, "phases": phases}
