"""The tokenizer that belongs to a model, and what is wrong between the two."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hone.core.errors import HoneError
from hone.plan.shapes import read_json

FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json", "sentencepiece.bpe.model")


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's folder. Raises M015 where there is none, or none that can be read."""
    names = {file.name for file in folder.iterdir()}
    if not names & set(FILES) and not any(name.endswith(".tiktoken") for name in names) and not trust_remote_code:
        fix = "copy tokenizer.json and tokenizer_config.json from the model that it was made from"
        raise HoneError("M015", "the model comes without a tokenizer", where=str(folder), fix=fix)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except ImportError as error:
        line = str(error).strip().partition("\n")[0]
        raise HoneError("M015", f"this tokenizer needs another package: {line}", where=str(folder), fix="install it with pip") from None
    except Exception as error:  # the Rust tokenizers raise bare Exception for a broken file
        line = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
        fix = "copy or download tokenizer.json again"
        raise HoneError("M015", f"the tokenizer cannot be read ({line})", where=str(folder), fix=fix) from None


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int, *, where: str) -> None:
    """Raise M001 where the tokenizer makes ids that the embedding of `rows` rows does not have."""
    vocabulary = tokenizer.get_vocab()
    token, largest = max(vocabulary.items(), key=lambda item: item[1], default=("", -1))
    if largest >= rows:
        what = f"the tokenizer makes ids up to {largest} ('{token}'), but the model has {rows} embedding rows (ids up to {rows - 1})"
        fix = "use the tokenizer that came with this model; tokens that were added to it need a model that was resized for them"
        raise HoneError("M001", what, where=where, fix=fix)


def special_token_notes(tokenizer: PreTrainedTokenizerBase, folder: Path) -> list[str]:
    """What a person should know about the special tokens, as sentences. Nothing here stops a training."""
    notes = []
    eos = tokenizer.eos_token_id
    if eos is None:
        notes.append("the tokenizer names no end-of-sequence token, so answers can only stop at the chat template's own end marker")
    for file in ("config.json", "generation_config.json"):
        said = _ids(read_json(folder / file).get("eos_token_id")) if (folder / file).exists() else ()
        if said and eos is not None and eos not in said:
            notes.append(f"{file} ends answers at token {_show(tokenizer, said)}, the tokenizer at {_show(tokenizer, [eos])}")
    if eos is not None and tokenizer.pad_token_id == eos:
        notes.append("padding and end of sequence are the same token; hone goes by position, so the end is learned all the same")
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id == eos:
        notes.append("unknown text and end of sequence are the same token: text that the tokenizer does not know teaches the model to stop")
    return notes


def _ids(value: Any) -> tuple[int, ...]:
    """A token id or a list of them, as configuration files give it."""
    return tuple(v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int) and not isinstance(v, bool))


def _show(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> str:
    return ", ".join(f"{i} ({tokenizer.convert_ids_to_tokens(i)!r})" for i in ids)
