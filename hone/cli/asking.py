"""What `hone chat` and `hone eval` share: a sampler for something opened, and the base beside a tuned model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from hone.core.errors import HoneError

if TYPE_CHECKING:
    from hone.recipe.build import Opened
    from hone.rollout.sample import Sampler


def sampler_of(opened: Opened, *, talk: bool = False) -> Sampler:
    """A sampler on the opened model; for a talk it has one row and remembers what was said."""
    from hone.rollout.sample import Sampler

    return Sampler(opened.policy.model, opened.tokenizer, stock=opened.policy.stock, rows=1 if talk else 64, reuse=talk)


@contextmanager
def base_of(opened: Opened) -> Iterator[Opened]:
    """The base of a tuned model while the context lasts: an adapter steps aside, for a whole model the base is opened.

    Raises C043 for a model that was not tuned by a run.
    """
    from hone.recipe.opening import open_model
    from hone.tuning.base import Untouched

    if not isinstance(opened.policy.tuning, Untouched):
        with opened.policy.tuning.disabled(opened.policy.model):
            yield opened
    elif "tuning" in opened.resolved:
        base = open_model(opened.resolved["model"]["name"])
        yield replace(base, template=opened.template)
    else:
        raise HoneError("C043", "this model has no base to compare with", fix="give a run folder or an adapter, or leave out --compare")


def name_of(opened: Opened) -> str:
    """What was opened, in a few words."""
    name = str(opened.resolved["model"]["name"])
    return f"{opened.folder} (from {name})" if opened.folder is not None else name
