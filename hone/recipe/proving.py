"""`hone prove`: from a run's settings to its small likeness, the proofs about it, and their sealed record."""

from __future__ import annotations

import json
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

import hone
from hone.core.errors import HoneError
from hone.core.files import sha256_of, write_atomically
from hone.core.seal import sealed
from hone.core.types import Group
from hone.core.types import Sequence as Tokens
from hone.data.chat import ChatTemplate
from hone.data.desk import Desk, Entry
from hone.data.reading import Outcome as Read
from hone.data.reading import Reading
from hone.data.shapes import wanted
from hone.data.tokenise import Tokeniser
from hone.data.unknown import Script
from hone.models.load import quiet
from hone.models.policy import evaluating
from hone.models.tokens import check_vocabulary, load_tokenizer
from hone.prove import Result, Row, Subject, prove
from hone.prove.shrink import shrink, shrunken
from hone.recipe.feed import check_data
from hone.recipe.forecast import model_folder
from hone.recipe.likeness import Likeness, modules, subject_of
from hone.recipe.settings import Recipe, resolve
from hone.rollout.credit import Outcome
from hone.rollout.draft import single_turn
from hone.rollout.prompts import Prompt
from hone.rollout.questions import prepare_questions
from hone.rollout.sample import Sampler, context_of

NAME = "proof.json"
READ, CHECKED, COMPUTED = 500, 200, 6
"""Rows of the data that are read, whose text is checked, and that are computed with."""
TYPICAL, LONGEST = 40, 96
"""Tokens that a row should have to be computed with, and to which longer ones are cut."""
GROUP, ANSWER = 3, 8
"""Answers to a prompt, and their tokens, where the model writes them."""
SHAPES_OF_TEXT = ("single", "pair", "label", "any")


@dataclass(frozen=True, slots=True)
class Proved:
    """All results, and the document that is kept of them."""

    results: tuple[Result, ...]
    document: dict[str, Any]

    @property
    def holds(self) -> bool:
        return all(result.holds for result in self.results)

    def save(self, folder: Path) -> Path:
        """Write proof.json into a run folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / NAME, json.dumps(self.document, indent=1, ensure_ascii=False))
        return folder / NAME


def prove_run(raw: Mapping[str, Any], *, tell: Callable[[Result], None] = lambda result: None) -> Proved:
    """Shrink a run and prove what must be true of it. Raises what `hone train` raises before it loads weights, M110 and M111."""
    started = time.perf_counter()
    recipe = resolve(raw)
    check_data(recipe)
    like, sources = likeness(recipe)
    with quiet():
        results = tuple(prove(subject_of(like), tell=tell))
    return Proved(results, sealed(_document(recipe, like, sources, results) | {"seconds": round(time.perf_counter() - started, 1)}))


def likeness(recipe: Recipe) -> tuple[Likeness, list[dict[str, Any]]]:
    """A run in small, and the sources that its rows come from."""
    folder = model_folder(recipe.model.name, recipe.model.revision)
    tokenizer = load_tokenizer(folder, trust_remote_code=recipe.model.trust_remote_code)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=recipe.model.trust_remote_code)
    check_vocabulary(tokenizer, config.get_text_config().vocab_size, where=recipe.model.name)
    model = shrink(config, seed=recipe.seed)
    template = ChatTemplate.of(tokenizer, recipe.data.template)
    small = replace(recipe, tuning=shrunken(recipe.tuning, config_layers(model)))
    if recipe.rollout is not None:
        return _online(small, model, tokenizer, template)
    return _offline(small, model, tokenizer, template)


def config_layers(model: PreTrainedModel) -> int:
    """How many layers a model has."""
    return int(model.config.get_text_config().num_hidden_layers)


def _offline(
    recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate
) -> tuple[Likeness, list[dict[str, Any]]]:
    """With the first rows of the data."""
    data, objective = recipe.data, recipe.objective
    asked = {"shape": objective.data, "facts": objective.facts, "classes": objective.full.get("classes", ())}
    tokeniser = Tokeniser(tokenizer, template, learn=data.learn, **asked)
    limit = min(data.max_length, recipe.tuning.room(context_of(model)) or data.max_length)
    desk, reading = Desk(data, tokeniser, Script(tokenizer), limit=limit), Reading.of(data)
    outcomes = list(islice(reading.sources(data.sources, seed=data.seed), READ))
    entries = [entry for entry in desk.take(iter(outcomes)) if not entry.cut and len(entry.indices) == 1 and entry.copies]
    desk.refusals.check()
    if not entries:
        raise desk.refusals.nothing_left(data.sources[0].path)
    if tokeniser.classes and not asked["classes"]:
        recipe = replace(recipe, objective=objective.bind(**(objective.full | {"classes": tuple(tokeniser.classes)})))
    by_origin = {outcome.origin: outcome for outcome in outcomes}
    rows = [_row(recipe, desk, entry, by_origin[entry.origin]) for entry in entries[:CHECKED]]
    like = Likeness(
        recipe=recipe, model=model, tokenizer=tokenizer, template=template, rows=rows,
        groups=chosen([desk.cache.group(entry.indices[0]) for entry in entries]), teacher=_teacher(recipe, model),
    )  # fmt: skip
    return with_reference(like), [_source(name, rows) for name, rows in desk.rows.items()]


def _row(recipe: Recipe, desk: Desk, entry: Entry, read: Read) -> Row:
    group, shape = desk.cache.group(entry.indices[0]), recipe.objective.data
    assert read.example is not None
    found = wanted(read.example, shape) if shape in SHAPES_OF_TEXT else ()
    said = found if isinstance(found, tuple) and len(found) == len(group) else ()
    return Row(group, said, read.example.tools, entry.learned)


def chosen(groups: Sequence[Group]) -> list[Group]:
    """A few groups whose size is typical, cut where they are long; each twice where there are too few to be compared."""
    ordered = sorted(range(len(groups)), key=lambda i: (abs(len(groups[i][0].tokens) - TYPICAL), i))
    picked = [cut(groups[i]) for i in sorted(ordered[:COMPUTED])]
    return picked if len(picked) > 2 else (picked * 3)[:3]


def cut(group: Group) -> Group:
    """A window of a group's tokens around the first that are learned; all sequences begin at the same place."""
    if max(len(one.tokens) for one in group) <= LONGEST:
        return group
    first = min(next((j for j, weight in enumerate(one.weights) if j and weight), len(one.tokens)) for one in group)
    start = max(0, first - LONGEST // 2)
    return tuple(_window(one, slice(start, start + LONGEST)) for one in group)


def _window(one: Tokens, at: slice) -> Tokens:
    facts: dict[str, Any] = {name: value[at] if isinstance(value, list | torch.Tensor) else value for name, value in one.facts.items()}
    return Tokens(one.tokens[at], one.weights[at], facts, one.origin)


def _teacher(recipe: Recipe, model: PreTrainedModel) -> PreTrainedModel | None:
    """Another model of the same kind, where one is learned from."""
    return shrink(model.config, seed=recipe.seed + 1) if "divergence" in recipe.objective.needs else None


def with_reference(like: Likeness) -> Likeness:
    """Where the base itself will move, what it says is noted now, as the run does."""
    if "ref_logp" not in like.recipe.objective.needs:
        return like
    policy = like.policy()
    try:
        with policy.tuning.disabled(policy.model):
            return like
    except HoneError:
        pass
    with evaluating(policy.model), torch.no_grad():
        groups = [tuple(_told(like, policy, one) for one in group) for group in like.groups]
    return replace(like, groups=groups)


def _told(like: Likeness, policy: Any, one: Tokens) -> Tokens:
    """A sequence with what the policy says of its learned tokens as a fact of each token."""
    from hone.data.batching import pack

    said = policy.signals(pack([(one,)]), "logp").logp.tolist()
    whole, rest = [0.0] * len(one.tokens), iter(said)
    for j, weight in enumerate(one.weights):
        if j and weight:
            whole[j] = next(rest)
    return replace(one, facts=one.facts | {"ref_logp": whole})


def _online(
    recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate
) -> tuple[Likeness, list[dict[str, Any]]]:
    """With answers that the small model writes to the run's shortest prompts, and rewards drawn by lot."""
    assert recipe.rollout is not None
    questions = prepare_questions(recipe.data, template)
    prompts = sorted(questions.asked, key=lambda prompt: len(prompt.ids))[: max(2, COMPUTED // GROUP)]
    bare = Likeness(
        recipe=recipe, model=model, tokenizer=tokenizer, template=template, rows=(), groups=(), teacher=_teacher(recipe, model)
    )  # fmt: skip
    groups = _written(bare, prompts * (1 if len(prompts) > 1 else 2))
    return with_reference(replace(bare, groups=groups)), list(questions.sources)


def _written(like: Likeness, prompts: Sequence[Prompt]) -> list[Group]:
    """What the model writes, with what it teaches."""
    rollout, policy = like.recipe.rollout, like.policy()
    assert rollout is not None
    pen = single_turn(Sampler(policy.model, like.tokenizer, stock=policy.stock), like.template.stop_ids)
    drawing = asdict(rollout.sampling) | {"max_new_tokens": ANSWER}
    drafts = pen([prompt for prompt in prompts for _ in range(GROUP)], like.recipe.seed, drawing)
    lot = random.Random(like.recipe.seed)
    outcomes: list[list[Outcome]] = [[] for _ in prompts]
    for i, draft in enumerate(drafts):
        draft.sequence.facts |= {"version": 0.0, "limit": float(ANSWER)}
        zeros = [0.0] * draft.tokens
        outcomes[i // GROUP].append(Outcome(draft.sequence, lot.random(), penalties=zeros if rollout.kl else [], values=zeros))
    return rollout.scheme(outcomes)


def _source(name: str, rows: int) -> dict[str, Any]:
    return {"source": name, "rows_read": rows} | ({"sha256": sha256_of(Path(name))} if Path(name).is_file() else {})


def _document(recipe: Recipe, like: Likeness, sources: list[dict[str, Any]], results: Sequence[Result]) -> dict[str, Any]:
    """What was asked, of what, with which outcome."""
    inner: Any = like.model.config.get_text_config()
    packages = {name: version(name) for name in ("torch", "transformers", "tokenizers")}
    return {
        "format": 1,
        "holds": all(result.holds for result in results),
        "settings": {key: value for key, value in recipe.resolved.items() if key != "reasons"},
        "versions": {"hone": hone.__version__, "python": platform.python_version(), **packages},
        "data": sources,
        "small": {
            "architecture": type(like.model).__name__,
            "parameters": modules(like.model),
            "layers": inner.num_hidden_layers,
            "hidden": inner.hidden_size,
            "rows": len(like.rows),
            "computed": len(like.groups),
        },
        "proofs": [result.to_json() for result in results],
    }


def small_subject(raw: Mapping[str, Any]) -> Subject:
    """The healthy subject of a run."""
    return subject_of(likeness(resolve(raw))[0])
