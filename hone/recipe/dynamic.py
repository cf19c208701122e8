"""`hone quantise`: a uniform or a dynamic copy of a model; for the latter text is read, errors are measured, layers are chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hone.core.errors import HoneError
from hone.core.registry import nearest
from hone.core.types import Batch
from hone.data.batching import micro_batches
from hone.data.chat import ChatTemplate
from hone.data.prepare import prepare
from hone.data.settings import DataSettings
from hone.export.packed import paths_of
from hone.export.quantised import Written, write_quantised
from hone.export.tensors import StoredWeights, total_bytes
from hone.models.allot import Choice, Limits, allot
from hone.models.calibrate import Bench, LayerError, divergence, hidden_states, layer_errors
from hone.models.load import Loaded, fetch, load
from hone.models.policy import Policy
from hone.models.quantise import check_available, quantise, stored_by_path
from hone.plan.headers import stored_tensors
from hone.plan.packed import Scheme, scheme_of
from hone.plan.shapes import read_json
from hone.report import quantised as report
from hone.rollout.sample import context_of
from hone.tuning.base import Untouched

TOKENS = 4096
"""Tokens of text to measure on, and as many again that are kept aside for the final figure."""
LONGEST = 512
KINDS = ("nf4", "fp4", "int8")
BUDGET = 1.10


@dataclass(frozen=True, slots=True)
class QuantiseWish:
    """What is asked for."""

    model: str
    out: Path
    scheme: Scheme
    budget: float = BUDGET
    """Bytes of the whole model, over those of the uniform one."""
    kl: float | None = None
    """The divergence to come to instead, in nats a token."""
    data: str | None = None
    tokens: int = TOKENS
    device: str = "auto"
    dtype: str = "auto"


@dataclass(frozen=True, slots=True)
class Dynamic:
    """What was found out. Divergences are KL(plain || quantised), nats a token."""

    scheme: Scheme
    errors: dict[str, LayerError]
    choices: list[Choice]
    uniform_bytes: int
    """Of the model when everything is quantised, in memory."""
    uniform: float
    chosen: float
    """On the text that the layers were chosen by."""
    held_uniform: float
    held_chosen: float
    """On text that was kept aside."""
    tokens: int = 0
    held_tokens: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def bytes(self) -> int:
        return self.uniform_bytes + sum(choice.extra for choice in self.choices)

    def document(self) -> dict[str, Any]:
        """As plain JSON."""
        found = asdict(self) | {"bytes": self.bytes, "layers": [asdict(error) for error in self.errors.values()]}
        return found | {"choices": [choice._asdict() for choice in self.choices], "errors": None}


def quantise_model(wish: QuantiseWish, *, dynamic: bool, tell: Callable[[str], None]) -> tuple[Written, Dynamic | None]:
    """Write the quantised copy, and for a dynamic one its report. Raises M088, M089, M120 and the codes of loading and of data."""
    check_available("hone quantise")
    folder, _ = fetch(wish.model)
    own = scheme_of(read_json(folder / "config.json"))
    if own is not None:
        what = f"'{wish.model}' is quantised already ({own}); what its rounding has lost does not come back"
        raise HoneError("M089", what, where=f"{wish.model}: quantization_config", fix="name the 16-bit model that it was made from")
    if not dynamic:
        papers = report.papers(wish.model, wish.scheme, None)
        return write_quantised(folder, wish.out, wish.scheme, papers=papers, tell=tell), None
    found = find(wish, folder, tell)
    papers = report.papers(wish.model, found.scheme, report.Told.of(found.document(), wish.data or ""))
    return write_quantised(folder, wish.out, found.scheme, papers=papers, tell=tell), found


def find(wish: QuantiseWish, folder: Path, tell: Callable[[str], None]) -> Dynamic:
    """Measure, choose, and measure again on text that was kept aside."""
    if wish.data is None:
        fix = "hone quantise MODEL --dynamic --data FILE: the data it will be trained on, or anything like it"
        raise HoneError("M120", "layers are chosen by what the model says of real text, and none was given", where="--data", fix=fix)
    loaded = load(folder, dtype=wish.dtype, device=wish.device)
    text, aside = texts(wish, loaded)
    base = StoredWeights(folder)
    width = base.dtype(next(name for name in base.names() if len(base.shape(name)) > 1)).itemsize
    tuning = Untouched()
    tuning.attach(loaded.model, seed=0)
    policy = Policy.of(loaded.model, tuning)
    tell(f"measuring {len(paths_of(folder, wish.scheme))} layers on {tokens_of(text):,} tokens")
    errors, known = layer_errors(policy, text, wish.scheme, width=width)
    known_aside = hidden_states(policy, aside)
    weight = next(loaded.model.parameters())
    stored = stored_by_path(stored_tensors(folder), loaded.model)
    quantise(loaded.model, wish.scheme, place=weight.device, dtype=weight.dtype, stored=stored)
    bench = Bench(policy, text, known)
    uniform, held_uniform = bench.divergence(), divergence(policy, aside, known_aside)
    tell(f"everything in {wish.scheme}: KL {uniform:.5f}")
    by_path = {error.path: error for error in errors}
    plain = total_bytes(base)
    total = plain - sum(error.extra for error in errors)
    limits = Limits(extra=plain if wish.kl is not None else round((wish.budget - 1) * total), kl=wish.kl)
    choices = allot(bench, by_path, limits, tell=tell)
    return Dynamic(
        scheme=replace(wish.scheme, skip=tuple(sorted(choice.path for choice in choices))),
        errors=by_path, choices=choices, uniform_bytes=total, uniform=uniform,
        chosen=choices[-1].kl if choices else uniform,
        held_uniform=held_uniform, held_chosen=divergence(policy, aside, known_aside),
        tokens=tokens_of(text), held_tokens=tokens_of(aside), notes=notes_of(wish, choices, uniform),
    )  # fmt: skip


def notes_of(wish: QuantiseWish, choices: Sequence[Choice], uniform: float) -> tuple[str, ...]:
    """What a person should know of how it ended."""
    reached = choices[-1].kl if choices else uniform
    if wish.kl is not None and reached > wish.kl:
        return (f"the wanted KL of {wish.kl:g} was not reached: every layer that helps is kept, and {reached:.5f} is left",)
    if not choices:
        return ("no layer fits the budget and helps: the copy is the uniform one; raise --budget",)
    return ()


def texts(wish: QuantiseWish, loaded: Loaded) -> tuple[list[Batch], list[Batch]]:
    """(text to choose by, text that is kept aside), each of about as many tokens as are wished for. Raises the D codes of reading."""
    settings = DataSettings(train=wish.data or "", held_out=0.5, max_length=LONGEST, skip_bad=True)
    prepared = prepare(settings, loaded.tokenizer, ChatTemplate.of(loaded.tokenizer), context=context_of(loaded.model))
    parts = []
    for groups in (prepared.groups, prepared.held_out):
        taken, used = [], 0
        for group in groups:
            if used >= wish.tokens:
                break
            taken.append(group)
            used += sum(len(sequence.tokens) for sequence in group)
        parts.append(micro_batches(taken, 2048))
    if not all(parts):
        raise HoneError("M120", "half of the text is kept aside, and there is too little of it", where="--data", fix="give more rows")
    return parts[0], parts[1]


def tokens_of(batches: Sequence[Batch]) -> int:
    """Tokens of all batches."""
    return sum(len(batch.tokens_T) for batch in batches)


def scheme_for(kind: str, *, dynamic: bool, budget: float, kl: float | None) -> Scheme:
    """The scheme of a command's options. Raises C003 for an unknown kind, C136 for options that would do nothing or cannot be."""
    if kind not in KINDS:
        raise HoneError("C003", f"there is no quantisation '{kind}'", where="--kind", fix=nearest(kind, KINDS))
    if not dynamic and (kl is not None or budget != BUDGET):
        raise HoneError("C136", "--budget and --kl choose layers, which only --dynamic does", where="hone quantise", fix="add --dynamic")
    if budget < 1 or (kl is not None and kl < 0):
        raise HoneError("C136", "a budget below 1, or a KL below 0, cannot be met", where="--budget, --kl", fix="--budget 1.10")
    return Scheme(kind, double=kind != "int8")
