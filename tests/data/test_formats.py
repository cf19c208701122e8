"""Formats: recognised by their columns, all to the same conversation, and refused with what was found and what was expected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.core.types import Example, Message, Origin
from hone.data.formats import FORMATS, WANTED, describe, detect, layout_of, read
from hone.data.loaders import load
from hone.data.rows import Row
from tests.data.kit import chat, fault

ORIGIN = Origin("rows.jsonl", 7)
SAID = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="[{"), min_size=1, max_size=30).filter(str.strip)


def row(**columns: Any) -> Row:
    return Row(ORIGIN, columns)


def shares(said: list[dict[str, str]]) -> list[dict[str, str]]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[one["role"]], "value": one["content"]} for one in said]


def example(**columns: Any) -> Example:
    return read(row(**columns))


def conversations(**columns: Any) -> tuple[tuple[Message, ...], ...]:
    return example(**columns).conversations


def single_turn_shapes(question: str, answer: str) -> dict[str, Mapping[str, Any]]:
    said = chat(question, answer)
    return {
        "messages": {"messages": said},
        "messages as json": {"messages": json.dumps(said)},
        "messages under conversations": {"conversations": said},
        "messages with parts": {"messages": [one | {"content": [{"type": "text", "text": one["content"]}]} for one in said]},
        "sharegpt": {"conversations": shares(said)},
        "sharegpt as json": {"conversations": json.dumps(shares(said), ensure_ascii=False)},
        "exchanges": {"conversation": [{"input": question, "output": answer}]},
        "alpaca": {"instruction": question, "input": "", "output": answer},
        "alpaca without input": {"instruction": question, "output": answer},
        "alpaca with null": {"instruction": question, "input": None, "output": answer, "history": None, "system": None},
        "alpaca with response": {"instruction": question, "input": "", "response": answer},
        "prompt and completion": {"prompt": question, "completion": answer},
        "prompt and response": {"prompt": question, "response": answer},
        "lists of messages": {"prompt": said[:1], "completion": said[1:]},
        "prompt and one message": {"prompt": question, "completion": said[1]},
        "question and answer": {"question": question, "answer": answer},
        "query and response": {"query": question, "response": answer},
        "input and output": {"input": question, "output": answer},
        "chinese": {"问": question, "答": answer},
        "label": {"sentence": question, "label": answer},
        "two columns": {"left": question, "right": answer},
    }


@given(question=SAID, answer=SAID)
def test_one_exchange_is_the_same_in_every_shape(question: str, answer: str) -> None:
    expected = ((Message("user", question), Message("assistant", answer)),)
    for name, columns in single_turn_shapes(question, answer).items():
        assert conversations(**columns) == expected, name


@given(said=st.lists(SAID, min_size=2, max_size=8).filter(lambda said: len(said) % 2 == 0), system=st.none() | SAID)
def test_a_long_conversation_is_the_same_in_every_shape(said: list[str], system: str | None) -> None:
    messages = chat(*said, system=system)
    turns = list(zip(said[::2], said[1::2], strict=True))
    prompted = {} if system is None else {"system": system}
    expected = (tuple(Message(one["role"], one["content"]) for one in messages),)
    shapes = {
        "messages": {"messages": messages},
        "messages and system": {"messages": chat(*said)} | prompted,
        "sharegpt": {"conversations": shares(messages)},
        "sharegpt and system": {"conversations": shares(chat(*said))} | prompted,
        "exchanges": {"conversation": [{"input": a, "output": b} | (prompted if i == 0 else {}) for i, (a, b) in enumerate(turns)]},
        "alpaca": {"instruction": turns[-1][0], "output": turns[-1][1], "history": [list(turn) for turn in turns[:-1]]} | prompted,
        "prompt and completion": {"prompt": messages[:-1], "completion": messages[-1:]},
    }
    for name, columns in shapes.items():
        assert conversations(**columns) == expected, name


@given(question=SAID, better=SAID, worse=SAID)
def test_a_preference_is_the_same_in_every_shape_and_its_prompt_is_never_learned(question: str, better: str, worse: str) -> None:
    prompt, one, two = chat(question), {"role": "assistant", "content": better}, {"role": "assistant", "content": worse}
    user = Message("user", question, weight=0.0)
    expected = ((user, Message("assistant", better)), (user, Message("assistant", worse)))
    shapes = {
        "texts": {"prompt": question, "chosen": better, "rejected": worse},
        "instruction": {"instruction": question, "input": "", "output": better, "chosen": better, "rejected": worse},
        "question": {"question": question, "chosen": better, "rejected": worse},
        "lists": {"prompt": prompt, "chosen": [one], "rejected": [two]},
        "single messages": {"prompt": prompt, "chosen": one, "rejected": two},
        "prompt in both": {"prompt": question, "chosen": [*prompt, one], "rejected": [*prompt, two]},
        "openai": {"input": {"messages": prompt}, "preferred_output": [one], "non_preferred_output": [two]},
        "sharegpt": {"conversations": shares(prompt), "chosen": shares([one])[0], "rejected": shares([two])[0]},
        "sharegpt and texts": {"conversations": shares(prompt), "chosen": better, "rejected": worse},
    }
    if better != worse:
        shapes["implicit"] = {"chosen": [*prompt, one], "rejected": [*prompt, two]}
    for name, columns in shapes.items():
        assert conversations(**columns) == expected, name


def test_the_prompt_inside_both_answers_is_what_they_share() -> None:
    said = chat("Hi", "Hello!", "How is it?", "Fine.")
    chosen, rejected = conversations(chosen=said, rejected=[*said[:3], {"role": "assistant", "content": "Bad."}])
    assert [one.weight for one in chosen] == [0.0, 0.0, 0.0, None]
    assert chosen[:3] == rejected[:3]
    assert (chosen[3].content, rejected[3].content) == ("Fine.", "Bad.")


def test_dialogues_in_one_text_are_taken_apart() -> None:
    head = "\n\nHuman: A question?\n\nAssistant: An answer.\n\nHuman: And?\n\nAssistant:"
    chosen, rejected = conversations(chosen=f"{head} Good.", rejected=f"{head} Bad.")
    assert [one.role for one in chosen] == ["user", "assistant", "user", "assistant"]
    assert [one.weight for one in chosen] == [0.0, 0.0, 0.0, None]
    assert (chosen[-1].content, rejected[-1].content) == ("Good.", "Bad.")


@pytest.mark.parametrize("label", [True, False])
def test_a_judged_answer_is_the_same_in_every_shape(label: bool) -> None:
    said = chat("Why?", "Because.")
    expected = (Message("user", "Why?", weight=0.0), Message("assistant", "Because."))
    shapes = [
        {"prompt": "Why?", "completion": "Because.", "label": label},
        {"prompt": said[:1], "completion": said[1:], "label": label},
        {"messages": said, "label": label},
        {"conversations": shares(said), "kto_tag": label},
        {"instruction": "Why?", "input": "", "output": "Because.", "kto_tag": label},
        {"prompt": "Why?", "completion": "Because.", "label": str(label)},
        {"prompt": "Why?", "completion": "Because.", "label": int(label)},
    ]
    for columns in shapes:
        made = example(**columns)
        assert made.conversations == (expected,), columns
        assert made.columns[WANTED] is label


def test_the_input_stands_below_the_instruction_and_the_context_above_the_question() -> None:
    (said,) = conversations(instruction="Sum up.", input="A long text.", output="Short.")
    assert said[0].content == "Sum up.\n\nA long text."
    (said,) = conversations(context="A long text.", question="What is it?", answer="A text.")
    assert said[0].content == "A long text.\n\nWhat is it?"


@pytest.mark.parametrize("label", [2, 2.0, "2"])
def test_labels_may_be_numbers(label: Any) -> None:
    (said,) = conversations(text="A headline", label=label)
    assert said[1].content == str(label)


def test_tool_calls_have_one_shape_whatever_they_were_written_in() -> None:
    call = {"name": "weather", "arguments": {"city": "Oslo"}}
    offered = {"name": "weather", "description": "Tells it.", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    openai = [
        {"role": "user", "content": "Rain in Oslo?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"type": "function", "function": {**call, "arguments": json.dumps(call["arguments"])}}],
        },
        {"role": "tool", "content": "yes"},
        {"role": "assistant", "content": "It rains."},
    ]
    sharegpt = [
        {"from": "human", "value": "Rain in Oslo?"},
        {"from": "function_call", "value": json.dumps(call)},
        {"from": "observation", "value": "yes"},
        {"from": "gpt", "value": "It rains."},
    ]
    old = [openai[0], {"role": "assistant", "content": None, "function_call": call}, {"role": "function", "content": "yes"}, openai[3]]
    shapes = [
        {"messages": openai, "tools": [{"type": "function", "function": offered}]},
        {"conversations": sharegpt, "tools": json.dumps([offered])},
        {"messages": old, "functions": [offered]},
    ]
    made = [example(**columns) for columns in shapes]
    assert made[0].conversations == made[1].conversations == made[2].conversations
    assert made[0].tools == made[1].tools == made[2].tools == ({"type": "function", "function": offered},)
    assert made[0].conversations[0][1].tool_calls == ({"type": "function", "function": call},)
    assert made[0].conversations[0][1].content == ""


def test_ids_names_weights_and_reasoning_are_kept() -> None:
    said = [
        {"role": "user", "content": "Rain?", "name": "ann"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": ""}}], "weight": 0},
        {"role": "tool", "content": "no", "tool_call_id": "c1"},
        {"role": "assistant", "content": "No.", "reasoning_content": "It is dry.", "weight": 1},
    ]
    (user, call, tool, answer) = conversations(messages=said)[0]
    assert (user.name, call.weight, tool.tool_call_id, answer.reasoning, answer.weight) == ("ann", 0.0, "c1", "It is dry.", 1.0)
    assert call.tool_calls == ({"type": "function", "id": "c1", "function": {"name": "look", "arguments": {}}},)


@pytest.mark.parametrize(
    ("turn", "code", "what"),
    [
        ({"role": "assistant", "content": None}, "D022", "null"),
        ({"role": "user", "content": None, "tool_calls": []}, "D022", "null"),
        ({"role": "user", "content": 5}, "D023", "a number"),
        ({"role": "user", "content": {"text": "x"}}, "D023", "an object"),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "D023", "a part"),
        ({"role": "owl", "content": "x"}, "D024", "'owl'"),
        ({"content": "x"}, "D024", "role and content"),
        ("just text", "D023", "a message is an object"),
        ({"role": "assistant", "content": "x", "weight": "high"}, "D023", "weight"),
        ({"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": {}}}]}, "D018", "no name"),
        ({"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{broken"}}]}, "D018", "JSON"),
        ({"from": "function_call", "value": "call it"}, "D018", "no name"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/a.png"}}]}, "S001", "image_url"),
        ({"role": "user", "content": [{"type": "image", "path": "../../etc/passwd"}]}, "S001", "image"),
        ({"role": "user", "content": "look", "images": ["file:///etc/passwd"]}, "S001", "images"),
    ],
)
def test_a_turn_that_is_not_understood_is_refused_with_its_place(turn: Any, code: str, what: str) -> None:
    layout = layout_of([row(messages=chat("a", "b"))])
    with fault(code, where="rows.jsonl:7, message 2", what=what):
        layout.read(row(messages=[*chat("Hi"), turn]))


def test_a_near_role_is_suggested() -> None:
    with fault("D024", fix="did you mean 'assistant'?"):
        conversations(messages=[{"role": "asistant", "content": "x"}])


@pytest.mark.parametrize("columns", [{"image": "cat.png"}, {"images": ["http://example.org/cat.png"]}, {"audio": {"path": "/etc/passwd"}}])
def test_columns_that_point_outside_are_refused(columns: Mapping[str, Any]) -> None:
    with fault("S001", where="rows.jsonl:7", fix="text only"):
        example(question="What is it?", answer="A cat", **columns)
    assert example(question="What is it?", answer="A cat", images=[], image=None).conversations


@pytest.mark.parametrize(("chosen", "rejected"), [("x", None), ("", "x"), (None, None), ("x", "   "), ([], "x"), ("x", chat("a", "b"))])
def test_a_pair_needs_two_answers_of_one_kind(chosen: Any, rejected: Any) -> None:
    with fault("P002", where="rows.jsonl:7"):
        read(row(prompt="Why?", chosen=chosen, rejected=rejected), "preference")


def test_a_column_of_mixed_kinds_is_refused() -> None:
    rows = [row(question=f"q{i}", answer=f"a{i}") for i in range(5)]
    layout = layout_of([*rows, row(question="q", answer=5)])
    with fault("D005", where="rows.jsonl:7", what="'answer' is a number here and a text in other rows"):
        layout.read(row(question="q", answer=5))
    with fault("D005", what="a list here"):
        layout.read(row(question="q", answer=["x"]))
    assert layout.read(row(question="q", answer="5", id=5)).columns == {"id": 5}, "columns that are not used may be anything"


def test_a_row_without_a_column_of_its_format_is_refused() -> None:
    layout = layout_of([row(question=f"q{i}", answer=f"a{i}") for i in range(5)])
    with fault("D011", where="rows.jsonl:7", what="'answer'"):
        layout.read(row(question="q"))


@pytest.mark.parametrize(
    ("columns", "hint"),
    [
        ({"foo": "x"}, "data.columns={prompt: foo, completion: ANSWER}"),
        ({"instructon": "x", "output": "y"}, "did you mean 'instruction' for 'instructon'?"),
        ({"id": 1, "user_query": "x", "reply_text": "y", "score": 3}, "{prompt: user_query, completion: reply_text}"),
    ],
)
def test_unknown_columns_are_answered_with_what_was_found_and_what_is_expected(columns: Mapping[str, Any], hint: str) -> None:
    with fault("D010", where="rows.jsonl", fix=hint) as caught:
        example(**columns)
    assert all(name in caught.error.what for name in columns)
    assert "prompt_completion prompt, completion" in caught.error.what


@pytest.mark.parametrize(
    "columns", [{"instruction": "Do it."}, {"instruction": "Do it.", "instruction_type": "order"}, {"question": "Why?", "id": 4}]
)
def test_questions_without_answers_are_said_to_be_that(columns: Mapping[str, Any]) -> None:
    with fault("D010", what="the answers are missing", fix="add a column output"):
        example(**columns)


def test_the_users_mapping_comes_before_what_is_recognised() -> None:
    columns = {"ID": "4", "user_query": "Why?", "chatgpt_response": "Because.", "text": "unrelated"}
    made = read(row(**columns), columns={"prompt": "user_query", "completion": "chatgpt_response"})
    assert made.conversations == ((Message("user", "Why?"), Message("assistant", "Because.")),)
    assert made.columns == {"ID": "4", "text": "unrelated"}
    assert read(row(**columns)).text == "unrelated"
    with fault("D011", fix="did you mean 'user_query'?"):
        read(row(**columns), columns={"prompt": "user_qery"})
    with fault("D010", what="data.columns"):
        read(row(**columns), columns={"nonsense": "user_query"})


def test_the_format_may_be_named() -> None:
    assert read(row(text="Some text", label="x"), "text").text == "Some text"
    with fault("D011", what="needs instruction, output", fix="data.columns"):
        read(row(text="Some text"), "alpaca")
    with fault("D011", what="no column 'label'", fix="known"):
        read(row(text="Some text"), "text", {"label": "text"})
    with pytest.raises(Exception, match="C003"):
        read(row(text="x"), "alpacca")


def test_every_format_is_described_with_its_columns() -> None:
    assert describe("alpaca", ["instruction", "output", "id"]) == "instruction -> user\noutput -> answer\nnot used: id"
    for name, format in FORMATS.items():
        needed = [field.name for field in format.fields if field.required]
        assert all(column in describe(name, needed) for column in needed)
        assert format.about


def test_detection_looks_at_most_rows_not_at_the_odd_one() -> None:
    rows = [row(instruction="x", output="y") for _ in range(9)]
    assert detect(["instruction", "output", "example"], [*rows, row(instruction="x", output="y", example="z")]) == "alpaca"
    assert detect(["question", "answer"], [row(question=None, answer=None), row(question="a", answer="b")]) == "question_answer"


def test_unused_columns_are_kept_and_the_origin_is_the_rows() -> None:
    made = example(question="a", answer="b", source="web")
    assert (made.origin, made.columns) == (ORIGIN, {"source": "web"})
    assert replace(made, origin=Origin("x", 1)) != made


REAL = {
    "banking77/train.csv.gz": ("label", 10003),
    "bitext_customer_intents/dev/Bitext_Sample_Customer_Service_Validation_Dataset.csv": ("label", 810),
    "codealpaca/code_alpaca_2k.json.gz": ("alpaca", 2017),
    "emollm_zh/data.json.gz": ("exchanges", 1596),
    "financial_phrasebank/train.jsonl": ("label", 2799),
    "gpteacher/Roleplay/roleplay-simple-deduped-roleplay-instruct.json.gz": ("alpaca", 1923),
    "gsm8k/train.jsonl.gz": ("question_answer", 7473),
    "hh_rlhf_harmless_test/pairs.jsonl.gz": ("preference", 1500),
    "huatuo_med_zh/llama_data.json.gz": ("alpaca", 8658),
    "lawyer_llama_zh/zixun_gpt4.json.gz": ("question_answer", 1000),
    "llamafactory_demos/alpaca_en_demo.json": ("alpaca", 999),
    "llamafactory_demos/alpaca_zh_demo.json": ("alpaca", 1000),
    "llamafactory_demos/c4_demo.jsonl": ("text", 300),
    "llamafactory_demos/dpo_en_demo.json": ("preference", 300),
    "llamafactory_demos/dpo_zh_demo.json": ("preference", 300),
    "llamafactory_demos/glaive_toolcall_en_demo.json": ("sharegpt", 300),
    "llamafactory_demos/glaive_toolcall_zh_demo.json": ("sharegpt", 300),
    "llamafactory_demos/identity.json": ("alpaca", 91),
    "llamafactory_demos/kto_en_demo.json": ("kto_messages", 300),
    "llamafactory_demos/wiki_demo.txt": ("text", 30),
    "medicalgpt_zh/dpo_zh_500.jsonl.gz": ("preference", 500),
    "medicalgpt_zh/medical_sft_1K_format.jsonl.gz": ("sharegpt", 1000),
    "medicalgpt_zh/sharegpt_zh_1K_format.jsonl.gz": ("sharegpt", 1000),
    "medicalgpt_zh/toolcall_dpo_zh_demo.jsonl": ("preference", 11),
    "rasbt_instruction/instruction-data.json": ("alpaca", 1100),
    "rasbt_instruction/instruction-data-with-preference.json": ("preference", 1100),
    "tinystories_1000/tinystories_1000.json.gz": ("text", 1000),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_recognised_and_every_row_is_read(name: str, shared: Path) -> None:
    rows = list(load(str(shared / "data" / name)))
    layout = layout_of(rows[:200])
    assert (layout.format.name, len(rows)) == REAL[name]
    made = [layout.read(one) for one in rows]
    if layout.format.name in ("preference", "kto_messages"):
        assert all(said[0].weight == 0.0 and said[-1].weight is None for one in made for said in one.conversations)


def test_tool_calls_of_real_data_are_calls(shared: Path) -> None:
    rows = list(load(str(shared / "data" / "llamafactory_demos" / "glaive_toolcall_en_demo.json")))
    layout = layout_of(rows)
    said = [one for made in map(layout.read, rows) for one in made.conversations[0]]
    calls = [call for one in said for call in one.tool_calls]
    assert len(calls) == sum(one.role == "tool" for one in said) == 211
    assert all(isinstance(call["function"]["arguments"], Mapping) for call in calls)


def test_real_questions_without_answers_are_refused(shared: Path) -> None:
    for path in sorted((shared / "data" / "instruction_wild").glob("*.jsonl")):
        rows = list(load(str(path), skip_bad=True))
        with fault("D010", what="the answers are missing", where=path.name):
            layout_of(rows)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_no_answer(value: float) -> None:
    with fault("D007", where="rows.jsonl:7", what="empty cell"):
        example(question="How much?", answer=value)
