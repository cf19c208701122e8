"""The certificate of a run: golden vectors of the model that was trained, beside its artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hone
from hone.data.chat import ChatTemplate
from hone.export.proof.golden import NAME, Golden
from hone.export.proof.record import record
from hone.models.policy import Policy
from hone.recipe.build import Opened
from hone.rollout.sample import Sampler
from hone.tuning.base import name_of


def certify(policy: Policy, tokenizer: Any, template: ChatTemplate, answering: Callable[..., Any], *, base: Mapping[str, str]) -> Golden:
    """Ask a live model the probes."""
    about = {"hone": hone.__version__, "base": dict(base), "method": name_of(policy.tuning)}
    return record(policy, tokenizer, template, answering, about=about)


def of_opened(opened: Opened, *, base: Mapping[str, str]) -> Golden:
    """For a model that was not trained here: what it says now is what its copies must say."""
    sampler = Sampler(opened.policy.model, opened.tokenizer, stock=opened.policy.stock)
    return certify(opened.policy, opened.tokenizer, opened.template, sampler.generate, base=base)


def beside(folder: Path) -> Path | None:
    """The folder that holds the certificate of an artifact: its own, or that of the run that it lies in."""
    return next((place for place in (folder, folder.parent) if (place / NAME).is_file()), None)
