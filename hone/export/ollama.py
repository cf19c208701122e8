"""`--to ollama`: a GGUF file and the Modelfile that tells Ollama how to talk with it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from hone.core.files import write_atomically
from hone.data.templating import adds_bos
from hone.export.base import TARGETS, Artifact, Order, Source
from hone.export.gguf.target import Gguf
from hone.export.modelfile import go_template
from hone.export.papers import FolderTarget

PARAMETERS = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"}
MOST_CONTEXT = 8192
"""Ollama reserves memory for the whole context at once, so a long one is not the default."""

NO_SYSTEM = "the chat template of the training takes no system message, so Ollama leaves one out"
NO_TOOLS = "Ollama's TEMPLATE shows the model no tools; for those serve the file with llama-server --jinja"


@TARGETS.add("ollama")
class Ollama(FolderTarget):
    """A Modelfile with template, stop tokens and parameters, beside a GGUF file."""

    quants: tuple[str, ...] = Gguf.quants

    def needed(self, order: Order) -> int:
        _template(order.source)
        return Gguf().needed(order)

    def fill(self, stage: Path, order: Order, hashes: dict[str, str]) -> Artifact:
        source, word = order.source, order.folder.name
        made = Gguf().fill(stage, order, hashes)
        text = modelfile(source, next(stage.glob("*.gguf")).name)
        write_atomically(stage / "Modelfile", text)
        name = _name(source.name)
        lines = (
            f"ollama create {name} -f {word}/Modelfile",
            f"ollama run {name}",
            f"hone verify http://127.0.0.1:11434 --golden {word} --model {name}",
        )
        tools = any(vector.tools for vector in source.golden.vectors)
        notes = (*made.notes, *([] if '"system"' in text else [NO_SYSTEM]), *([NO_TOOLS] if tools else []))
        return replace(made, target="ollama", what="A GGUF file with its Modelfile, for Ollama.", commands=lines, notes=notes)


def modelfile(source: Source, file: str) -> str:
    """The Modelfile. Raises M087 where the chat template cannot be written in Go."""
    lines = [f"FROM ./{file}", "", f'TEMPLATE """{_template(source)}"""', ""]
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stop_texts(source)]
    lines += [f"PARAMETER {theirs} {source.sampling[ours]}" for ours, theirs in PARAMETERS.items() if ours in source.sampling]
    lines.append(f"PARAMETER num_ctx {min(source.context, MOST_CONTEXT)}")
    if source.system:
        lines += [
            "",
            f'SYSTEM """{source.system}"""' if '"""' not in source.system else f"SYSTEM {json.dumps(source.system, ensure_ascii=False)}",
        ]
    return "\n".join([*lines, ""])


def stop_texts(source: Source) -> list[str]:
    """The tokens that end an answer, as text."""
    return [str(source.tokenizer.convert_ids_to_tokens(id)) for id in source.template.stop_ids]


def _template(source: Source) -> str:
    tokenizer = source.tokenizer
    return go_template(source.template.source, tokenizer.special_tokens_map, source.golden, adds_bos=adds_bos(tokenizer))


def _name(name: str) -> str:
    """What Ollama allows for a model's name."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "model"
