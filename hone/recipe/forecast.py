"""`hone plan`: what a run will take, from its settings, the model's config and the data; torch only where nothing else can tell.

Everything is asked as `hone train` would ask it: the same settings, the same tokens, the same arithmetic that then
chooses the micro-batches and whether blocks are computed again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hone.core.config import parse
from hone.data.settings import DataSettings
from hone.data.sharing import fill, size
from hone.models.settings import HardwareSettings, ModelSettings
from hone.plan.advise import Advice, Facts, total_steps
from hone.plan.advise import fill as fill_in
from hone.plan.clock import Effort, Time, disk, duration, operations
from hone.plan.fit import Way, changes, fits, largest_batch, longest_context, settle, ways
from hone.plan.headers import stored_tensors
from hone.plan.layers import LORA, Adapters, adapters, largest, linears, total
from hone.plan.machines import Machine
from hone.plan.memory import MOMENTS, Memory, Work, memory
from hone.plan.shapes import ModelFacts, facts_of, model_facts, read_json
from hone.recipe.idle import Asked, idle
from hone.recipe.quantised import automatic, kept_plain, share_in
from hone.recipe.quantised import told as base_told
from hone.recipe.start import base_of
from hone.train.settings import EvalSettings, OptimSettings, OutputSettings

if TYPE_CHECKING:
    from hone.data.prepare import Prepared

SAMPLED = 2_000_000
"""Bytes of data that are tokenised; of larger files a seeded share is."""
TRIED_STEPS = 40
SINGLE = ("sft", "cpt")
"""Objectives whose settings and needs are known here; for the others their own code is asked."""
PLAIN = {
    "model": ModelSettings, "data": DataSettings, "optim": OptimSettings, "eval": EvalSettings, "output": OutputSettings,
    "hardware": HardwareSettings,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the data comes to, for one pass over it. `exact` is false where a share was counted; `low` and `high` bound the total then."""

    rows: int
    held_out: int
    tokens: int
    learned: int
    low: int
    high: int
    longest: int
    median: int
    truncated: float
    """Share of the rows that are cut."""
    padding: float
    """Share of padding that rows side by side would hold; packed micro-batches hold none."""
    exact: bool
    worst: int
    """Tokens of the largest group."""
    duplicates: float = 0.0
    """Share of the rows that stand in the data already."""
    sizes: tuple[int, ...] = field(default=(), repr=False)
    reads: tuple[int, ...] = field(default=(), repr=False)
    eval_sizes: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Forecast:
    """All that `hone plan` tells."""

    settings: Mapping[str, Any]
    reasons: Mapping[str, str]
    facts: ModelFacts
    adapters: Adapters
    tokens: Tokens
    steps: int
    machine: Machine
    work: Work
    memory: Memory
    fits: bool
    ways: tuple[Way, ...]
    largest_batch: int
    longest_context: int
    time: Time | None
    disk: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """Where, and at what price."""

    machine: Machine
    price: float | None = None
    kwh_price: float | None = None
    exact: bool = False
    speed: float | None = None
    """Tokens a second, where they were measured."""


class Aim(NamedTuple):
    """What an objective says of itself: how its data is shaped, and how fast it wants to go."""

    data: Mapping[str, Any]
    pace: float = 1.0
    rollout: Any = None
    """`RolloutSettings`, where the model writes what it learns from."""
    copies: bool = False
    """A second copy of the model is held as the reference."""


def sections(raw: Mapping[str, Any]) -> tuple[dict[str, Any], Aim, list[str]]:
    """All settings with their defaults, as plain values; the aim; and why torch was needed, if it was. Raises C001 to C004."""
    named = raw.get("tuning", {}).get("method", "auto")
    method = "lora" if named == "auto" else named
    tuning = {**raw.get("tuning", {}), "method": method}
    objective = {"name": "sft", **raw.get("objective", {})}
    known = (tuning["method"] == "full" and len(tuning) == 1) or (tuning["method"] == "lora" and set(tuning) <= {"method", *LORA})
    if objective["name"] in SINGLE and len(objective) == 1 and known and set(raw) <= {*PLAIN, "tuning", "objective", "seed"}:
        found = {name: asdict(parse(cls, raw.get(name, {}), section=name)) for name, cls in PLAIN.items()}
        optim = found["optim"]
        dead = any(idle(Asked(found, ("logp",), "single"), PLAIN))
        if not dead and (optim["epochs"] is None or optim["max_steps"] is None):
            filled = tuning if tuning["method"] == "full" else {**LORA, **tuning}
            return found | {"tuning": filled, "objective": objective, "seed": raw.get("seed", 42)}, Aim({}), []
    from hone.recipe.settings import resolve

    recipe = resolve(raw)
    asked = {"shape": recipe.objective.data, "facts": recipe.objective.facts, "classes": recipe.objective.full.get("classes", ())}
    why = f"{objective['name']} with {tuning['method']}: their own code was asked for settings and sizes, which loads torch"
    plain = {name: value for name, value in recipe.resolved.items() if name != "reasons"}
    return plain, Aim(asked, recipe.objective.pace, recipe.rollout, recipe.copies), [why]


def model_folder(name: str, revision: str | None) -> Path:
    """The folder with a model's config and tokenizer, or a run's base's; from the hub only the small files. Raises what `load` raises."""
    from hone.models.locate import local_folder

    name = base_of(name)
    folder = local_folder(name, revision)
    if folder is not None:
        return folder
    from hone.models.hub import fetch_small

    return fetch_small(name, revision=revision)[0]


def count_tokens(data: DataSettings, folder: Path, *, context: int | None, batch: int, exact: bool, aim: Aim) -> tuple[Tokens, list[str]]:
    """Read and tokenise the data as training will, or a seeded share of it. Raises the D and T codes of `prepare`."""
    from hone.data.chat import ChatTemplate
    from hone.data.light import light_tokenizer
    from hone.data.prepare import prepare

    notes: list[str] = []
    tokenizer: Any = light_tokenizer(folder)
    if isinstance(tokenizer, str):
        notes.append(f"the tokenizer was read with transformers: {tokenizer}")
        from hone.models.tokens import load_tokenizer

        tokenizer = load_tokenizer(folder)
    share = 1.0 if exact else _share(data)
    asked = data if share == 1 else replace(data, train=tuple(replace(one, weight=one.weight * share) for one in data.sources))
    template = ChatTemplate.of(tokenizer, data.template)
    if aim.rollout is not None:
        from hone.rollout.questions import prepare_questions

        room = min(data.max_length, context or data.max_length) - aim.rollout.sampling.max_new_tokens
        return tokens_of(prepare_questions(data, template, room=room), batch=batch), notes
    prepared = prepare(asked, tokenizer, template, context=context, **aim.data)
    if share < 1:
        notes.append(f"a seeded {100 * share:.0f} % of the rows was tokenised ({len(prepared.groups):,}); --exact counts all")
    return tokens_of(prepared, batch=batch, share=share), [*notes, *map(str, prepared.notices)]


Count = Callable[..., tuple[Tokens, list[str]]]


def tokens_of(prepared: Prepared, *, batch: int, share: float = 1.0) -> Tokens:
    """What prepared data comes to, where it is a `share` of the whole."""
    groups = list(prepared.groups)
    lengths = [max(len(sequence.tokens) for sequence in group) for group in groups]
    sizes = [size(group) for group in groups]
    reads = tuple(sum(sequence.learned for sequence in group) for group in groups)
    rows, tokens = round(len(groups) / share), round(sum(sizes) / share)
    spread = _error(sizes) * rows if share < 1 else 0.0
    return Tokens(
        rows=rows,
        held_out=round(len(prepared.held_out) / share),
        tokens=tokens,
        learned=round(sum(reads) / share),
        low=round(tokens - spread),
        high=round(tokens + spread),
        longest=max(lengths),
        median=sorted(lengths)[len(lengths) // 2],
        truncated=prepared.ledger.rows("truncated") / max(1, len(groups)),
        padding=_padding(lengths, batch),
        exact=share == 1,
        worst=max(sizes),
        duplicates=sum(one.rows for one in prepared.notices if one.code == "D035") / max(1, len(groups)),
        sizes=tuple(sizes),
        reads=reads,
        eval_sizes=tuple(size(group) for group in prepared.held_out),
    )


def _share(data: DataSettings) -> float:
    """How much of the data is tokenised: all of what is small, or what lies on a hub."""
    paths = [Path(one.path) for one in data.sources]
    if not all(path.is_file() for path in paths):
        return 1.0
    whole = sum(path.stat().st_size * (4 if path.suffix in (".gz", ".parquet") else 1) for path in paths)
    return min(1.0, SAMPLED / max(1, whole))


def _error(sizes: Sequence[int]) -> float:
    """Half the 95 % interval of the mean."""
    mean = sum(sizes) / len(sizes)
    return 1.96 * (sum((n - mean) ** 2 for n in sizes) / max(1, len(sizes) - 1) / len(sizes)) ** 0.5


def _padding(lengths: Sequence[int], batch: int) -> float:
    """Share of padding in shuffled batches of whole rows."""
    order = list(lengths)
    random.Random(0).shuffle(order)
    rows = [order[start : start + batch] for start in range(0, len(order), batch)]
    return 1 - sum(order) / max(1, sum(max(row) * len(row) for row in rows))


def heaviest(tokens: Tokens, *, batch: int, budget: int) -> tuple[int, int]:
    """(tokens, learned tokens) of the largest micro-batch: its bound, and the most learned tokens that some steps show."""
    most = max(tokens.worst, min(budget, sum(sorted(tokens.sizes)[-batch:])))
    dice, reads = random.Random(0), 0
    for _ in range(TRIED_STEPS):
        chosen = dice.sample(range(len(tokens.sizes)), min(batch, len(tokens.sizes)))
        for micro in fill([tokens.sizes[i] for i in chosen], budget):
            reads = max(reads, sum(tokens.reads[chosen[i]] for i in micro))
    return most, min(most, max(reads, max(tokens.reads)))


def sizes_of(settings: Mapping[str, Any], facts: ModelFacts, folder: Path) -> tuple[Adapters, Adapters, int, int]:
    """(what the method trains, what default adapters would, numbers in linear layers, numbers of the largest)."""
    layers = linears(facts, stored_tensors(folder))
    plain = adapters(facts, {"method": "lora", **LORA}, layers)
    assert plain is not None
    own = adapters(facts, settings["tuning"], layers) or _asked(settings["tuning"], folder, facts)
    return own, plain, total(layers), largest(layers)


def _asked(tuning: Mapping[str, Any], folder: Path, facts: ModelFacts) -> Adapters:
    """A method's own count, on a model without memory."""
    from transformers import AutoConfig

    from hone.tuning import METHODS
    from hone.tuning.shapes import Shapes

    method = parse(METHODS[tuning["method"]], {k: v for k, v in tuning.items() if k != "method"}, section="tuning")
    count = method.count(Shapes.from_config(AutoConfig.from_pretrained(folder)))
    added = 0 if method.about.artifact == "model" else count
    return Adapters(count, added, 0, 0)


def forecast(raw: Mapping[str, Any], wish: Wish, count: Count = count_tokens) -> Forecast:
    """Everything that can be said about a run before it. Raises the C, D, M and T codes that training would raise.

    `count` is `count_tokens`, or something that remembers what it said for the same data.
    """
    machine = wish.machine
    raw, reasons = automatic(raw, machine.device)
    settings, aim, notes = sections(raw)
    folder = model_folder(settings["model"]["name"], settings["model"]["revision"])
    raw, reasons = kept_plain(raw, reasons, folder)
    settings = settings | {"model": settings["model"] | {"quantise": raw["model"].get("quantise", "none")}}
    facts = known_facts(folder)
    data = parse(DataSettings, settings["data"], section="data")
    tokens, told = count(data, folder, context=facts.context, batch=settings["optim"]["batch_size"], exact=wish.exact, aim=aim)
    own, plain, linear, widest = sizes_of(settings, facts, folder)
    share = share_in(settings, facts, folder)
    told = [*told, *base_told(share, settings["model"]["name"], folder)]
    work = Work(
        facts=facts, adapters=own, linear=share.numbers or linear, largest=widest, quantised=share.kind, packed=share.nbytes,
        moments=MOMENTS[settings["optim"]["name"]],
        dtype=_dtype(settings["hardware"]["dtype"], facts, machine),
        device=machine.device, samples=len(settings["eval"]["samples"]),
        sample_tokens=settings["eval"]["max_new_tokens"] + tokens.median, reference=aim.copies,
    )  # fmt: skip
    chosen = settle(settings["hardware"], tokens.worst, machine.usable, partial(at_budget, work, tokens, settings))
    advice = [*fill_in(settings, Facts(tokens.rows, facts.hidden, started_at(settings["tuning"]["method"]), aim.pace)), *chosen.advice]
    settings, work = with_advice(settings, advice), chosen.work
    ok = fits(work, machine.usable)
    options = changes(work, longest=tokens.worst, lora=plain, quantiser=machine.device == "cuda" or find_spec("bitsandbytes") is not None)
    steps, time = _time(settings, tokens, work, wish)
    return Forecast(
        settings=settings, reasons=reasons | {one.key: one.reason for one in advice}, facts=facts, adapters=own, tokens=tokens, steps=steps,
        machine=machine, work=work, memory=memory(work), fits=ok, ways=() if ok else tuple(ways(work, machine.usable, options)),
        largest_batch=largest_batch(work, machine.usable), longest_context=longest_context(work, machine.usable), time=time,
        disk=disk(facts, own, keep=settings["output"]["keep"], width=work.width), notes=(*notes, *told),
    )  # fmt: skip


def _time(settings: Mapping[str, Any], tokens: Tokens, work: Work, wish: Wish) -> tuple[int, Time | None]:
    """Steps, and how long they take with their evaluations."""
    optim = settings["optim"]
    steps = total_steps(tokens.rows, optim["batch_size"], optim["epochs"], optim["max_steps"])
    passes = steps * optim["batch_size"] / max(1, tokens.rows)
    evaluations = 1 + steps // settings["eval"]["every"]
    effort = Effort(
        tokens=tokens.tokens * passes,
        eval_tokens=evaluations * sum(tokens.eval_sizes[: settings["eval"]["max_rows"]]),
        mean_length=tokens.tokens / max(1, tokens.rows),
        reads=tokens.learned * passes,
    )
    operated = operations(work.facts, work.adapters, effort, recompute=work.recompute)
    return steps, duration(operated, effort.tokens, wish.machine, speed=wish.speed, price=wish.price, kwh_price=wish.kwh_price)


def with_advice(settings: Mapping[str, Any], advice: Iterable[Advice]) -> dict[str, Any]:
    """Settings with the open ones filled."""
    filled = {name: dict(values) if isinstance(values, Mapping) else values for name, values in settings.items()}
    for key, value, _ in advice:
        section, _, name = key.partition(".")
        filled[section] = {**filled.get(section, {}), name: value}
    return filled


def started_at(method: str) -> float:
    """Where a method's learning rate starts; known here for the two that are planned without torch."""
    known = {"lora": 2e-4, "full": 2e-5}
    if method in known:
        return known[method]
    from hone.tuning import METHODS

    return METHODS[method].about.learning_rate


def at_budget(work: Work, tokens: Tokens, settings: Mapping[str, Any], budget: int) -> Work:
    """The work of micro-batches of so many tokens."""
    most, reads = heaviest(tokens, batch=settings["optim"]["batch_size"], budget=budget)
    rows = settings["eval"]["max_rows"]
    evaluated = sorted(tokens.eval_sizes[:rows], reverse=True)
    eval_tokens = max([min(budget, sum(evaluated)), *evaluated[:1]]) if evaluated else 0
    share = tokens.learned / max(1, tokens.tokens)
    accumulates = most < sum(sorted(tokens.sizes)[-settings["optim"]["batch_size"] :])
    return replace(
        work,
        tokens=most,
        reads=reads,
        eval_tokens=eval_tokens,
        eval_reads=min(eval_tokens, round(1.2 * share * eval_tokens)),
        accumulates=accumulates,
    )


def known_facts(folder: Path) -> ModelFacts:
    """Facts from the config, exact where the weights' headers are here."""
    whole = (folder / "model.safetensors").exists() or (folder / "model.safetensors.index.json").exists()
    return model_facts(folder) if whole else facts_of(read_json(folder / "config.json"), where=str(folder / "config.json"))


def _dtype(asked: str, facts: ModelFacts, machine: Machine) -> str:
    """The type of the arithmetic, as training chooses it: bf16 on GPUs that have it, else what fits."""
    if asked != "auto":
        return asked
    if machine.device == "cuda":
        return "bfloat16" if machine.bf16 else "float32" if machine.memory > 1.6 * 4 * facts.parameters else "float16"
    return "float32" if machine.memory > 1.6 * 4 * facts.parameters else "bfloat16"
