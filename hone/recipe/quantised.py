"""What a run makes of its base's bits: chosen by itself where nothing is said, refused where it contradicts, counted for the plan."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hone.core.errors import HoneError
from hone.models.settings import ModelSettings
from hone.plan.headers import stored_tensors
from hone.plan.layers import linears
from hone.plan.packed import Share, contradiction, scheme_of, share_of
from hone.plan.shapes import ModelFacts, read_json
from hone.recipe.start import base_of

METHOD = "tuning.method"


def automatic(raw: Mapping[str, Any], device: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Raw sections with `tuning.method` chosen, where it was left out or is "auto": QLoRA on a GPU, LoRA elsewhere; and the reason."""
    sections = {name: dict(value) if isinstance(value, Mapping) else value for name, value in raw.items()}
    tuning, model = sections.setdefault("tuning", {}), sections.setdefault("model", {})
    if not isinstance(tuning, dict) or not isinstance(model, dict) or tuning.get("method", "auto") != "auto":
        return sections, {}
    tuning["method"] = "lora"
    if "quantise" in model:
        return sections, {METHOD: f"adapters, as model.quantise={model['quantise']} is asked for"}
    installed = find_spec("bitsandbytes") is not None
    if device == "cuda" and installed:
        model["quantise"] = "nf4"
        why = "QLoRA: there is a GPU with bitsandbytes, and 4 bits leave it the most room (16 bits: model.quantise=none)"
        return sections, {METHOD: why, "model.quantise": "the base of QLoRA"}
    missing = "bitsandbytes is not installed" if device == "cuda" else "there is no GPU, where 4 bits would pay"
    return sections, {METHOD: f"LoRA on plain weights: {missing} (4 bits all the same: model.quantise=nf4)"}


def kept_plain(raw: dict[str, Any], reasons: dict[str, str], folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The same, for a model that comes quantised: nothing is to be quantised then."""
    own = scheme_of(read_json(folder / "config.json"))
    if own is None or "model.quantise" not in reasons:
        return raw, reasons
    model = {name: value for name, value in raw["model"].items() if name != "quantise"}
    return raw | {"model": model}, {METHOD: f"adapters: the model comes in {own}"}


def small_files(model: ModelSettings) -> Path:
    """The folder of a model's configuration, or of a run's base; from the hub, nothing large is fetched. Raises the M codes of loading."""
    from hone.models.hub import fetch_small
    from hone.models.locate import local_folder

    folder = local_folder(base_of(model.name), model.revision)
    return folder or fetch_small(model.name, revision=model.revision, trust_remote_code=model.trust_remote_code)[0]


def check_base(method: str, moves_base: bool, folder: Path) -> None:
    """Raise M099 where the weights of a model that comes quantised are to move: known from its config.json alone."""
    own = scheme_of(read_json(folder / "config.json"))
    if own is not None and moves_base:
        what = f"{METHOD}={method} moves the base's own weights, and this model's quantization_config says {own}"
        fix = f"set {METHOD}=lora, or name the 16-bit model that it was made from"
        raise HoneError("M099", what, where=f"{METHOD}, {folder}: quantization_config", fix=fix)


def share_in(settings: Mapping[str, Any], facts: ModelFacts, folder: Path) -> Share:
    """The quantised part of a run's base, counted from its files' headers and its configuration."""
    stored, model = stored_tensors(folder), settings["model"]
    scheme = ModelSettings(name=model["name"], quantise=model["quantise"], double_quant=model["double_quant"]).scheme
    return share_of(scheme, linears(facts, stored), stored)


def told(share: Share, name: str, folder: Path) -> list[str]:
    """What a plan says of it."""
    found = contradiction(name, read_json(folder / "config.json"))
    lines = [found] if found else []
    if share.kind is not None:
        bits = 8 * share.nbytes / share.numbers
        lines.append(f"base in {share.kind}: {share.numbers:,} numbers at {bits:.3f} bits with their scales, {share.nbytes:,} bytes")
    return lines


def quantised_as(base: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a base as an adapter remembers it: what it learned goes with the rounding that it was learned on."""
    if "quantised" not in base:
        return {}
    double = {} if base["quantised"] == "int8" else {"double_quant": base.get("double") == "yes"}
    return {"quantise": base["quantised"], **double}
