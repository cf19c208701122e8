"""Examples to groups of token sequences, in batches: what an objective compares, with its facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hone.core.errors import HoneError
from hone.core.types import Conversation, Example, Facts, Group, Origin, Shape
from hone.core.types import Sequence as Tokens
from hone.data.encoding import Encoder
from hone.data.formats import WANTED
from hone.data.settings import Learn
from hone.data.templating import adds_bos

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hone.data.chat import ChatTemplate


class Tokeniser:
    """A tokenizer and a chat template, for one shape of groups."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, *, learn: Learn, shape: Shape) -> None:
        self._template, self._learn, self._shape = template, learn, shape
        self._encoder = Encoder(tokenizer)
        self._before = [tokenizer.bos_token_id] if adds_bos(tokenizer) else []
        self._after = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]

    def groups(self, examples: Sequence[Example]) -> list[Group | HoneError]:
        """A group for each example, or why there is none."""
        wanted = [self._conversations(example) for example in examples]
        rows = [(said, one.tools) for one, found in zip(examples, wanted, strict=True) if isinstance(found, tuple) for said in found]
        made = iter(self._template.sequences(rows, learn=self._learn))
        return [self._group(one, found, made) for one, found in zip(examples, wanted, strict=True)]

    def _group(
        self, example: Example, wanted: tuple[Conversation, ...] | HoneError, made: Iterator[Tokens | HoneError]
    ) -> Group | HoneError:
        if isinstance(wanted, HoneError):
            return wanted
        if example.text is not None:
            return (self._text(example.text, example.origin),)
        sequences: list[Tokens] = []
        faults: list[HoneError] = []
        for one in [next(made) for _ in wanted]:
            if isinstance(one, HoneError):
                faults.append(HoneError(one.code, one.what, where=str(example.origin), fix=one.fix))
                continue
            facts: Facts = {"label": float(example.columns[WANTED])} if self._shape == "label" else {}
            sequences.append(Tokens(one.tokens, one.weights, one.facts | facts, example.origin))
        return faults[0] if faults else tuple(sequences)

    def _conversations(self, example: Example) -> tuple[Conversation, ...] | HoneError:
        """The conversations that the objective compares; none for raw text, which only a single sequence can be."""
        wanted = example.columns.get(WANTED)
        if self._shape == "any":
            return example.conversations
        if self._shape == "pair" and len(example.conversations) == 2:
            return example.conversations
        if self._shape == "label" and isinstance(wanted, bool) and len(example.conversations) == 1:
            return example.conversations
        if self._shape == "single" and wanted is not False:
            return example.conversations[:1]
        what = {"pair": "two answers to compare", "label": "a label of true or false", "single": "a wanted answer"}[self._shape]
        return HoneError(
            "D036", f"the objective needs {what}, and the row has none", where=str(example.origin), fix="choose another objective"
        )

    def _text(self, text: str, origin: Origin) -> Tokens:
        """Raw text, all of it learned, with the end that teaches where texts stop. Control tokens in it stay text."""
        special = self._encoder.special.search(text) is not None
        encoded = self._encoder.exact(text, plain=[(0, len(text))]) if special else self._encoder.batch([text])[0]
        tokens = [*self._before, *encoded.ids, *self._after]
        return Tokens(tokens, [1.0] * len(tokens), {}, origin)
