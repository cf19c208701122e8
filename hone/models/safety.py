"""What a model's folder may not contain: settings that make a library run code, and weights that are programs (pickles)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hone.core.errors import HoneError
from hone.plan.headers import INDEX
from hone.plan.shapes import read_json

READ_BY_TRANSFORMERS = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
CODE_KEYS = (
    "auto_map", "custom_pipelines", "custom_generate", "trust_remote_code", "fusion_config", "distributed_config", "use_kernels",
    "kernel_config",
)  # fmt: skip
CODE_PATTERN = re.compile(r".*kernels?(_mapping|_config)?|.*(attn|attention|experts)_implementation(_internal)?")
"""Keys that choose code; transformers fetches kernels from the hub for some of their values (CVE-2026-4372)."""
BUILT_IN = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "grouped_mm", "batched_mm")
PRIVATE = ("_name_or_path", "_commit_hash", "__type")
"""Keys with a leading underscore that may hold text. transformers sets any key as an attribute, so its private state could be set too."""
QUANTISER_CODE = re.compile(r".*(module|class|import|function|callable|hook)(_?(name|path|type))?|_type")
CODE_REFERENCE = re.compile(r"[A-Za-z_]\w*([.:][A-Za-z_]\w*)+|.*[/\\].*")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".msgpack", ".h5", ".keras", ".npz", ".distcp")
CONVERT = (
    "look for a revision with safetensors (model.revision=refs/pr/1 often has them), or convert it once where nothing can be lost: "
    "AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW)"
)


def check_folder(folder: Path, *, trust_remote_code: bool) -> None:
    """Check every JSON file of a folder that transformers would act upon. Raises M007."""
    for name in READ_BY_TRANSFORMERS:
        if (folder / name).exists() and not trust_remote_code:
            check_config(read_json(folder / name), where=str(folder / name))
    for file in folder.iterdir():
        # transformers takes the mere presence of these as the order to read the folder another way.
        if re.fullmatch(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors", file.name):
            raise HoneError("M008", f"{file.name} belongs to a checkpoint of a distributed training", where=str(folder), fix=CONVERT)


def check_config(config: Mapping[str, Any], *, where: str) -> None:
    """Refuse keys that can run code, at any depth. Raises M007 with the key's full name."""
    for path, key, value in _walk(config):
        if not _harmless(path, key, value):
            what = f"'{'.'.join(path)}' makes the library run code that came with the model"
            fix = "read that code; if you trust it, say so with model.trust_remote_code=true. Many models have a version without it"
            raise HoneError("M007", what, where=where, fix=fix)
    weights = config.get("transformers_weights")
    if weights is not None and weights not in ("model.safetensors", INDEX):
        raise HoneError("M008", f"config.json chooses the weights file '{weights}'", where=where, fix=CONVERT)


def check_weights(names: Iterable[str], *, where: str) -> None:
    """Refuse a model without safetensors: M006 for GGUF, M008 for pickles, M005 for no weights at all."""
    names = sorted(names)
    if "model.safetensors" in names or INDEX in names:
        return
    gguf = [name for name in names if name.endswith(".gguf")]
    if gguf:
        raise gguf_error(gguf[0], where=where)
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        raise pickle_error(pickles[0], where=where)
    parts = [name for name in names if name.endswith(".safetensors")]
    if parts:
        what = f"there are safetensors files ({parts[0]}) but neither model.safetensors nor {INDEX}"
        raise HoneError("M005", what, where=where, fix="download the model again, with its index")
    raise HoneError("M005", "there are no weights", where=where, fix="download the model again; the weights are called model.safetensors")


def gguf_error(name: str, *, where: str) -> HoneError:
    fix = "start from the model that it was made from (the card's base_model); to run the file: hone chat FILE, or llama-server -m FILE"
    return HoneError("M006", f"{name} is a GGUF file: it is made to run a model, not to train it", where=where, fix=fix)


def pickle_error(name: str, *, where: str) -> HoneError:
    return HoneError("M008", f"the weights are a pickle ({name}), which can run any program when it is opened", where=where, fix=CONVERT)


def _walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Every key of a JSON value, with its path."""
    children = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        here = (*path, str(key))
        if isinstance(value, Mapping):
            yield here, str(key), child
        yield from _walk(child, here)


def _harmless(path: tuple[str, ...], key: str, value: Any) -> bool:
    """Whether a key with this value only describes the model. What is not known to be harmless is refused."""
    if value is None or value is False or value == {} or value == []:
        return True
    if key in CODE_KEYS or (key.startswith("__") and key.endswith("__")):
        return False
    if CODE_PATTERN.fullmatch(key):
        return isinstance(value, bool | int | float) or _only_built_in(value)
    if "quantization_config" in path and QUANTISER_CODE.fullmatch(key):
        return not (isinstance(value, str) and CODE_REFERENCE.fullmatch(value))
    if key.startswith("_"):
        return isinstance(value, bool | int | float) or key in PRIVATE
    return True


def _only_built_in(value: Any) -> bool:
    """An attention name that ships with transformers, or a table of such names by sub-model."""
    if isinstance(value, Mapping):
        return all(_only_built_in(inner) for inner in value.values())
    return isinstance(value, str) and value in BUILT_IN
