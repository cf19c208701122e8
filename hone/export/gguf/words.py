"""Text to tokens as llama.cpp does it, from a GGUF file's own metadata: the check that its tokenizer is the trained one.

Two kinds are known: byte-level BPE, whose text is first cut by the expressions of a named pre-tokenizer ("qwen2",
"llama-bpe" ...), and SentencePiece, which joins neighbours with the best score and writes unknown characters as bytes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hone.core.errors import HoneError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Token types of GGUF."""
SPACE = "\u2581"

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ENDS = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = r"[^\r\n\p{L}\p{N}]?" + f"{_UPPER}*{_LOWER}+%s|" + r"[^\r\n\p{L}\p{N}]?" + f"{_UPPER}+{_LOWER}*%s"


class Kind(NamedTuple):
    """A pre-tokenizer that llama.cpp knows: the expressions that cut the text, one after another, and whether whole words win."""

    cuts: tuple[str, ...]
    whole_words: bool = False


def _words_of(digits: str) -> str:
    return rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*" + _ENDS


KINDS = {
    "gpt-2": Kind((_GPT2,)),
    "qwen2": Kind((_words_of(""),)),
    "llama-bpe": Kind((_words_of("{1,3}"),), whole_words=True),
    "dbrx": Kind((_words_of("{1,3}"),)),
    "smollm": Kind((r"\p{N}", _GPT2)),
    "tekken": Kind((_CASED % ("", "") + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _ENDS,), whole_words=True),
    "gpt-4o": Kind((_CASED % (f"{_CONTRACTIONS}?", f"{_CONTRACTIONS}?") + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _ENDS,)),
}
"""By llama.cpp's names. Where two of its names mean the same, one is enough."""

Encode = Callable[[str], list[int]]


def encoder(metadata: Mapping[str, Any]) -> Encode:
    """An encoder of text, control tokens included, from the keys tokenizer.ggml.*; it adds no BOS. Raises M082 for an unknown kind."""
    model = metadata["tokenizer.ggml.model"]
    plain = _spm(metadata) if model == "llama" else _bpe(metadata) if model == "gpt2" else None
    if plain is None:
        raise HoneError("M082", f"GGUF tokenizers of the kind '{model}' cannot be read here", where="tokenizer.ggml.model")
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    marks = {token: i for i, (token, kind) in enumerate(zip(tokens, types, strict=True)) if kind in (CONTROL, USER_DEFINED, UNKNOWN)}
    ordered = sorted((mark for mark in marks if mark), key=len, reverse=True)

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        after_mark = True
        for piece, is_mark in _pieces(text, ordered):
            ids += [marks[piece]] if is_mark else plain(piece, after_mark)
            after_mark = is_mark
        return ids

    return encode


def _pieces(text: str, marks: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """A text cut at control tokens, the longest first, as llama.cpp does."""
    parts: list[tuple[str, bool]] = [(text, False)] if text else []
    for mark in (mark for mark in marks if mark in text):
        cut: list[tuple[str, bool]] = []
        for part, is_mark in parts:
            if is_mark:
                cut.append((part, True))
                continue
            for i, between in enumerate(part.split(mark)):
                cut += [(mark, True)] * (i > 0) + [(between, False)] * bool(between)
        parts = cut
    yield from parts


def _bpe(metadata: Mapping[str, Any]) -> Callable[[str, bool], list[int]]:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    name = metadata.get("tokenizer.ggml.pre", "default")
    if name not in KINDS:
        raise HoneError("M082", f"the pre-tokenizer '{name}' is not known here", where="tokenizer.ggml.pre")
    kind = KINDS[name]
    vocabulary = {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in metadata["tokenizer.ggml.merges"])]
    try:
        raw = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=kind.whole_words))
    except Exception as error:  # the Rust tokenizers raise bare Exception
        raise HoneError("M082", f"the file's tokenizer makes no sense ({error})", where="tokenizer.ggml.merges") from None
    cuts = [pre_tokenizers.Split(Regex(cut), "isolated") for cut in kind.cuts]
    raw.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return lambda text, after_mark: list(raw.encode(text, add_special_tokens=False).ids)


def _spm(metadata: Mapping[str, Any]) -> Callable[[str, bool], list[int]]:
    tokens, scores = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"]
    ids = {token: i for i, token in enumerate(tokens)}
    prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    unknown = int(metadata.get("tokenizer.ggml.unknown_token_id", 0))

    def encode(text: str, after_mark: bool) -> list[int]:
        text = (" " + text if prefix and after_mark else text).replace(" ", SPACE)
        found: list[int] = []
        for piece in _join(text, ids, scores):
            if piece in ids:
                found.append(ids[piece])
            else:
                found += [ids.get(f"<0x{byte:02X}>", unknown) for byte in piece.encode()]
        return found

    return encode


def _join(text: str, ids: Mapping[str, int], scores: Sequence[float]) -> list[str]:
    """Join neighbours, those with the best score first and of equals the leftmost, until nothing can be joined."""
    pieces: list[str] = list(text)
    after = [*range(1, len(pieces)), -1]
    before = list(range(-1, len(pieces) - 1))
    queue: list[tuple[float, int, str]] = []

    def offer(left: int) -> None:
        right = after[left]
        if right >= 0 and (joined := pieces[left] + pieces[right]) in ids:
            heapq.heappush(queue, (-scores[ids[joined]], left, joined))

    for i in range(len(pieces) - 1):
        offer(i)
    while queue:
        _, left, joined = heapq.heappop(queue)
        right = after[left] if pieces[left] else -1
        if right < 0 or pieces[left] + pieces[right] != joined:
            continue
        pieces[left], pieces[right] = joined, ""
        after[left] = after[right]
        if after[left] >= 0:
            before[after[left]] = left
        offer(left)
        if before[left] >= 0:
            offer(before[left])
    return [piece for piece in pieces if piece]
