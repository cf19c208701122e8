"""A GGUF file under examination: its own tokenizer, template and stop tokens as llama.cpp uses them, its weights through our reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from hone.export.gguf.header import Header, read_header
from hone.export.gguf.read import GgufWeights, words_of
from hone.export.gguf.session import Session
from hone.export.gguf.words import encoder
from hone.export.proof.golden import Golden
from hone.export.proof.record import logprobs, vocabulary_hash
from hone.export.proof.subject import Subject
from hone.export.proof.words import Encode, render_with


def gguf_subject(file: Path, golden: Golden) -> Subject:
    """Read a file without llama.cpp. Raises M080, M082 or M083 for what cannot be read here."""
    header = read_header(file)
    weights = GgufWeights(header)
    model, words = weights.model(), words_of(header.metadata)
    names = weights.names()

    def read(tokens: Sequence[int], places: Sequence[int]) -> Tensor:
        return logprobs(model, tokens, places)

    return Subject(
        kind=f"GGUF {weights.stored}, read by hone",
        stored=weights.stored,
        logprobs=read,
        encode=encode_as_llama_cpp(header, encoder(header.metadata)),
        render=render_with(templates_of(header.metadata), special_names(header.metadata), golden),
        bos=header.metadata.get("tokenizer.ggml.bos_token_id"),
        stop_ids=stops_of(header.metadata),
        vocabulary_hash=vocabulary_hash(words),
        vocabulary=len(words),
        weights=weights,
        embedding=next(name for name in names if name.endswith(("embed_tokens.weight", "wte.weight"))),
    )


def run_by_llama_cpp(subject: Subject, file: Path, session: Session) -> Subject:
    """The same file, answering through llama.cpp itself instead of hone's reader."""
    encode = encode_as_llama_cpp(read_header(file), session.tokens)
    return replace(subject, kind=f"GGUF {subject.stored}, run by llama.cpp", logprobs=session.logprobs, encode=encode)


def encode_as_llama_cpp(header: Header, plain: Callable[[str], list[int]]) -> Encode:
    """BOS goes in front where the file says so; its server takes the one away that a template writes itself."""
    bos = header.metadata.get("tokenizer.ggml.bos_token_id")
    adds = bool(header.metadata.get("tokenizer.ggml.add_bos_token", header.metadata["tokenizer.ggml.model"] == "llama"))

    def encode(text: str, chat: bool) -> list[int]:
        ids = plain(text)
        written = chat and ids[:1] == [bos]
        return [bos, *ids] if adds and bos is not None and not written else ids

    return encode


def templates_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The template, and the one for conversations with tools where the file has one."""
    keys = {"default": "tokenizer.chat_template", "tool_use": "tokenizer.chat_template.tool_use"}
    return {name: metadata[key] for name, key in keys.items() if key in metadata}


def stops_of(metadata: Mapping[str, Any]) -> frozenset[int]:
    """Tokens at which llama.cpp ends an answer."""
    ends = (metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    return frozenset(end for end in ends if end is not None)


def special_names(metadata: Mapping[str, Any]) -> dict[str, str]:
    """bos_token and eos_token as templates ask for them."""
    tokens = metadata["tokenizer.ggml.tokens"]
    ids = {name: metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "unknown", "padding")}
    words = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    return {words[name]: tokens[id] for name, id in ids.items() if id is not None and id < len(tokens)}
