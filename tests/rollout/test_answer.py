"""When an answer ends, what its text is, and how its text comes out piece by piece."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hone.rollout.answer import OVERLAP, WINDOW, Detokenizer, Request, Stops
from hone.rollout.warp import Sampling

TEXTS = [
    "The harbour of the town opens at six.",
    "Zum Bäcker für 3 € \N{EM DASH} 港の町 🚢🏴󠁧󠁢󠁥󠁮󠁧󠁿!\n\n  indented\ttab",
    "ship " * 60,
    "",
]


def write(request: Request, tokens: list[int]) -> None:
    for token in tokens:
        if not request.done:
            request.add(token, -0.5)


def request(tokenizer: Any, *, limit: int = 200, ids: tuple[int, ...] = (1,), strings: tuple[str, ...] = ()) -> Request:
    return Request(0, [5], limit, Stops(frozenset(ids), strings, tokenizer), Sampling(stop_strings=strings))


def test_a_stop_token_ends_the_answer_and_is_kept_out_of_its_text(tiny_tokenizer: Any) -> None:
    written = request(tiny_tokenizer)
    tokens = tiny_tokenizer.encode("At six.")
    write(written, [*tokens, 1, *tokens])
    answer = written.answer()
    assert (answer.tokens, answer.text, answer.stop_reason) == ([*tokens, 1], "At six.", "stop")
    assert answer.logps == [-0.5] * len(answer.tokens)


def test_an_answer_that_does_not_stop_is_cut(tiny_tokenizer: Any) -> None:
    written = request(tiny_tokenizer, limit=3)
    write(written, tiny_tokenizer.encode("The harbour opens at six."))
    assert (len(written.tokens), written.answer().stop_reason) == (3, "length")


@pytest.mark.parametrize("stop", ["\n\n", "harbour", "für", "🚢", " opens at"])
def test_a_stop_string_ends_the_answer_wherever_it_falls_between_tokens(tiny_tokenizer: Any, stop: str) -> None:
    whole = "The harbour opens at 6 für die 🚢 here\n\nand on"
    written = request(tiny_tokenizer, strings=(stop, "never written"))
    tokens = tiny_tokenizer.encode(whole)
    write(written, tokens)
    answer = written.answer()
    assert (answer.text, answer.stop_reason) == (whole.partition(stop)[0], "stop")
    assert stop not in tiny_tokenizer.decode(answer.tokens[:-1])


def test_each_row_has_its_own_numbers(tiny_tokenizer: Any) -> None:
    def numbers(index: int, seed: int, temperature: float = 1.0) -> list[float]:
        row = Request(index, [5], 9, Stops(frozenset(), (), tiny_tokenizer), Sampling(seed=seed, temperature=temperature))
        return [row.uniform() for _ in range(5)]

    assert numbers(3, 7) == numbers(3, 7)
    assert len({tuple(numbers(index, seed)) for index in range(4) for seed in range(4)}) == 16
    assert numbers(3, 7, temperature=0.0) == [0.0] * 5


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_pieces_add_up_to_the_text_and_never_show_half_a_character(tiny_tokenizer: Any, text: str) -> None:
    stream = Detokenizer(tiny_tokenizer)
    pieces = [stream.add(token) for token in tiny_tokenizer.encode(text)]
    assert "".join(pieces) + stream.rest() == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_the_stream_looks_back_only_a_little(tiny_tokenizer: Any) -> None:
    seen = []

    class Watched:
        def decode(self, ids: list[int], **options: Any) -> str:
            seen.append(len(ids))
            return tiny_tokenizer.decode(ids, **options)

    stream = Detokenizer(Watched())
    tokens = tiny_tokenizer.encode("ship " * 100)
    assert "".join(stream.add(token) for token in tokens) == "ship " * 100
    assert max(seen) == WINDOW + 1 > OVERLAP


def test_a_stop_string_is_held_back_while_it_may_be_coming(tiny_tokenizer: Any) -> None:
    rng = random.Random(0)
    for _ in range(60):
        text = "".join(rng.choice("ab#\n ") for _ in range(30))
        stream = Detokenizer(tiny_tokenizer, ("##", "\n#\n"))
        shown = "".join(stream.add(token) for token in tiny_tokenizer.encode(text)) + stream.rest()
        assert shown == min((text.partition(stop)[0] for stop in ("##", "\n#\n")), key=len)


def test_words_of_a_sentencepiece_tokenizer_keep_their_spaces(shared: Any) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "weights" / "stories260k")
    text = "Once upon a time there was a little girl. " * 6
    tokens = tokenizer.encode(text, add_special_tokens=False)
    stream = Detokenizer(tokenizer)
    assert "".join(stream.add(token) for token in tokens) + stream.rest() == tokenizer.decode(tokens)
