"""Which Jinja template a tokenizer gets: its own, a file, or one of the formats that base models are taught."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hone.core.errors import HoneError
from hone.core.registry import nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FOLDER = Path(__file__).parent / "templates"
_MARKERS = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>"}
"""End markers of formats that need control tokens. A tokenizer that lacks them ends turns with its end of sequence, as Zephyr does."""
_ENDED = """\
{%- set hone = namespace(messages=[]) %}
{%- for message in messages %}
    {%- set said = message.content ~ eos_token if message.role == 'assistant' and not message.tool_calls else message.content %}
    {%- set hone.messages = hone.messages + [dict(message, content=said)] %}
{%- endfor %}
{%- set messages = hone.messages %}
"""


class Choice(NamedTuple):
    """A template, the one for conversations with tools, and why it was chosen."""

    name: str
    source: str
    with_tools: str
    reason: str


def names() -> list[str]:
    """The formats for base models, by name."""
    return sorted(file.stem for file in _FOLDER.glob("*.jinja"))


def choose(tokenizer: PreTrainedTokenizerBase, name: str = "auto") -> Choice:
    """The template called `name`: "auto", one of `names()`, a name in the tokenizer's own collection, or a .jinja file.

    With "+eos" behind the name, the template writes the end-of-sequence token after each answer. Raises T003 if there is no such template.
    """
    base, plus, _ = name.partition("+eos")
    choice = _choose(tokenizer, base or "auto")
    if not plus:
        return choice
    return Choice(name if base != "auto" else choice.name + plus, _ENDED + choice.source, _ENDED + choice.with_tools, choice.reason)


def _choose(tokenizer: PreTrainedTokenizerBase, name: str) -> Choice:
    own = tokenizer.chat_template
    collection: dict[str, str] = own if isinstance(own, dict) else {"default": own} if own else {}
    if name == "auto" and collection:
        return _own(tokenizer, collection)
    if name == "auto":
        name, reason = _suitable(tokenizer)
        return Choice(name, _written_for(tokenizer, name), _written_for(tokenizer, "chatml"), reason)
    if name in names():
        source = _written_for(tokenizer, name)
        return Choice(name, source, source, f"{name} was asked for")
    if name in collection:
        return Choice(name, collection[name], collection[name], "it was asked for")
    if name.endswith((".jinja", ".jinja2", ".j2")):
        return _file(Path(name))
    raise HoneError("T003", f"there is no chat template called '{name}'", fix=nearest(name, ["auto", *names(), *collection]))


def _own(tokenizer: PreTrainedTokenizerBase, collection: dict[str, str]) -> Choice:
    name = Path(tokenizer.name_or_path).name or "own"
    if "default" not in collection:
        raise HoneError(
            "T003", f"'{name}' has several chat templates and none is the default", fix=f"data.template={'|'.join(sorted(collection))}"
        )
    return Choice(name, collection["default"], collection.get("tool_use", collection["default"]), "it is the tokenizer's own")


def _file(path: Path) -> Choice:
    if not path.is_file():
        raise HoneError("T003", f"there is no chat template file '{path}'", fix="check the path")
    source = path.read_text("utf-8")
    return Choice(path.stem, source, source, "it was asked for")


def _written_for(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """One of our formats, in the control tokens that the tokenizer has."""
    # What the tokenizer puts in front of plain text belongs in front of a conversation too.
    opening = "{{- bos_token }}" if adds_bos(tokenizer) else ""
    if _MARKERS.get(name, "") not in {"", *tokenizer.get_added_vocab()}:
        opening += "{%- set end_of_turn = eos_token %}"
    return opening + (_FOLDER / f"{name}.jinja").read_text("utf-8")


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts a beginning-of-sequence token in front of plain text."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


def _suitable(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    vocabulary = tokenizer.get_vocab()
    if "<|im_start|>" in vocabulary and "<|im_end|>" in vocabulary:
        return "chatml", "the tokenizer has no chat template, but knows ChatML's control tokens"
    marks = tokenizer("### Instruction:", add_special_tokens=False)["input_ids"]
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in marks:
        return "plain", "the tokenizer has no chat template, and cannot write the marks of the Alpaca format"
    why = "the tokenizer has no chat template and no control tokens for one, so answers end with its end-of-sequence token"
    return "alpaca", f"{why}; conversations with tools are written in ChatML"
