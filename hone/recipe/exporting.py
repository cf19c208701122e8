"""`hone export`: from whatever was trained to a source that every target can read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from hone.core.disk import check_output
from hone.core.errors import HoneError
from hone.core.files import sweep
from hone.data.chat import ChatTemplate
from hone.export import TARGETS
from hone.export.base import Artifact, Checked, Order, Source, choose_quant, folder_name
from hone.export.packed import base_weights
from hone.export.proof.golden import Golden
from hone.export.tensors import AdaptedWeights, LoadedWeights, Weights, streams
from hone.models.fingerprint import fingerprint
from hone.models.load import fetch
from hone.models.settings import HardwareSettings, ModelSettings
from hone.models.tokens import load_tokenizer
from hone.plan.packed import Scheme, scheme_of
from hone.plan.shapes import read_json
from hone.recipe import certificate, importance
from hone.recipe.opening import open_model, place_of
from hone.recipe.quantised import quantised_as
from hone.recipe.settings import resolve
from hone.recipe.written import settings_in
from hone.report import card
from hone.report.folder import read_run
from hone.tuning import Tuning, peft_io
from hone.tuning.base import Untouched, name_of
from hone.tuning.folder import CONFIG
from hone.tuning.lora import Lora
from hone.tuning.opening import open_adapter

EXACT = HardwareSettings(dtype="float32", device="cpu")
ADVISED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the pieces of a trained model lie."""

    name: str
    given: str
    model: Path
    """config.json and weights: the base of an adapter, or the whole model."""
    base: dict[str, str]
    tuning: Tuning
    adapter: Path | None = None
    run: Path | None = None
    scheme: Scheme | None = None
    """How the base was quantised for the training; None for plain bases, and for such as are so in their files."""

    @property
    def words(self) -> Path:
        """The folder with the tokenizer and template of the training."""
        own = self.adapter or self.model
        return own if any((own / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json")) else self.model


def find_parts(name: str) -> Parts:
    """A run folder, an adapter's folder, a model's folder or a hub id. Raises F007 for an unfinished run, and the M codes of loading."""
    folder = place_of(name)
    if (folder / "resolved.json").is_file():
        return _of_run(folder)
    if (folder / CONFIG).is_file():
        found = _of_adapter(folder)
        return found if Path(name).is_dir() else replace(found, name=name.rpartition("/")[2])
    model, base = _fetched(name)
    return Parts(folder.resolve().name if folder.is_dir() else name.rpartition("/")[2], name, model, base, Untouched())


def _fetched(name: str, **options: Any) -> tuple[Path, dict[str, str]]:
    """A model's folder, and what an adapter remembers of it."""
    folder, revision = fetch(name, **options)
    return folder, {"name": name, "fingerprint": fingerprint(folder)} | ({"revision": revision} if revision else {})


def _of_run(folder: Path) -> Parts:
    recipe = resolve(settings_in(folder))
    name = folder.resolve().name
    if (folder / "model").is_dir():
        return Parts(name, str(folder), folder / "model", {"name": recipe.model.name}, recipe.tuning, run=folder)
    if not (folder / "adapter").is_dir():
        fix = "finish it: run the same `hone train` command again"
        raise HoneError("F007", "this run has not written a model yet", where=str(folder), fix=fix)
    asked = recipe.model
    model, base = _fetched(asked.name, revision=asked.revision, trust_remote_code=asked.trust_remote_code)
    return Parts(name, str(folder), model, base, recipe.tuning, adapter=folder / "adapter", run=folder, scheme=asked.scheme)


def _of_adapter(folder: Path) -> Parts:
    tuning, known = open_adapter(folder)
    if not known.get("name"):
        fix = "set base_model_name_or_path in adapter_config.json"
        raise HoneError("M003", "this adapter does not say which base it belongs to", where=str(folder), fix=fix)
    model, base = _fetched(known["name"], revision=known.get("revision"))
    short = folder.resolve().parent.name if folder.name == "adapter" else folder.resolve().name
    scheme = ModelSettings(name=known["name"], **quantised_as(known)).scheme
    return Parts(short, str(folder), model, base, tuning, adapter=folder, scheme=scheme)


def open_source(name: str) -> Source:
    """Everything that targets ask for. Without a certificate (a model from elsewhere), one is taken now."""
    parts = find_parts(name)
    tokenizer = load_tokenizer(parts.words)
    template = ChatTemplate.of(tokenizer)
    place = certificate.beside(parts.adapter or parts.model)
    golden = Golden.load(place) if place is not None else certificate.of_opened(open_model(name, hardware=EXACT), base=parts.base)
    resolved = read_json(parts.run / "resolved.json") if parts.run else {}
    generation = parts.model / "generation_config.json"
    advised = read_json(generation) if generation.is_file() else {}
    return Source(
        name=parts.name,
        weights=cache(partial(weights_of, parts)),
        config=read_json(parts.model / "config.json"),
        base=parts.base,
        base_folder=parts.model,
        method=name_of(parts.tuning),
        tokenizer=tokenizer,
        template=template,
        golden=golden,
        adapter=parts.adapter,
        scheme=parts.scheme or (scheme_of(read_json(parts.model / "config.json")) if parts.adapter is not None else None),
        system=resolved.get("data", {}).get("system"),
        sampling={key: advised[key] for key in ADVISED if advised.get(key) is not None},
        importance=cache(partial(importance.of_run, parts.run, resolved)),
        card=lambda place, loads: card.render(read_run(parts.run), place=place, loads=loads) if parts.run else "",
    )  # fmt: skip


def weights_of(parts: Parts) -> Weights:
    """The trained weights: read from the files, with a low-rank adapter added on the way; other methods fold in memory.

    Of a base that was quantised for the training it is the rounded weights that are added to, as in the training itself.

    Raises M040 for a method that cannot be folded into plain weights.
    """
    stored = base_weights(parts.model, parts.scheme)
    if parts.adapter is None:
        return stored
    if parts.tuning.about.unmergeable:
        what = f"'{name_of(parts.tuning)}' cannot be folded into plain weights: {parts.tuning.about.unmergeable}"
        raise HoneError("M040", what, where="tuning.method", fix="use --to adapter, which hone can serve; or train with tuning.method=lora")
    adapter = peft_io.load_adapter(parts.adapter, base=parts.base) if isinstance(parts.tuning, Lora) else None
    if adapter is not None and streams(adapter):
        return AdaptedWeights(stored, adapter)
    policy = open_model(parts.given, hardware=EXACT).policy
    config: Any = policy.model.config
    before = config.to_dict()
    policy.tuning.merge(policy.model)
    changed = {key: value for key, value in config.to_dict().items() if value != before.get(key)}
    return LoadedWeights(policy.model, {name: stored.dtype(name) for name in stored.names()}, changed)


def _quietly(line: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What `hone export` was asked for."""

    targets: tuple[str, ...]
    out: Path
    quant: str | None = None
    repo: str | None = None
    private: bool = False
    message: str = "Upload by hone"


def export(
    source: Source, wanted: Wanted, *, tell: Callable[[str], None] = _quietly, check: Callable[[Path], Checked] | None = None
) -> list[Artifact]:
    """Make all artifacts, in order. Room on the disk and every refusal come before the first byte."""
    chosen = [(name, TARGETS[name](), _quant(name, wanted.quant)) for name in wanted.targets]
    if wanted.quant is not None and not any(_knows(name, wanted.quant) for name in wanted.targets):
        choose_quant(wanted.targets[0], wanted.quant)
    options = {"repo": wanted.repo, "private": wanted.private, "message": wanted.message}
    order = Order(source=source, folder=wanted.out, quant="", tell=tell, made={}, options=options)
    order = order if check is None else replace(order, check=check)
    check_output(wanted.out, sum(target.needed(replace(order, quant=quant)) for _, target, quant in chosen))
    sweep(wanted.out)
    made: dict[str, Path] = {}
    artifacts = []
    for name, target, quant in chosen:
        ordered = replace(order, quant=quant, folder=wanted.out / folder_name(source, name, quant), made=dict(made))
        artifacts.append(target.write(ordered))
        made[name] = artifacts[-1].path
    return artifacts


def _knows(target: str, quant: str) -> bool:
    try:
        choose_quant(target, quant)
    except HoneError:
        return False
    return True


def _quant(target: str, quant: str | None) -> str:
    """A quantisation is meant for the targets that know it; the others keep their default."""
    return choose_quant(target, quant if quant is not None and _knows(target, quant) else None)
