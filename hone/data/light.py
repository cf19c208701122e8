"""A tokenizer read from its files with the `tokenizers` library alone: what counting and templates need, at once.

`hone plan` counts tokens with it. Training loads the tokenizer through transformers; for the plain kinds that are
listed here both give the same ids, which a test holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.core.errors import HoneError

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

PLAIN = ("TokenizersBackend", "PreTrainedTokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer", "Qwen2TokenizerFast")
"""Classes that do nothing but what tokenizer.json says."""
NAMES = ("bos", "eos", "pad", "unk")


class LightTokenizer:
    """The part of transformers' fast tokenizers that data preparation asks for."""

    is_fast = True

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.name_or_path = str(folder)
        try:
            self.backend_tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the Rust library raises bare Exception for a broken file
            line = str(error).partition("\n")[0][:300]
            raise HoneError("M015", f"the tokenizer cannot be read ({line})", where=str(folder), fix="copy tokenizer.json again") from None
        self._config = _json(folder / "tokenizer_config.json")
        said = _json(folder / "special_tokens_map.json")
        self._special = {name: _content(self._config.get(f"{name}_token", said.get(f"{name}_token"))) for name in NAMES}
        self.chat_template = _template(folder, self._config)

    @property
    def bos_token(self) -> str | None:
        return self._special["bos"]

    @property
    def eos_token(self) -> str | None:
        return self._special["eos"]

    @property
    def bos_token_id(self) -> int | None:
        return self._id("bos")

    @property
    def eos_token_id(self) -> int | None:
        return self._id("eos")

    @property
    def pad_token_id(self) -> int | None:
        return self._id("pad")

    @property
    def unk_token_id(self) -> int | None:
        return self._id("unk")

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        return {f"{name}_token": token for name, token in self._special.items() if token is not None}

    @cached_property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        return self.backend_tokenizer.get_added_tokens_decoder()

    def _id(self, name: str) -> int | None:
        token = self._special[name]
        return None if token is None else self.backend_tokenizer.token_to_id(token)

    def get_vocab(self) -> dict[str, int]:
        return self.backend_tokenizer.get_vocab()

    def get_added_vocab(self) -> dict[str, int]:
        return {str(token.content): index for index, token in self.added_tokens_decoder.items()}

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def decode(self, ids: list[int]) -> str:
        return self.backend_tokenizer.decode(ids, skip_special_tokens=False)


def light_tokenizer(folder: Path) -> LightTokenizer | str:
    """The tokenizer of a folder, or why only transformers can read it. Raises M015 for a broken file."""
    if not (folder / "tokenizer.json").is_file():
        return "it has no tokenizer.json"
    kind = str(_json(folder / "tokenizer_config.json").get("tokenizer_class") or "PreTrainedTokenizerFast")
    if kind not in PLAIN:
        return f"a {kind} is more than its tokenizer.json"
    made = LightTokenizer(folder)
    templates = made.chat_template.values() if isinstance(made.chat_template, dict) else [made.chat_template or ""]
    if any("{% generation" in text or "{%- generation" in text for text in templates):
        return "its chat template marks answers with {% generation %}"
    return made


def _json(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def _content(token: Any) -> str | None:
    """A special token is written as its text, or as an object with it."""
    return token if isinstance(token, str) else token.get("content") if isinstance(token, Mapping) else None


def _template(folder: Path, config: Mapping[str, Any]) -> str | dict[str, str] | None:
    file = folder / "chat_template.jinja"
    others = {path.stem: path.read_text("utf-8") for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if file.is_file():
        own = file.read_text("utf-8")
        return {"default": own, **others} if others else own
    said = config.get("chat_template")
    if isinstance(said, list):
        return {str(one["name"]): str(one["template"]) for one in said if isinstance(one, Mapping)}
    return said if isinstance(said, str) else None
