"""Faults of a model's tokenizer, template and settings that are known to have spoiled runs, and a copy in which they are mended."""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone.core.errors import HoneError
from hone.plan.headers import Stored, stored_tensors
from hone.plan.shapes import read_json

NEAR_ZERO = 1e-4
"""Share of the usual norm below which an embedding was never trained."""
SEEN = 200_000
"""Rows of the embedding whose norms are looked at."""
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: its code, what it is here, and the files' keys that mend it ({} where nothing can from here)."""

    code: str
    what: str
    mend: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The special tokens that a folder names, with their ids."""

    ids: Mapping[str, int]
    config: Mapping[str, Any]
    names: Mapping[str, str | None]

    def id(self, name: str) -> int | None:
        token = self.names.get(name)
        return None if token is None else self.ids.get(token)


def check_model(folder: Path) -> list[Fault]:
    """All faults of a model's folder. Raises M013 and M005 for files that cannot be read at all."""
    config, tokens = read_json(folder / "config.json"), _tokens(folder)
    generation = read_json(folder / "generation_config.json") if (folder / "generation_config.json").is_file() else {}
    looks = (
        _padding(tokens),
        _doubled_start(folder, tokens),
        _ends(config, generation, tokens),
        _template_end(folder, generation, tokens),
        _outside(config, tokens),
        _untrained(folder, tokens),
    )
    return [fault for fault in looks if fault is not None]


def _tokens(folder: Path) -> Tokens:
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    ids: dict[str, int] = {}
    file = folder / "tokenizer.json"
    if file.is_file():
        whole = json.loads(file.read_text("utf-8"))
        ids = {str(one["content"]): int(one["id"]) for one in whole.get("added_tokens", ())}
        vocabulary = whole.get("model", {}).get("vocab", {})
        ids |= {token: int(index) for token, index in vocabulary.items() if token not in ids} if isinstance(vocabulary, dict) else {}
    return Tokens(ids, config, {name: _text(config.get(f"{name}_token")) for name in ("bos", "eos", "pad", "unk")})


def _text(token: Any) -> str | None:
    return token if isinstance(token, str) else token.get("content") if isinstance(token, Mapping) else None


def _padding(tokens: Tokens) -> Fault | None:
    """End of sequence as padding: where padding is masked by its id, the end is never learned (Phi-4 and others)."""
    pad, eos = tokens.names.get("pad"), tokens.names.get("eos")
    if pad is None or pad != eos:
        return None
    spare = next((token for token in _reserved(tokens) if token not in (pad, tokens.names.get("bos"))), None)
    mend = {"tokenizer_config.json": {"pad_token": spare}} if spare is not None else {}
    return Fault("M092", f"padding and end of sequence are one token ({pad}): tools that mask padding by its id never teach to stop", mend)


def _reserved(tokens: Tokens) -> list[str]:
    """Tokens that are there and mean nothing, the ones made for padding first."""
    wanted = ("pad", "reserved", "unused", "dummy", "fim_pad", "endoftext")
    return [token for word in wanted for token in tokens.ids if word in token.lower() and token[:1] in "<[｜"]


def _doubled_start(folder: Path, tokens: Tokens) -> Fault | None:
    """The tokenizer adds a beginning and the template writes one too (Gemma, Llama-3 with plain encoding)."""
    bos, source = tokens.names.get("bos"), _template(folder, tokens)
    adds = tokens.config.get("add_bos_token") is True
    if not adds or bos is None or not source or not ("bos_token" in source or bos in source):
        return None
    what = f"the template writes {bos} and the tokenizer adds it again: rendered text that is encoded the usual way begins twice"
    return Fault("M093", what, {"tokenizer_config.json": {"add_bos_token": False}})


def _template(folder: Path, tokens: Tokens) -> str:
    file = folder / "chat_template.jinja"
    said = file.read_text("utf-8") if file.is_file() else tokens.config.get("chat_template")
    return said if isinstance(said, str) else ""


def _ends(config: Mapping[str, Any], generation: Mapping[str, Any], tokens: Tokens) -> Fault | None:
    """The tokenizer's end is not among the ends that generation stops at."""
    eos, said = tokens.id("eos"), _listed(generation.get("eos_token_id", config.get("eos_token_id")))
    if eos is None or not said or eos in said:
        return None
    what = f"generation stops at {said}, and the tokenizer's end of sequence is {eos}: answers run on"
    return Fault("M094", what, {"generation_config.json": {"eos_token_id": [*said, eos]}})


def _template_end(folder: Path, generation: Mapping[str, Any], tokens: Tokens) -> Fault | None:
    """The template ends turns with a token at which generation does not stop (ChatML on a base's generation config)."""
    source = _template(folder, tokens)
    marks = [mark for mark in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|eot|>", "</s>") if mark in source]
    ends = {*_listed(generation.get("eos_token_id")), *([tokens.id("eos")] if tokens.id("eos") is not None else [])}
    missing = [mark for mark in marks if mark in tokens.ids and tokens.ids[mark] not in ends]
    if not missing or len(missing) < len(marks):
        return None
    known = [*_listed(generation.get("eos_token_id")), *(tokens.ids[mark] for mark in missing)]
    what = f"the template ends a turn with {missing[0]}, at which generation does not stop"
    return Fault("M095", what, {"generation_config.json": {"eos_token_id": known}})


def _outside(config: Mapping[str, Any], tokens: Tokens) -> Fault | None:
    """Special tokens beyond the embedding."""
    rows = config.get("vocab_size")
    far = {token: index for token, index in tokens.ids.items() if isinstance(rows, int) and index >= rows}
    if not far:
        return None
    token, index = max(far.items(), key=lambda item: item[1])
    return Fault("M096", f"{len(far)} tokens lie beyond the {rows} rows of the embedding, up to {token} at {index}")


def _untrained(folder: Path, tokens: Tokens) -> Fault | None:
    """Control tokens whose embedding is nearly zero: they were never trained (Llama-3 base and its reserved tokens)."""
    stored = stored_tensors(folder)
    found = next((tensor for name, tensor in stored.items() if name.endswith(EMBEDDINGS)), None)
    source = _template(folder, tokens)
    used = {token: index for token, index in tokens.ids.items() if token in source and len(token) > 3 and token[:1] in "<["}
    if found is None or not used or len(found.shape) != 2:
        return None
    norms = [row_norm(found, index) for index in range(0, min(found.shape[0], SEEN), max(1, found.shape[0] // 256))]
    usual = sorted(norms)[len(norms) // 2]
    dead = [token for token, index in used.items() if index < found.shape[0] and row_norm(found, index) <= NEAR_ZERO * usual]
    if not dead:
        return None
    what = f"the template uses {', '.join(sorted(dead))}, whose embedding was never trained (its norm is zero)"
    return Fault("M097", what)


def row_norm(tensor: Stored, row: int) -> float:
    """The norm of one row of a stored matrix, read without loading the rest. NaN for types that are not read here."""
    width = tensor.shape[1]
    size = {"F32": 4, "F16": 2, "BF16": 2}.get(tensor.dtype)
    if size is None:
        return float("nan")
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start + row * width * size)
        raw = stream.read(width * size)
    return math.sqrt(sum(value * value for value in _numbers(raw, tensor.dtype)))


def _numbers(raw: bytes, dtype: str) -> tuple[float, ...]:
    if dtype == "F32":
        return struct.unpack(f"<{len(raw) // 4}f", raw)
    if dtype == "F16":
        return struct.unpack(f"<{len(raw) // 2}e", raw)
    halves = struct.unpack(f"<{len(raw) // 2}H", raw)  # bfloat16 is the upper half of a float32
    return struct.unpack(f"<{len(halves)}f", b"".join(struct.pack("<I", half << 16) for half in halves))


def _listed(value: Any) -> list[int]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int) and not isinstance(one, bool)]


def mend(folder: Path, faults: list[Fault], target: Path) -> list[str]:
    """Copy a model's folder and change the keys that mend its faults; returns the codes that were mended. Raises M098 if it exists."""
    if target.exists():
        raise HoneError("M098", f"'{target}' exists already", where="--fix", fix="name a folder that does not exist yet")
    shutil.copytree(folder, target, symlinks=False)
    done = []
    for fault in faults:
        for name, keys in fault.mend.items():
            file = target / name
            before = read_json(file) if file.is_file() else {}
            file.write_text(json.dumps(before | dict(keys), indent=2, ensure_ascii=False) + "\n", "utf-8")
        done += [fault.code] if fault.mend else []
    return done
