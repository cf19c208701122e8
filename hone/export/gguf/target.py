"""`--to gguf`: the whole model in one file for llama.cpp and everything that is built on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from hone.core.errors import HoneError
from hone.export.adapter import SLACK
from hone.export.base import TARGETS, Artifact, Order, Source
from hone.export.gguf import llama_cpp
from hone.export.gguf.families import Family, family_of
from hone.export.gguf.types import OURS, THEIRS, TYPES
from hone.export.gguf.vocabulary import vocabulary_metadata
from hone.export.gguf.write import SIZES, Content, Planned, plan, write
from hone.export.papers import FolderTarget
from hone.export.tensors import changed_config

DEFAULT = "Q8_0"
UNTOLD = re.compile("phi-?3", re.IGNORECASE)
"""A name with this in it makes llama.cpp strip blanks after control tokens, whatever the tokenizer does, or refuse the file."""
SAMPLING = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}


@TARGETS.add("gguf")
class Gguf(FolderTarget):
    """One file for llama.cpp, Ollama and LM Studio. Written here up to Q8_0 and Q4_0; K- and I-types need llama-cpp-python."""

    quants: tuple[str, ...] = (DEFAULT, *(name for name in OURS if name != DEFAULT), *THEIRS)

    def needed(self, order: Order) -> int:
        source, quant = order.source, order.quant
        config = config_of(source)
        planned = _plan(source, family_of(config), config, "F32" if quant in THEIRS else quant)
        if quant in THEIRS:
            llama_cpp.check_quantiser(planned.values(), SIZES[TYPES[quant].matrix][0])
            _check_importance(order)
        whole = SLACK + sum(each.nbytes for each in planned.values())
        return whole if quant in OURS else int(whole * (1 + TYPES[quant].bits / 32))

    def fill(self, stage: Path, order: Order, hashes: dict[str, str]) -> Artifact:
        file, word = f"{order.source.name}-{order.quant}.gguf", order.folder.name
        made = write_gguf(stage / file, order)
        return Artifact(
            target="gguf",
            path=order.folder,
            what=f"A GGUF file in {order.quant}, for llama.cpp, Ollama, LM Studio and the like.",
            commands=(f"hone chat {word}", f"llama-cli -m {word}/{file} --jinja", f"llama-server -m {word}/{file} --jinja --port 8080"),
            notes=(*_notes(config_of(order.source)), *([made] if made else [])),
        )


def _check_importance(order: Order) -> None:
    """M125 for a type that needs to know what matters in the data, where that is not known."""
    if TYPES[order.quant].weighed and not order.source.importance(order.tell):
        what = f"{order.quant} needs an importance matrix, which is taken from the data of a run, and here that is out of reach"
        fix = "export the run itself, with its data where it was; or use --quant IQ3_S, Q3_K_S or Q2_K, which can do without"
        raise HoneError("M125", what, where="--quant", fix=fix)


def config_of(source: Source) -> dict[str, Any]:
    """The configuration of what is written: the base's with every default filled in, and what the fold has changed of it."""
    found: dict[str, Any] = AutoConfig.from_pretrained(source.base_folder, local_files_only=True, trust_remote_code=False).to_dict()
    return found | changed_config(source.weights())


def write_gguf(file: Path, order: Order) -> str:
    """Write one file in the type that was ordered, and say who made it, if not hone alone.

    llama.cpp's own types are made from an F32 file, which is then removed.
    """
    source, config = order.source, config_of(order.source)
    family, direct = family_of(config), order.quant in OURS
    first = file if direct else file.with_suffix(".f32.gguf")
    planned = _plan(source, family, config, order.quant if direct else "F32")
    metadata = _metadata(source, family, config, order.quant if direct else "F32", planned)
    write(first, Content(family, config, metadata, planned, source.weights()), tell=order.tell)
    if direct:
        return ""
    known = source.importance(order.tell)
    columns = {name: known[each.source].tolist() for name, each in planned.items() if each.source in known}
    order.tell(f"llama.cpp makes {order.quant} of it")
    llama_cpp.quantise(first, file, TYPES[order.quant].file_type, importance=columns)
    first.unlink()
    with_matrix = "with an importance matrix of the run's training data" if columns else "without an importance matrix"
    return f"quantised by llama.cpp, {with_matrix}"


def _plan(source: Source, family: Family, config: Mapping[str, Any], quant: str) -> dict[str, Planned]:
    layers = config.get("num_hidden_layers") or config["n_layer"]
    return plan(source.weights(), family, config, quant, int(layers))


def _metadata(source: Source, family: Family, config: Mapping[str, Any], quant: str, planned: Mapping[str, Planned]) -> dict[str, Any]:
    rows = planned["token_embd.weight"].shape[0]
    prompts = [vector.text for vector in source.golden.vectors if vector.messages]
    found: dict[str, Any] = {
        "general.name": UNTOLD.sub("phi 3", source.name),
        "general.type": "model",
        "general.file_type": TYPES[quant].file_type,
        "general.quantization_version": 2,
    }
    found |= {f"{family.arch}.{key}": value for key, value in family.metadata(config).items()}
    for ours, theirs in SAMPLING.items():
        if ours in source.sampling:
            value = source.sampling[ours]
            found[f"general.sampling.{theirs}"] = int(value) if ours == "top_k" else float(value)
    found |= vocabulary_metadata(source.tokenizer, rows, source.template.stop_ids, prompts)
    found["tokenizer.chat_template"] = source.template.source
    if source.template.with_tools != source.template.source:
        found |= {"tokenizer.chat_template.tool_use": source.template.with_tools, "tokenizer.chat_templates": ["tool_use"]}
    return found


def _notes(config: Mapping[str, Any]) -> tuple[str, ...]:
    kind = config.get("model_type")
    window = config.get("sliding_window")
    notes = []
    if kind in ("mistral", "phi3") and window and window < config["max_position_embeddings"]:
        notes.append(f"context is {window} tokens: llama.cpp has no sliding window for this architecture")
    return tuple(notes)
