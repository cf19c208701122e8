"""The prompts of a run, prepared like any data: read, kept aside by prompt, fingerprinted, and every row accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hone.core.errors import HoneError
from hone.core.files import sha256_of
from hone.core.types import Example, Sequence
from hone.data.cache import Cache, Groups
from hone.data.chat import ChatTemplate
from hone.data.ledger import Ledger
from hone.data.prepare import Prepared
from hone.data.settings import DataSettings
from hone.data.split import hash_of, held_out_keys, prompt_key
from hone.rollout.prompts import Prompt, read_prompts


@dataclass(frozen=True, slots=True)
class Questions(Prepared):
    """Prompts to learn from and to measure with; their groups hold the prompts' tokens, of which nothing is learned."""

    asked: tuple[Prompt, ...] = ()
    kept: tuple[Prompt, ...] = ()


def prepare_questions(settings: DataSettings, template: ChatTemplate, *, room: int | None = None) -> Questions:
    """All prompts of a run. `room` is the most tokens of a prompt. Raises D002 where nothing is left, and what `read_prompts` raises."""
    found = [p for source in settings.sources for p in read_prompts(source.path, template, system=settings.system, room=room)]
    if isinstance(settings.held_out, str):
        asked, kept = found, read_prompts(settings.held_out, template, system=settings.system, room=room)
    else:
        keys = [_key(prompt) for prompt in found]
        aside = held_out_keys(keys, fraction=settings.held_out, seed=settings.seed)
        asked = [prompt for prompt, key in zip(found, keys, strict=True) if key not in aside]
        kept = [prompt for prompt, key in zip(found, keys, strict=True) if key in aside]
    if not asked:
        raise HoneError("D002", "there is not a single prompt", where=settings.sources[0].path, fix="write prompts into it")
    rows = Counter(prompt.origin.source for prompt in (*asked, *kept))
    cache = Cache()
    groups = _groups(cache, asked)
    return Questions(
        groups=groups,
        held_out=_groups(cache, kept),
        ledger=_ledger(asked, kept),
        layouts={},
        notices=[],
        sources=[_source(name, count) for name, count in rows.items()],
        fingerprint=groups.hash(),
        split=hash_of(map(_key, kept)),
        asked=tuple(asked),
        kept=tuple(kept),
    )


def _key(prompt: Prompt) -> str:
    return prompt_key(Example((prompt.conversation,)))


def _groups(cache: Cache, prompts: Iterable[Prompt]) -> Groups:
    return Groups(cache, [cache.append((Sequence(p.ids, [0.0] * len(p.ids), origin=p.origin),)) for p in prompts])


def _ledger(asked: list[Prompt], kept: list[Prompt]) -> Ledger:
    """A prompt has no tokens to learn: what is learned is written later."""
    ledger = Ledger()
    for prompt in asked:
        ledger.trained(prompt.origin, 0)
    for prompt in kept:
        ledger.held_out(prompt.origin, 0)
    ledger.total(len(asked) + len(kept))
    return ledger


def _source(name: str, rows: int) -> dict[str, object]:
    return {"source": name, "rows": rows} | ({"sha256": sha256_of(Path(name))} if Path(name).is_file() else {})
