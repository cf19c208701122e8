"""Bugs of masks, templates and ends: what is learned is not what the assistant says, or not what will be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hone.core.types import Batch, Group, Sequence
from hone.prove import Row, Subject
from hone.prove.plain import learned
from tests.zoo.base import bug
from tests.zoo.models import UNKNOWN, with_batches

Change = Callable[[Sequence], Sequence]


def with_rows(s: Subject, change: Change) -> Subject:
    """The subject whose rows were tokenised in another way."""
    rows = [replace(row, group=tuple(change(one) for one in row.group)) for row in s.rows]
    return replace(s, rows=rows)


def weighted(one: Sequence, weight: Callable[[int], float]) -> Sequence:
    """A sequence with other weights, by position."""
    return replace(one, weights=[weight(j) for j in range(len(one.tokens))])


@bug("learned-text", shipped="unsloth#7054, Megatron-Bridge#3359")
def the_question_is_learned(s: Subject) -> Subject:
    """The template has no marks of its own, the mask falls back to ones, and the questions are learned too."""
    return with_rows(s, lambda one: weighted(one, lambda j: 1.0))


@bug("learned-text", shipped="marin#7237, LLaMA-Factory#4635")
def nothing_is_learned(s: Subject) -> Subject:
    """The template has no marks of its own, and the mask is all zeros."""
    return with_rows(s, lambda one: weighted(one, lambda j: 0.0))


@bug("learned-text", shipped="trl#6357, unsloth#416, unsloth#419")
def end_masked_as_padding(s: Subject) -> Subject:
    """Padding and end of sequence are one token, and with the padding the end is left out of the loss: the model never stops."""
    stops = s.texts.stops
    return with_rows(s, lambda one: weighted(one, lambda j: 0.0 if one.tokens[j] in stops else one.weights[j]))


@bug("learned-text", shipped="trl#734, unsloth#1008")
def end_missing(s: Subject) -> Subject:
    """The template writes no end behind the answer."""

    def cut(one: Sequence) -> Sequence:
        last = learned(one)[-1]
        return replace(one, tokens=one.tokens[:last], weights=one.weights[:last])

    return with_rows(s, cut)


@bug("learned-text", on="dpo", shipped="trl#4908")
def end_written_twice(s: Subject) -> Subject:
    """The trainer adds an end of sequence to answers that have one already."""

    def doubled(one: Sequence) -> Sequence:
        last = learned(one)[-1]
        return replace(one, tokens=[*one.tokens[: last + 1], one.tokens[last]], weights=[*one.weights[: last + 1], 1.0])

    return with_rows(s, doubled)


@bug("learned-text", shipped=UNKNOWN)
def prompt_length_from_other_text(s: Subject) -> Subject:
    """The prompt is tokenised by itself to find where the answer begins, and its end does not come out as it does inside the whole."""
    return with_rows(s, lambda one: weighted(one, lambda j: one.weights[j] if j > learned(one)[0] + 1 else 0.0))


@bug("served", shipped=UNKNOWN)
def header_is_learned(s: Subject) -> Subject:
    """The header of the answer, which the server writes, is learned as if the model had to."""

    def more(one: Sequence) -> Sequence:
        first = learned(one)[0]
        return weighted(one, lambda j: 1.0 if first - 3 <= j < first else one.weights[j])

    return with_rows(s, more)


@bug("learned-text", shipped="LLaMA-Factory#9107")
def content_beside_a_call_lost(s: Subject) -> Subject:
    """What the assistant says beside a tool call is lost, and only the rest is learned."""

    def lost(one: Sequence) -> Sequence:
        at = learned(one)
        gone = set(at[: len(at) // 2])
        kept = [j for j in range(len(one.tokens)) if j not in gone]
        return replace(one, tokens=[one.tokens[j] for j in kept], weights=[one.weights[j] for j in kept])

    return with_rows(s, lost)


@bug("stops", shipped="unsloth#5451")
def another_end_at_serving(s: Subject) -> Subject:
    """The saved model stops at another token than the one that was learned."""
    return replace(s, texts=replace(s.texts, stops=frozenset({0})))


@bug("served", shipped="LLaMA-Factory#3635, LLaMA-Factory#8720, unsloth#3899, ollama#6823")
def another_template_at_serving(s: Subject) -> Subject:
    """The server writes conversations with a template of its own."""
    serve, header = s.texts.serve, s.rows[0].group[0].tokens[:3]
    return replace(s, texts=replace(s.texts, serve=lambda said, tools: [*header, *serve(said, tools)]))


@bug("served", shipped="LLaMA-Factory#2692")
def no_generation_prompt_at_serving(s: Subject) -> Subject:
    """The server leaves out the header of the answer, or ends it with a blank that training never showed."""
    serve = s.texts.serve
    return replace(s, texts=replace(s.texts, serve=lambda said, tools: [*serve(said, tools)[:-1], 3]))


@bug("beginnings", on="begun", shipped="silent in the stock stack; T006 here")
def begun_twice(s: Subject) -> Subject:
    """The template writes the beginning of sequence, and the tokenizer adds one more."""
    bos = s.texts.bos
    assert bos is not None
    return with_rows(s, lambda one: replace(one, tokens=[bos, *one.tokens], weights=[0.0, *one.weights]))


@bug("ledger", shipped="axolotl#1749, axolotl#775")
def rows_cut_without_a_word(s: Subject) -> Subject:
    """Sequences are cut to another length than was asked for, and nobody counts what is gone."""

    def cut(group: Group) -> Group:
        return tuple(replace(one, tokens=one.tokens[:-4], weights=one.weights[:-4]) for one in group)

    def batches(groups: Any, budget: int, share: bool) -> list[Batch]:
        return s.batches([cut(group) for group in groups], budget, share)

    return replace(s, batches=batches)


@bug("ledger", shipped=UNKNOWN)
def last_read_of_a_batch_lost(s: Subject) -> Subject:
    """The last learned token of every batch is lost by a slice that ends one too early."""

    def short(batch: Batch) -> Batch:
        names = ("read_N", "target_N", "weight_N", "row_N")
        return replace(batch, **{name: getattr(batch, name)[:-1] for name in names})

    return with_batches(s, short)


assert Row is not None
