"""A tokenizer as GGUF metadata: tokens, types, merges or scores, and the name of the pre-tokenizer, found by trying them all."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from hone.core.errors import HoneError
from hone.export.gguf.words import BYTE, CONTROL, KINDS, NORMAL, SPACE, UNKNOWN, UNUSED, USER_DEFINED, Kind, encoder

TRIALS = (
    "Hello world! It's 3.14159, isn't it? HELLO'S don't We'LL\n\n\n  two  spaces   three\t\ttabs\r\n done.  ",
    "1 12 123 1234 12345 3rd x=1;y[0]={'a':-2}; // comment\n\tif (a && b) { return foo_bar(baz)/2; }\n",
    "你好，世界！今天是2024年11月5日。 こんにちは、カタカナ 한국어 텍스트 Привет, мир! Ελληνικά עברית العربية हिन्दी ไทย",
    "naïve café Ångström e\u0301 ﬁ Ⅷ ½ ² 🙂👩‍👩‍👧 … — “quotes” ‘single’ ",
    " leading", "trailing ", "a", " ", "\n", "CamelCaseWord ABCdef iPhone15Pro x86_64 http://a.b/c?d=e#f",
    "'tis 'Twas l'été THE'RE we'd I'M\u00a0nbsp\u2003em\n \n  \n",
)  # fmt: skip
"""Texts on which the known pre-tokenizers disagree."""


def vocabulary_metadata(tokenizer: Any, rows: int, stop_ids: Sequence[int], prompts: Sequence[str]) -> dict[str, Any]:
    """The keys tokenizer.ggml.* of a tokenizer for a model with `rows` embeddings.

    `stop_ids` end an answer, the first is the file's EOS. Raises M082 where no kind of tokenizer of llama.cpp gives the same tokens
    on trial texts and on `prompts`.
    """
    if not tokenizer.is_fast:
        raise HoneError("M082", "the tokenizer has no tokenizer.json, which GGUF's is made from", where="--to gguf")
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    model = document["model"]
    if model["type"] != "BPE":
        what = f"llama.cpp has no tokenizer like this one ({model['type']})"
        raise HoneError("M082", what, where="--to gguf", fix="use --to merged and serve it with vLLM or hone")
    common = _tokens(tokenizer, model, rows) | _special(tokenizer, stop_ids)
    texts = [*TRIALS, *prompts]
    if (document["normalizer"] or {}).get("type") == "NFC":  # llama.cpp does not normalise; text is nearly always in this form
        texts = [unicodedata.normalize("NFC", text) for text in texts]
    wanted = [(text, tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]
    candidates = _spm_kinds(model, common) if model.get("byte_fallback") else _bpe_kinds(model, common)
    missed: dict[str, str] = {}
    for name, metadata in candidates.items():
        wrong = _first_miss(metadata, wanted)
        if wrong is None:
            return metadata
        missed[name] = wrong
    closest = "; ".join(f"{name} differs at {text!r}" for name, text in list(missed.items())[:4])
    what = f"none of llama.cpp's tokenizers gives this model's tokens ({closest})"
    raise HoneError("M082", what, where="--to gguf", fix="use --to merged and serve it with vLLM or hone")


def _first_miss(metadata: Mapping[str, Any], wanted: Sequence[tuple[str, list[int]]]) -> str | None:
    """The beginning of the first text that becomes other tokens."""
    encode = encoder(metadata)
    return next((text[:24] for text, ids in wanted if encode(text) != ids), None)


def _tokens(tokenizer: Any, model: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Tokens and their types, filled up with unused ones where the model has more embeddings than the tokenizer tokens."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    tokens, types = [f"[PAD{i}]" for i in range(rows)], [UNUSED] * rows
    for token, id in vocabulary.items():
        if id < rows:
            tokens[id], types[id] = token, NORMAL
    if model.get("byte_fallback"):
        for byte in range(256):
            id = vocabulary.get(f"<0x{byte:02X}>", rows)
            if id < rows:
                types[id] = BYTE
    for id, token in tokenizer.added_tokens_decoder.items():
        if id < rows:
            tokens[id], types[id] = token.content, CONTROL if token.special else USER_DEFINED
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id < rows and types[tokenizer.unk_token_id] == CONTROL:
        types[tokenizer.unk_token_id] = UNKNOWN
    return {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}


def _special(tokenizer: Any, stop_ids: Sequence[int]) -> dict[str, Any]:
    """Which token begins, ends, fills; BOS is added exactly where the training had it."""
    adds = tokenizer.bos_token_id is not None and list(tokenizer("a")["input_ids"])[:1] == [tokenizer.bos_token_id]
    ends = list(dict.fromkeys(stop_ids)) or ([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])
    found: dict[str, Any] = {"tokenizer.ggml.add_bos_token": adds, "tokenizer.ggml.add_eos_token": False}
    named = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": ends[0] if ends else None,
        "eot_token_id": ends[1] if len(ends) > 1 else None,
        "unknown_token_id": tokenizer.unk_token_id,
        "padding_token_id": tokenizer.pad_token_id,
    }
    return found | {f"tokenizer.ggml.{key}": int(id) for key, id in named.items() if id is not None}


def _bpe_kinds(model: Mapping[str, Any], common: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The same tokens under every pre-tokenizer that treats whole words as this model does, and then under the others."""
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    shared = common | {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.merges": merges}

    def unlike(item: tuple[str, Kind]) -> bool:
        return item[1].whole_words != bool(model.get("ignore_merges"))

    return {name: shared | {"tokenizer.ggml.pre": name} for name, _ in sorted(KINDS.items(), key=unlike)}


def _spm_kinds(model: Mapping[str, Any], common: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """SentencePiece with and without a space in front of a text. Scores are the ranks of the merges, best first."""
    tokens, types = common["tokenizer.ggml.tokens"], common["tokenizer.ggml.token_type"]
    rank: dict[str, int] = {}
    for i, merge in enumerate(model["merges"]):
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        rank.setdefault(left + right, i)
    worst = float(len(rank) + 1)
    scores = [-float(rank.get(token, worst)) if kind == NORMAL else 0.0 for token, kind in zip(tokens, types, strict=True)]
    shared = common | {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.scores": scores}
    return {
        f"SentencePiece {word} {SPACE}": shared | {"tokenizer.ggml.add_space_prefix": prefix}
        for word, prefix in (("with", True), ("without", False))
    }
