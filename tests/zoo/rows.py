"""Flaws of data: rows that teach nothing, or twice, or what they were to be examined on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.zoo.base import flaw
from tests.zoo.given import Given, Messages, Row, asked, told
from tests.zoo.models import UNKNOWN

LONG = "Tell me all that is known of the ships of the town, of their cargo and of the people who sail on them. " * 2


@flaw("D030", on="talks", shipped=UNKNOWN)
def held_out_rows_are_trained(one: Given) -> Given:
    """Conversations stand in the training file and in the held-out file, so the held-out loss tells how well they are known by heart."""
    return replace(one, rows=[*one.rows, *one.aside])


@flaw("D030", on="talks", shipped=UNKNOWN)
def held_out_rows_are_trained_in_other_spelling(one: Given) -> Given:
    """The same leak with another case, blanks and punctuation, which a comparison of bytes passes over."""
    spelled = [{"messages": [{**said, "content": f" {said['content'].upper()} ..."} for said in row["messages"]]} for row in one.aside]
    return replace(one, rows=[*one.rows, *spelled])


@flaw("D035", on="talks", shipped=UNKNOWN)
def a_row_is_there_twice(one: Given) -> Given:
    """A row was copied while files were put together, and weighs double."""
    return replace(one, rows=[*one.rows, one.rows[7]])


@flaw("C133", on="talks", shipped=UNKNOWN)
def a_third_of_the_rows_repeats_others(one: Given) -> Given:
    """One file was added twice: a few facts are seen in every pass more than once and are learned by heart."""
    return replace(one, rows=[*one.rows, *one.rows[: len(one.rows) // 2]])


@flaw("D028", on="talks", shipped="trl#1832, axolotl#775 (rows lost without a count)")
def the_question_fills_the_window(one: Given) -> Given:
    """Questions are as long as the limit, so that truncation takes the whole answer and the row teaches nothing."""
    long = one.said(lambda i, said: [{**said[0], "content": LONG + str(i)}, *said[1:]] if i % 10 == 0 else said)
    return replace(long, settings={"max_length": 96})


@flaw("C117", on="talks", shipped="axolotl#1749 (2048 tokens used of the 8192 that were set)")
def answers_lose_their_end(one: Given) -> Given:
    """Answers are longer than the limit. Truncation takes their end and the end marker with it, so the model learns to run on."""
    long = one.said(lambda i, said: [said[0], {**said[1], "content": f"{i}. {LONG}"}])
    return replace(long, settings={"max_length": 96})


@flaw("P001", on="pairs", shipped=UNKNOWN)
def what_is_left_of_a_pair_is_equal(one: Given) -> Given:
    """Better and worse answer differ only behind the limit; what is left of them is equal, and so is its reward."""
    rows = [{**row, "chosen": LONG + row["chosen"], "rejected": LONG + row["rejected"]} for row in one.rows]
    return replace(one, rows=[*rows[:5], *one.rows[5:]], settings={"max_length": 96})


@flaw("P001", on="pairs", shipped=UNKNOWN)
def chosen_is_rejected(one: Given) -> Given:
    """Both answers of a pair are the same text: the loss stays at its start, and no gradient says why."""
    return replace(one, rows=[{**row, "rejected": row["chosen"]} if i == 3 else row for i, row in enumerate(one.rows)])


@flaw("D029", on="talks", shipped="marin#7237 (all masks zero)")
def every_answer_is_masked(one: Given) -> Given:
    """Rows come with weights of their own, all of them zero: such a row is read and nothing of it is learned."""
    return one.said(lambda i, said: [{**message, "weight": 0} for message in said] if i % 4 == 0 else said)


@flaw("D027", on="talks", shipped=UNKNOWN)
def answers_are_empty(one: Given) -> Given:
    """A failed request left an empty answer, from which the model learns to say nothing."""
    return one.said(lambda i, said: [said[0], {**said[1], "content": " \n"}] if i == 5 else said)


@flaw("D022", on="talks", shipped=UNKNOWN)
def an_answer_is_null(one: Given) -> Given:
    """The content of an answer is null, which many templates write out as the word None."""
    return one.said(lambda i, said: [said[0], {**said[1], "content": None}] if i == 5 else said)


@flaw("D021", on="talks", shipped=UNKNOWN)
def nobody_answers(one: Given) -> Given:
    """A row ends with its question; a mask of the last message would learn the question."""
    return one.said(lambda i, said: said[:1] if i == 5 else said)


@flaw("D026", on="turns", shipped=UNKNOWN)
def the_last_word_is_said_to_the_model(one: Given) -> Given:
    """A conversation ends with thanks to which nobody answers; trained to its end, it teaches the user's part."""
    return one.said(lambda i, said: [*said, {"role": "user", "content": "Thank you."}])


@flaw("D025", on="turns", shipped=UNKNOWN)
def turns_in_disorder(one: Given) -> Given:
    """Two turns of one speaker follow each other, as no server will ever write it."""
    return one.said(lambda i, said: [said[0], *said[2:]] if i % 3 == 0 else said)


@flaw("D024", on="talks", shipped=UNKNOWN)
def a_role_that_nobody_knows(one: Given) -> Given:
    """The assistant is called narrator; a reader that knows two roles takes all that is said for the user's, and learns none of it."""
    return one.said(lambda i, said: [said[0], {**said[1], "role": "narrator"}])


@flaw("P003", on="labels", shipped=UNKNOWN)
def only_wanted_answers(one: Given) -> Given:
    """All labels are true, as KTO's data is where the unwanted rows were filtered out: there is nothing to tell apart."""
    return replace(one, rows=[{**row, "label": True} for row in one.rows])


@flaw("P005", on="steps", shipped=UNKNOWN)
def fewer_labels_than_steps(one: Given) -> Given:
    """A label is missing, and all behind it would be put on the wrong steps."""
    return replace(one, rows=[{**row, "labels": row["labels"][:1]} if i == 2 else row for i, row in enumerate(one.rows)])


@flaw("P004", on="pairs", shipped=UNKNOWN)
def answers_where_pairs_are_wanted(one: Given) -> Given:
    """Rows of one answer are given to an objective that compares two."""
    return replace(one, rows=[_single(i) for i in range(len(one.rows))])


def _single(i: int) -> Row:
    return {"prompt": asked(i), "completion": told(i)}


@flaw("D019", on="talks", shipped=UNKNOWN)
def half_of_a_character(one: Given) -> Given:
    """A text was cut in the middle of a character, which becomes the replacement sign and is learned like a letter."""

    def halved(i: int, said: Messages) -> Messages:
        broken: dict[str, Any] = {**said[1], "content": said[1]["content"] + "\ud83d"}
        return [said[0], broken] if i == 5 else said

    return one.said(halved)
