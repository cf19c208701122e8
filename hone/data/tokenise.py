"""Examples to groups of token sequences, in batches: what an objective compares, with its facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hone.core.errors import HoneError
from hone.core.types import Conversation, Example, Facts, Group, Origin, Shape
from hone.core.types import Sequence as Tokens
from hone.data.encoding import Encoder
from hone.data.formats import STEPS
from hone.data.settings import Learn
from hone.data.shapes import labels_of, margin_of, number_of, wanted
from hone.data.templating import adds_bos

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hone.data.chat import ChatTemplate


class Tokeniser:
    """A tokenizer and a chat template, for one shape of groups.

    `facts` are those that the objective reads beside the text; `classes` are the known ones, to which new ones are added as
    they are met.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, *, learn: Learn, shape: Shape, facts: str = "",
        classes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._template, self._learn, self._shape, self._facts = template, learn, shape, facts
        self._tokenizer, self._encoder = tokenizer, Encoder(tokenizer)
        self._before = [tokenizer.bos_token_id] if adds_bos(tokenizer) else []
        self._after = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self._closed = bool(classes)
        self.classes = list(classes)

    def groups(self, examples: Sequence[Example]) -> list[Group | HoneError]:
        """A group for each example, or why there is none."""
        found = [wanted(example, self._shape) for example in examples]
        if self._shape in ("class", "number"):
            return [one if isinstance(one, HoneError) else self._rated(example) for example, one in zip(examples, found, strict=True)]
        rows = [(said, one.tools) for one, each in zip(examples, found, strict=True) if isinstance(each, tuple) for said in each]
        made = iter(self._template.sequences(rows, learn=self._learn))
        return [self._group(one, each, made) for one, each in zip(examples, found, strict=True)]

    def _group(
        self, example: Example, found: tuple[Conversation, ...] | HoneError, made: Iterator[Tokens | HoneError]
    ) -> Group | HoneError:
        if isinstance(found, HoneError):
            return found
        if example.text is not None:
            return (self._text(example.text, example.origin),)
        sequences: list[Tokens] = []
        faults: list[HoneError] = []
        for number, one in enumerate([next(made) for _ in found]):
            if isinstance(one, HoneError):
                faults.append(HoneError(one.code, one.what, where=str(example.origin), fix=one.fix))
                continue
            sequences.append(Tokens(one.tokens, one.weights, one.facts | self._known(example, number), example.origin))
        if faults:
            return faults[0]
        return self._stepped(example, sequences[0]) if self._shape == "steps" else tuple(sequences)

    def _known(self, example: Example, number: int) -> Facts:
        """What an objective knows of one answer of a row, beside its text."""
        if self._shape == "label":
            return {"label": labels_of(example)[number]}
        return {"margin": margin_of(example.columns)} if "margin_S" in self._facts else {}

    def _stepped(self, example: Example, sequence: Tokens) -> Group | HoneError:
        """A weight for the token after each step's last, where the step is judged, and the labels there."""
        steps, labels = example.columns[STEPS]
        ends = step_ends(self._tokenizer, sequence, steps)
        if ends is None:
            what = "the steps of the answer cannot be found in its tokens"
            return HoneError("P005", what, where=str(example.origin), fix="write each step as a text of its own, without control tokens")
        weights, facts = [0.0] * len(sequence.tokens), [0.0] * len(sequence.tokens)
        for end, label in zip(ends, labels, strict=True):
            weights[end + 1], facts[end + 1] = 1.0, float(label)
        return (Tokens(sequence.tokens, weights, {"step_label": facts}, example.origin),)

    def _rated(self, example: Example) -> Group | HoneError:
        """The prompt as the model is asked it, its last token marked, with its class or number as a fact."""
        *asked, answer = example.conversations[0]
        if self._shape == "class" and answer.content not in self.classes:
            if self._closed:
                what = f"'{answer.content[:40]}' is none of the classes {', '.join(self.classes)[:200]}"
                return HoneError("P006", what, where=str(example.origin), fix="add it to objective.classes, or mend the row")
            self.classes.append(answer.content)
        known = self.classes.index(answer.content) if self._shape == "class" else number_of(example)
        assert known is not None
        tokens = self._template.prompt_ids(asked, example.tools)
        return (Tokens(tokens, [0.0] * (len(tokens) - 1) + [1.0], {self._shape: float(known)}, example.origin),)

    def _text(self, text: str, origin: Origin) -> Tokens:
        """Raw text, all of it learned, with the end that teaches where texts stop. Control tokens in it stay text."""
        special = self._encoder.special.search(text) is not None
        encoded = self._encoder.exact(text, plain=[(0, len(text))]) if special else self._encoder.batch([text])[0]
        tokens = [*self._before, *encoded.ids, *self._after]
        return Tokens(tokens, [1.0] * len(tokens), {}, origin)


def step_ends(tokenizer: PreTrainedTokenizerBase, sequence: Tokens, steps: Sequence[str]) -> list[int] | None:
    """Index of the token in which each step of an answer ends, or None where the steps are not what the answer says.

    Blanks do not count, as decoders add and drop them.
    """
    first = next((i for i, weight in enumerate(sequence.weights) if i and weight), len(sequence.tokens))
    said, ends, sought = "", list[int](), ""
    for i in range(first, len(sequence.tokens) - 1):
        if len(ends) == len(steps):
            break
        said = "".join(str(tokenizer.decode(sequence.tokens[first : i + 1])).split())
        while len(ends) < len(steps) and said.startswith(ahead := sought + "".join(steps[len(ends)].split())):
            ends.append(i)
            sought = ahead
    return ends if len(ends) == len(steps) else None
