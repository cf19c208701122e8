"""LoRA adapters on disk in PEFT's format: ours load in peft, peft's load here, each on the base that it was made for.

Shape legend: I input features, O output features, R rank.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hone.core.errors import HoneError
from hone.core.registry import nearest
from hone.tuning import folder as adapter_folder
from hone.tuning import rows, starts
from hone.tuning.experts import is_of_expert
from hone.tuning.folder import AGAIN, CONFIG, WEIGHTS

KEY = re.compile(r"(?P<path>.+)\.lora_(embedding_)?(?P<half>[AB])(\.default)?(\.weight)?")
MAGNITUDE, ROWS = ".lora_magnitude_vector", f".{rows.NAME}"
UNDERSTOOD = (
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern",
    "alpha_pattern", "use_rslora", "fan_in_fan_out", "base_model_name_or_path", "revision", "task_type", "peft_type", "peft_version",
    "inference_mode", "init_lora_weights", "auto_mapping", "bias", "use_dora", "modules_to_save",
    "trainable_token_indices", "target_parameters",
)  # fmt: skip
"""Settings that we act upon, or that only say how the training began."""
WITHOUT_EFFECT = ("megatron_core", "qalora_group_size", "runtime_config", "eva_config", "loftq_config", "ensure_weight_tying")
"""Settings that mean nothing unless another one is switched on."""
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""Initialisations that leave the base as it was."""
SUBTRACTED = ("pissa", "olora")
"""Initialisations that took their start out of the base; it follows from the base's weights, so it can be found again.
The others (CorDA, LoftQ, PiSSA by random projection) changed the base beyond what an adapter can tell."""

MERGE = "merge it into its base with peft, and start from the merged model"

Pair = tuple[Tensor, Tensor]
"""A (R, I) and B (O, R) of one layer; the change of its weight is scale * B A."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """What adapter_config.json says, in our words."""

    rank: int
    alpha: float
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    init: starts.Kind = "default"
    train: tuple[str, ...] = ()
    """Modules that are kept whole."""
    tokens: tuple[int, ...] = ()
    """Tokens whose rows of embedding and head moved."""
    parameters: tuple[str, ...] = ()
    """Stacked weights of experts that are adapted."""
    targets: tuple[str, ...] | str = ()
    """Names (the end of a layer's path) or one regular expression, as peft reads them."""
    exclude: tuple[str, ...] | str = ()
    layers: tuple[int, ...] | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)

    def scale(self, path: str) -> float:
        """What the product B A of the layer at this path is multiplied with."""
        alpha = self.alphas.get(pattern_of(self.alphas, path), self.alpha)
        return alpha / self._divisor(self.rank_of(path))

    def _divisor(self, rank: int) -> float:
        return math.sqrt(rank) if self.rslora else rank

    def rank_of(self, path: str) -> int:
        return self.ranks.get(pattern_of(self.ranks, path), self.rank)

    def matches(self, path: str) -> bool:
        """Whether peft would adapt the linear layer at this path."""
        if _selects(self.exclude, path):
            return False
        if self.layers is not None and isinstance(self.targets, tuple):
            index = re.match(r".*?\.[^.]*\.(\d+)\.", path)
            if index is None or int(index[1]) not in self.layers:
                return False
        return self.targets == "all-linear" or _selects(self.targets, path)


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter as read: A and B by layer path, and the other tensors (magnitudes, whole modules, experts) by name."""

    config: AdapterConfig
    tensors: dict[str, Pair]
    base: dict[str, str]
    """Name and fingerprint of its base; adapters that we did not write know only the name."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """Settings of the tuning method "lora" (or "dora") that make room for exactly these tensors."""
        config = self.config
        init: starts.Kind = "loftq" if self.base.get("rounded") == "nf4" else config.init
        known: dict[str, Any] = {
            "rank": config.rank,
            "alpha": config.alpha,
            "dropout": config.dropout,
            "rslora": config.rslora,
            "init": init,
        }
        beside = [name for name in self.extra if KEY.fullmatch(name) is None and not name.endswith((MAGNITUDE, ROWS))]
        train = {name.rpartition(".")[0] for name in beside}
        known |= {"ranks": dict(config.ranks), "alphas": dict(config.alphas)}
        known |= {"train": tuple(sorted(train)), "tokens": config.tokens or None}
        return known | {"targets": (*self.tensors, *config.parameters)}

    def at(self, rooms: Mapping[str, tuple[int, float]]) -> dict[str, Pair]:
        """The same changes for layers of other ranks and scales, given by path.

        Raises M003 where a rank is too small to hold them.
        """
        for path, (rank, _) in rooms.items():
            stored = len(self.tensors[path][0]) if path in self.tensors else 0
            if rank < stored:
                what = f"the adapter has rank {stored}, which does not fit into layers of rank {rank} ('{path}')"
                raise HoneError("M003", what, where="tuning.rank", fix=f"set tuning.rank={stored}")
        return {path: _refit(pair, rooms[path][0], self.config.scale(path) / rooms[path][1]) for path, pair in self.tensors.items()}


def save_adapter(
    folder: Path,
    tensors: Mapping[str, Pair],
    options: Mapping[str, Any],
    *,
    base: Mapping[str, str],
    linear: Iterable[str] = (),
    extra: Mapping[str, Tensor] | None = None,
    tables: Iterable[str] = (),
) -> None:
    """Write an adapter that peft, vLLM and llama.cpp read.

    `options` are peft's own names (r, lora_alpha, lora_dropout, use_rslora, fan_in_fan_out, target_modules ...). `base`
    holds the base's "name" and "fingerprint". `linear` are the paths of all layers that could have been adapted: with them
    the targets are written as short names where these mean the same layers, without them as full paths. `extra` are
    further tensors under peft's names, `tables` the paths of embeddings among the adapted.
    """
    assert tensors or extra, "an adapter without layers"
    config = {
        "peft_type": "LORA", "bias": "none", "target_modules": _short_names(tensors, linear), "lora_dropout": 0.0, "use_rslora": False,
        "fan_in_fan_out": False, **options, "lora_alpha": _whole(options["lora_alpha"]),
    }  # fmt: skip
    names = dict.fromkeys(tables, "lora_embedding_{}")
    flat = {
        f"{path}.{names.get(path, 'lora_{}.weight').format(half)}": tensor
        for path, pair in tensors.items()
        for half, tensor in zip("AB", pair, strict=True)
    }
    adapter_folder.write(folder, flat | dict(extra or {}), config, base=base)


def load_adapter(folder: Path, *, base: Mapping[str, str] | None = None) -> AdapterFile:
    """Read an adapter made by us or by peft.

    Raises M003 where `base` is not the model that it was trained on, M004 for rank 0 or no layers, M005 for damaged files,
    M008 for a pickle, M009 for a folder without an adapter, M019 for an option of peft that we cannot honour.
    """
    config = read_lora_config(folder)
    stored = adapter_folder.read(folder, base=base)
    pairs = _pairs(stored.tensors, config, folder)
    for path, (a_RI, b_OR) in pairs.items():
        _check_pair(path, a_RI, b_OR, config.rank_of(path), folder)
    extra = _extra(stored.tensors, config, folder)
    empty = not extra and all(not bool(a_RI.any() and b_OR.any()) for a_RI, b_OR in pairs.values())
    notes = ("every B of this adapter is zero, so it changes nothing",) if empty else ()
    return AdapterFile(config, pairs, stored.base, extra, notes)


def check_fit(adapter: AdapterFile, shapes: Mapping[str, tuple[int, int]], *, where: str) -> None:
    """Compare an adapter with a model's linear layers, given as path to (outputs, inputs).

    Raises M004 where it reaches none of them, M003 where it reaches too few or too many, or where sizes differ.
    """
    known = sorted(shapes)
    hit = [path for path in adapter.tensors if path in shapes]
    if not hit:
        first = sorted(adapter.tensors)[0]
        raise HoneError("M004", f"no layer of this model is called as in the adapter ('{first}')", where=where, fix=nearest(first, known))
    lost = sorted(path for path in adapter.tensors if path not in shapes)
    if lost:
        what = f"the adapter changes {len(lost)} layers that this model does not have ('{lost[0]}')"
        raise HoneError("M003", what, where=where, fix=_use(adapter))
    for path in hit:
        a_RI, b_OR = adapter.tensors[path]
        if (b_OR.shape[0], a_RI.shape[1]) != shapes[path]:
            what = f"layer '{path}' is {b_OR.shape[0]} x {a_RI.shape[1]} in the adapter and {shapes[path][0]} x {shapes[path][1]} here"
            raise HoneError("M003", what, where=where, fix=_use(adapter))
    extra = [path for path in known if path not in adapter.tensors and adapter.config.matches(path)]
    if extra and adapter.config.targets != "all-linear":
        what = f"the adapter means layer '{extra[0]}' too, but holds nothing for it: its base had fewer layers"
        raise HoneError("M003", what, where=where, fix=_use(adapter))


def read_lora_config(folder: Path) -> AdapterConfig:
    """adapter_config.json of a LoRA in our words. What is not known to be harmless is refused by name (M019)."""
    raw, file = adapter_folder.read_config(folder), folder / CONFIG
    _refuse_options(raw, str(file))
    layers, alpha = raw.get("layers_to_transform"), _number(raw.get("lora_alpha", 8), "lora_alpha", file)
    if alpha == 0:
        raise HoneError(
            "M004", "the adapter has lora_alpha 0, so it changes nothing", where=str(file), fix="train it again with another alpha"
        )
    return AdapterConfig(
        rank=_rank(raw.get("r", 8), file), alpha=alpha,
        dropout=_number(raw.get("lora_dropout") or 0.0, "lora_dropout", file), rslora=bool(raw.get("use_rslora")),
        targets=_names(raw.get("target_modules"), file), exclude=_names(raw.get("exclude_modules"), file),
        dora=bool(raw.get("use_dora")), init=raw["init_lora_weights"] if raw.get("init_lora_weights") in SUBTRACTED else "default",
        train=tuple(raw.get("modules_to_save") or ()), tokens=_tokens(raw.get("trainable_token_indices"), file),
        parameters=tuple(raw.get("target_parameters") or ()),
        layers=None if layers in (None, []) else tuple(layers) if isinstance(layers, list) else (layers,),
        ranks={key: _rank(value, file) for key, value in _table(raw, "rank_pattern", file)},
        alphas={key: _number(value, "alpha_pattern", file) for key, value in _table(raw, "alpha_pattern", file)},
    )  # fmt: skip


def _refuse_options(raw: Mapping[str, Any], where: str) -> None:
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise HoneError("M019", f"the adapter's method is {kind!r}; only LORA can be read", where=where, fix=MERGE)
    for key, value in raw.items():
        used = value not in (None, False, "none") and value != [] and value != {}
        wrong = used and key not in (*UNDERSTOOD, *WITHOUT_EFFECT)
        wrong = wrong or (key == "bias" and used) or (key == "task_type" and value not in (None, "CAUSAL_LM"))
        if wrong or (key == "init_lora_weights" and value not in (*PLAIN_STARTS, *SUBTRACTED)):
            what = f"the adapter uses peft's option {key}={value!r}, which cannot be honoured here"
            raise HoneError("M019", what, where=where, fix=MERGE)


def _pairs(tensors: Mapping[str, Tensor], config: AdapterConfig, folder: Path) -> dict[str, Pair]:
    """A and B of every layer, in fp32; those of experts are among the other tensors."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = KEY.fullmatch(name)
        if found is None or is_of_expert(found["path"], config.parameters):
            continue
        halves.setdefault(found["path"], {})[found["half"]] = tensor if tensor.dtype == torch.float64 else tensor.float()
    if not halves and not config.parameters:
        fix = "train it again; its targets matched nothing"
        raise HoneError("M004", "the adapter holds no layers", where=str(folder / WEIGHTS), fix=fix)
    for path, pair in halves.items():
        if len(pair) != 2:
            what = f"layer '{path}' has only half of its pair (lora_{next(iter(pair))})"
            raise HoneError("M005", what, where=str(folder / WEIGHTS), fix=AGAIN)
    return {path: (pair["A"], pair["B"]) for path, pair in sorted(halves.items())}


def _extra(tensors: Mapping[str, Tensor], config: AdapterConfig, folder: Path) -> dict[str, Tensor]:
    """What is not A or B of a layer: magnitudes, whole modules, experts. Raises M019 for anything else."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        key = KEY.fullmatch(name)
        if key is not None and is_of_expert(key["path"], config.parameters):
            found[name] = tensor
            continue
        if key is not None or name.endswith("embed_tokens.base_layer.weight"):
            continue  # peft adds the base's own table to an adapter of an embedding
        whole = any(part.endswith(each) for each in config.train for part in _modules_around(name))
        if not whole and not (config.dora and name.endswith(MAGNITUDE)) and not (config.tokens and name.endswith(ROWS)):
            what = f"the adapter holds '{name}', which is no low-rank matrix of a linear layer"
            raise HoneError("M019", what, where=str(folder / WEIGHTS), fix=MERGE)
        found[name] = tensor
    adapter_folder.check_finite(found, where=str(folder))
    return found


def _modules_around(name: str) -> list[str]:
    """The modules that a parameter lies in; peft keeps those whole whose paths end as it was told."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def fill_extra(places: Mapping[str, Tensor], extra: Mapping[str, Tensor], *, where: str) -> None:
    """Copy magnitudes and whole modules to where they belong. Raises M041 where names or sizes differ."""
    adapter_folder.copy_into(places, adapter_folder.Stored({}, dict(extra), {}), where=where)


def _check_pair(path: str, a_RI: Tensor, b_OR: Tensor, rank: int, folder: Path) -> None:
    shapes = f"A {tuple(a_RI.shape)}, B {tuple(b_OR.shape)}"
    if a_RI.ndim != 2 or b_OR.ndim != 2 or a_RI.shape[0] != rank or b_OR.shape[1] != rank:
        what = f"layer '{path}' should have rank {rank}, but holds {shapes}"
        raise HoneError("M005", what, where=str(folder), fix=f"{CONFIG} and {WEIGHTS} belong to two adapters; copy both again")
    if not bool(torch.isfinite(a_RI).all() & torch.isfinite(b_OR).all()):
        what = f"layer '{path}' holds values that are no finite numbers"
        raise HoneError("M005", what, where=str(folder), fix="use an earlier checkpoint")


def _refit(pair: Pair, rank: int, ratio: float) -> Pair:
    """The same product times `ratio`, written with matrices of a larger rank."""
    a_RI, b_OR = pair
    short = rank - a_RI.shape[0]
    if short:
        a_RI, b_OR = torch.nn.functional.pad(a_RI, (0, 0, 0, short)), torch.nn.functional.pad(b_OR, (0, short))
    return a_RI, b_OR if ratio == 1 else b_OR * ratio


def _short_names(tensors: Mapping[str, Pair], linear: Iterable[str]) -> list[str]:
    """The last parts of the paths where they select exactly these layers, else the full paths."""
    short = sorted({path.rpartition(".")[2] for path in tensors})
    known = set(linear)
    exact = known and {path for path in known if path.rpartition(".")[2] in short} == set(tensors)
    return short if exact else sorted(tensors)


def _names(value: Any, file: Path) -> tuple[str, ...] | str:
    """Target modules: one regular expression, or a list of names. Raises M004 for anything else."""
    if isinstance(value, str):
        return _regex(value, file)
    if value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        return tuple(value or ())
    what = f"target_modules is {value!r}, which names no layers"
    raise HoneError("M004", what, where=str(file), fix="give a list of names such as q_proj")


def _regex(text: str, file: Path) -> str:
    try:
        re.compile(text)
    except re.error as error:
        what = f"'{text}' is no valid regular expression ({error})"
        raise HoneError("M004", what, where=str(file), fix="list the layers' names instead") from None
    return text


def _table(raw: Mapping[str, Any], key: str, file: Path) -> list[tuple[str, Any]]:
    """Layer pattern and value of rank_pattern or alpha_pattern."""
    table = raw.get(key) or {}
    if not isinstance(table, dict):
        raise HoneError("M013", f"{key} is {table!r}, which is no table", where=str(file), fix=AGAIN)
    return [(_regex(name, file), value) for name, value in table.items()]


def _tokens(value: Any, file: Path) -> tuple[int, ...]:
    """The tokens whose rows moved; peft allows other ones for every table, which has no meaning for a model. Raises M019."""
    lists = list(value.values()) if isinstance(value, dict) else [value or []]
    if not all(isinstance(each, list) and each == lists[0] and all(type(one) is int for one in each) for each in lists):
        what = "trainable_token_indices names other tokens for the embedding than for the head"
        raise HoneError("M019", what, where=str(file), fix=MERGE)
    return tuple(lists[0]) if lists else ()


def _rank(value: Any, file: Path) -> int:
    if type(value) is not int or value < 1:
        what = f"the adapter has rank {value!r}, so it holds nothing"
        raise HoneError("M004", what, where=str(file), fix="train it again with a rank of 8 or more")
    return value


def _number(value: Any, key: str, file: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise HoneError("M013", f"{key} is {value!r}, which is no number", where=str(file), fix=AGAIN)
    return float(value)


def _selects(targets: tuple[str, ...] | str, path: str) -> bool:
    """peft's rule: a string is a regular expression on the whole path, a name is the path or its end."""
    if isinstance(targets, str):
        return re.fullmatch(targets, path) is not None
    return any(path == name or path.endswith(f".{name}") for name in targets)


def pattern_of(patterns: Mapping[str, Any], path: str) -> str:
    """peft's rule for rank_pattern and alpha_pattern: the first key that matches the end of the path."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", path)), path)


def _whole(number: float) -> float:
    return int(number) if float(number).is_integer() else number


def _use(adapter: AdapterFile) -> str:
    return f"load the base that it was trained on: model={adapter.base.get('name') or '(unknown)'}"
