"""What a run's objective is given beside the data: what the reference says, what a teacher says, and rows that are only asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hone.core.errors import HoneError
from hone.core.types import Batch, Group
from hone.data.offline import Beside
from hone.data.prepare import Prepared
from hone.models.fingerprint import fingerprint_of
from hone.models.foreign import foreign_teacher_says
from hone.models.kept import kept
from hone.models.load import Loaded
from hone.models.policy import Policy, evaluating
from hone.models.teacher import Say, teacher_says
from hone.recipe.build import Opened, load_base, tuned
from hone.recipe.opening import open_model
from hone.recipe.settings import Recipe
from hone.tuning.base import Untouched


@dataclass(frozen=True, slots=True)
class Supplied:
    """The groups of a run with all that is known of them. `aside` and `held_out_aside` are only asked (see `Objective.aside`)."""

    groups: Sequence[Group]
    held_out: Sequence[Group]
    aside: Sequence[Group] = ()
    held_out_aside: Sequence[Group] = ()


def supply(recipe: Recipe, loaded: Loaded, prepared: Prepared, policy: Policy) -> Supplied:
    """Everything that the objective needs, asked now where it is to be kept. The policy must not have moved yet.

    Where the reference is asked live and the method moves the base itself, the policy gets a second copy of the model to ask.
    Raises C052 (no teacher) and P007 (a teacher with other tokens).
    """
    objective, held_out = recipe.objective, prepared.held_out[: recipe.eval.max_rows]
    made = [prepared.groups, held_out]
    if objective.aside is not None:
        made += [Beside(groups, objective.aside) for groups in (prepared.groups, held_out)]
    says: list[tuple[Say, dict[str, Any]]] = []
    if recipe.refers and _reference_is_kept(recipe, policy):
        says.append((_reference_says(policy), {"reference": loaded.fingerprint, "dtype": str(loaded.model.dtype)}))
    if "divergence" in objective.needs:
        says += _teach(recipe, loaded, policy, objective.needs["divergence"])
    for say, key in says:
        made = [kept(groups, say, key=key, budget=recipe.hardware.token_budget or 2048) for groups in made]
    return Supplied(*made)


def _several_passes(recipe: Recipe) -> bool:
    return (recipe.optim.epochs or 1.0) > 1.0


def _reference_is_kept(recipe: Recipe, policy: Policy) -> bool:
    wish, aside = recipe.hardware.signals, _steps_aside(policy)
    if wish == "live" and not aside:
        policy.reference = second(recipe)
    return wish == "cached" or (wish == "auto" and (not aside or _several_passes(recipe)))


def second(recipe: Recipe) -> Policy:
    """The model of a run once more, which stays as it is."""
    loaded = load_base(recipe.model, recipe.hardware)
    loaded.model.requires_grad_(False)
    return tuned(loaded, Untouched(), seed=recipe.seed)


def _steps_aside(policy: Policy) -> bool:
    """Whether the method can show the base while it trains."""
    try:
        with policy.tuning.disabled(policy.model):
            return True
    except HoneError:
        return False


def _reference_says(policy: Policy) -> Say:
    """Log-probabilities of the base. A method that moves the base itself has not done so yet."""
    aside = _steps_aside(policy)

    def say(batch: Batch) -> Mapping[str, Tensor]:
        batch = batch.to(policy.device)
        if aside:
            return {"ref_logp": policy.signals(batch, "ref_logp").ref_logp}
        with evaluating(policy.model):
            return {"ref_logp": policy.signals(batch, "logp").logp}

    return say


def _teach(recipe: Recipe, loaded: Loaded, policy: Policy, how: Mapping[str, Any]) -> list[tuple[Say, dict[str, Any]]]:
    """Give the policy its teacher; or, where it is to be asked once, how to ask it."""
    if recipe.model.teacher is None:
        raise HoneError("C052", "there is no teacher to learn from", where="model.teacher", fix="name one: model.teacher=FOLDER_OR_HUB_ID")
    teacher = open_model(recipe.model.teacher, hardware=recipe.hardware)
    teacher.policy.model.requires_grad_(False)
    key = {"teacher": fingerprint_of(teacher.policy.model), "how": dict(how), "dtype": str(policy.model.dtype)}
    if not _same_tokens(loaded.tokenizer, teacher.tokenizer):
        if not how.get("by_rank"):
            what = f"the teacher '{recipe.model.teacher}' has other tokens than the model"
            raise HoneError("P007", what, where="model.teacher", fix="objective.name=uld, or a teacher of the same family")
        say = foreign_teacher_says(teacher.policy, teacher.tokenizer, loaded.tokenizer)
        policy.teacher = say if recipe.hardware.signals == "live" else None
        return [] if policy.teacher else [(say, key)]
    _same_width(policy, teacher, how)
    if recipe.hardware.signals == "cached" or (recipe.hardware.signals == "auto" and _several_passes(recipe) and how.get("top_k")):
        return [(teacher_says(teacher.policy, how), key)]
    policy.teacher = teacher.policy
    return []


def _same_tokens(mine: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase) -> bool:
    return mine.get_vocab() == theirs.get_vocab()


def _same_width(policy: Policy, teacher: Opened, how: Mapping[str, Any]) -> None:
    """Heads of relatives may be padded to different sizes; rows that no token has are left out of the teacher's."""
    mine, theirs = len(policy.head().weight_VD), len(teacher.policy.head().weight_VD)
    if theirs > mine:
        teacher.policy.words = mine
    elif theirs < mine and not how.get("top_k"):
        what = f"the teacher's head has {theirs:,} rows and the model's {mine:,}"
        raise HoneError("P007", what, where="model.teacher", fix="set objective.top_k, for instance to 64")
