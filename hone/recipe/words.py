"""What people write for a run (a file, overrides, the habits of other tools) as raw sections, read without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hone.core.errors import HoneError

PRESETS = Path(__file__).parent / "presets"
MAIN_FIELD = {
    "model": "name",
    "data": "train",
    "tuning": "method",
    "optim": "name",
    "objective": "name",
    "output": "folder",
    "rollout": "prompts",
}
"""`model=X` is short for `model.name=X`."""

ALIASES = {
    "model_name_or_path": "model.name",
    "model_name": "model.name",
    "dataset": "data.train",
    "dataset_name": "data.train",
    "output_dir": "output.folder",
    "optimizer": "optim.name",
    "learning_rate": "optim.learning_rate",
    "lr": "optim.learning_rate",
    "num_generations": "rollout.group_size",
    "max_completion_length": "rollout.sampling.max_new_tokens",
    "embedding_learning_rate": "optim.embedding_learning_rate",
    "num_train_epochs": "optim.epochs",
    "epochs": "optim.epochs",
    "max_steps": "optim.max_steps",
    "batch_size": "optim.batch_size",
    "warmup_ratio": "optim.warmup_ratio",
    "weight_decay": "optim.weight_decay",
    "max_grad_norm": "optim.clip",
    "lr_scheduler_type": "optim.schedule",
    "max_seq_length": "data.max_length",
    "max_length": "data.max_length",
    "cutoff_len": "data.max_length",
    "lora_r": "tuning.rank",
    "lora_rank": "tuning.rank",
    "rank": "tuning.rank",
    "lora_alpha": "tuning.alpha",
    "lora_dropout": "tuning.dropout",
    "target_modules": "tuning.targets",
    "lora_target": "tuning.targets",
    "use_rslora": "tuning.rslora",
    "exclude_modules": "tuning.exclude",
    "layers_to_transform": "tuning.layers",
    "rank_pattern": "tuning.ranks",
    "alpha_pattern": "tuning.alphas",
    "init_lora_weights": "tuning.init",
    "loraplus_lr_ratio": "tuning.b_rate",
    "modules_to_save": "tuning.train",
    "additional_target": "tuning.train",
    "init_r": "tuning.rank",
    "target_r": "tuning.target_rank",
    "orth_reg_weight": "tuning.orthogonality",
    "finetuning_type": "tuning.method",
    "eval_steps": "eval.every",
    "evaluation_steps": "eval.every",
    "save_steps": "output.save_every",
    "save_total_limit": "output.keep",
    "logging_steps": "output.log_every",
    "report_to": "output.trackers",
    "quantise": "model.quantise",
    "quantize": "model.quantise",
    "double_quant": "model.double_quant",
    "bnb_4bit_quant_type": "model.quantise",
    "bnb_4bit_use_double_quant": "model.double_quant",
    "torch_dtype": "hardware.dtype",
    "dtype": "hardware.dtype",
}
"""What people are used to write -> our name, which is shown back to them."""

SWITCHES = {"full_finetuning": "full", "use_dora": "dora"}
"""Switches of other tools -> the method that they mean; switched off, they mean lora."""


BITS = {"load_in_4bit": ("nf4", "fp4"), "load_in_8bit": ("int8",), "load_in_16bit": ("none",)}
"""Switches of other tools for the base's weights -> what model.quantise may then be, the default first. Off, they say nothing."""
MODES = ("full_finetuning", *BITS)
"""Switches of which at most one may be on."""
WHOLE = ("full", "freeze")
"""Methods that move the base's own weights, which must be plain for it."""


def read(source: str | None, overrides: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """A run file or an objective's name, then `a.b=c` overrides; returns the raw sections and notes about renamed keys."""
    raw: dict[str, Any] = {}
    notes: list[str] = []
    given: list[tuple[str, Any]] = []
    if source is not None and source.endswith((".yaml", ".yml")):
        from hone.recipe.runfile import read_runfile

        given += [(str(key), value) for key, value in read_runfile(Path(source)).items()]
    elif source is not None:
        _check_objective(source)
        given += (preset(source) or {"objective": {"name": source}}).items()
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals:
            raise HoneError("C005", f"'{item}' is not a setting", fix=_as_setting(item))
        given.append((key.lstrip("-"), _value(text, item)))
    _one_mode(_dotted(given))
    for key, value in given:
        _put(raw, key, value, notes)
    _fold_batch(raw, notes)
    _fold_qlora(raw, notes)
    return raw, notes


def _check_objective(source: str) -> None:
    """C005 for a file or a folder where an objective is named."""
    if ("/" in source or "." in source) and ":" not in source and Path(source).exists():
        fix = (
            f"name the objective first: hone train sft model=MODEL data={source}" if Path(source).is_file() else "hone train sft model=..."
        )
        raise HoneError("C005", f"'{source}' is neither an objective nor a run file (.yaml)", where=source, fix=fix)


def _as_setting(item: str) -> str:
    """How a word that is none could be meant."""
    if item.startswith("-"):
        return f"settings are written {item.lstrip('-') or 'name'}=VALUE; for options look at --help"
    if ("/" in item or "." in item) and Path(item).exists():
        return f"write {'data' if Path(item).is_file() else 'model'}={item}"
    return "write settings as name=value, for instance optim.epochs=2"


def _value(text: str, item: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text) if text else None
    except yaml.YAMLError:
        raise HoneError("C005", f"the value of '{item}' cannot be read", fix="quote it, or put it into a run file") from None


def _dotted(given: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Settings inside sections by their whole names."""
    for key, value in given:
        inside = value.items() if isinstance(value, dict) else ()
        yield from ((f"{key}.{name}", each) for name, each in inside) if inside else (("tuning.method" if key == "tuning" else key, value),)


def _one_mode(given: Iterable[tuple[str, Any]]) -> None:
    """Full, 16-bit, 8-bit or 4-bit: raise C100 where nothing is all that is asked for, naming the keys and the runs that are legal."""
    asked = {key: modes for key, value in dict(given).items() if (modes := _modes(key, value))}
    if asked and not frozenset.intersection(*asked.values()):
        on = list(asked)
        ways = " | ".join(f"keep {key}, without {', '.join(other for other in on if other != key)}" for key in on)
        raise HoneError("C100", f"{' and '.join(on)} contradict each other", where=", ".join(on), fix=ways)


def _modes(key: str, value: Any) -> frozenset[str]:
    """What a setting allows to be done with the base: full, none (16 bits), nf4, fp4, int8. Empty where it says nothing of it."""
    last = key.rpartition(".")[2]
    if last == "full_finetuning" or (key == "tuning.method" and value in WHOLE):
        return frozenset(["full"] if value else [])
    if last in BITS:
        return frozenset(BITS[last] if value is True else [])
    return frozenset([str(value)] if ALIASES.get(key, key) == "model.quantise" and value not in ("none", None) else [])


def _put(raw: dict[str, Any], key: str, value: Any, notes: list[str]) -> None:
    """File a value under its section, whatever name people gave it."""
    if key.rpartition(".")[2] in BITS:
        if value and raw.get("model", {}).get("quantise") not in BITS[key.rpartition(".")[2]]:
            _put(raw, "model.quantise", BITS[key.rpartition(".")[2]][0], notes)
            notes.append(f"{key} is called model.quantise={raw['model']['quantise']} here")
        return
    if key in SWITCHES:
        _put(raw, "tuning.method", SWITCHES[key] if value else "lora", notes)
        notes.append(f"{key} is called tuning.method here")
        return
    if key in ALIASES:
        notes.append(f"{key} is called {ALIASES[key]} here")
        key = ALIASES[key]
    section, dot, field = key.partition(".")
    if not dot and section in MAIN_FIELD and not isinstance(value, dict) and (value is not None or section in raw):
        field, dot = MAIN_FIELD[section], "."
    if dot:
        _file(raw, [section, *field.split(".")], value)
    elif isinstance(value, dict) and isinstance(raw.get(section), dict):
        raw[section] |= value
    else:
        raw[section] = {} if value is None and section != "seed" else value


def _file(tree: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a value deep in a tree; what was only a name becomes {name: ...} where one of its settings is given."""
    first, *rest = path
    if not rest:
        tree[first] = value
        return
    held = tree.get(first)
    tree[first] = dict(held) if isinstance(held, dict) else {"name": held} if isinstance(held, str) else {}
    _file(tree[first], rest, value)


def preset(name: str) -> dict[str, Any] | None:
    """The sections that hone ships for a method, such as grpo; None where the name is just that of an objective."""
    import yaml

    file = PRESETS / f"{name.replace('-', '_')}.yaml"
    return dict(yaml.safe_load(file.read_text("utf-8"))) if file.is_file() else None


def _fold_qlora(raw: dict[str, Any], notes: list[str]) -> None:
    """QLoRA is no method of its own: it is LoRA on a quantised base. Raises C100 where the base is to stay in 16 bits."""
    tuning, model = raw.get("tuning"), raw.setdefault("model", {})
    if not isinstance(tuning, dict) or tuning.get("method") != "qlora" or not isinstance(model, dict):
        return
    if model.setdefault("quantise", "nf4") == "none":
        fix = "set tuning.method=lora for adapters on a 16-bit base, or leave model.quantise out"
        raise HoneError(
            "C100", "tuning.method=qlora and model.quantise=none contradict each other", where="tuning.method, model.quantise", fix=fix
        )
    tuning["method"] = "lora"
    notes.append(f"qlora is called tuning.method=lora with model.quantise={model['quantise']} here")


def _fold_batch(raw: dict[str, Any], notes: list[str]) -> None:
    """Batch size times accumulation is one number here: the sequences of an optimiser step."""
    rows, times = raw.pop("per_device_train_batch_size", None), raw.pop("gradient_accumulation_steps", None)
    if rows is None and times is None:
        return
    rows, times = (1 if n is None else n for n in (rows, times))
    if not all(isinstance(n, int) and n > 0 for n in (rows, times)):
        what, fix = "batch size and accumulation steps are whole numbers above zero", "write optim.batch_size=16, which is their product"
        raise HoneError("C001", what, where="optim.batch_size", fix=fix)
    raw.setdefault("optim", {})["batch_size"] = rows * times
    notes.append(
        "per_device_train_batch_size x gradient_accumulation_steps is called optim.batch_size here (memory: hardware.token_budget)"
    )
