"""From files to groups: every row accounted for, nothing leaks, nothing is learned that should not be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hone.core.config import parse
from hone.core.types import Group, Origin
from hone.data.chat import ChatTemplate
from hone.data.prepare import Prepared, prepare
from hone.data.settings import DataSettings
from tests.data.kit import asked, chat, fault, jsonl

Prepare = Callable[..., Prepared]


@pytest.fixture
def prepared(tiny_tokenizer: PreTrainedTokenizerFast) -> Prepare:
    """`prepared(file, **settings)` with the tiny ChatML tokenizer; `shape` and `context` go to `prepare` itself."""
    template = ChatTemplate.of(tiny_tokenizer)

    def run(train: Any, *, shape: Any = "single", context: int | None = None, **values: Any) -> Prepared:
        made = parse(DataSettings, {"train": str(train) if isinstance(train, Path) else train, **values}, section="data")
        return prepare(made, tiny_tokenizer, template, shape=shape, context=context)

    return run


def learned_text(tokenizer: PreTrainedTokenizerBase, group: Group) -> list[str]:
    """What each sequence of a group teaches."""
    return [tokenizer.decode([t for t, w in zip(one.tokens, one.weights, strict=True) if w]) for one in group]


def notices(made: Prepared) -> dict[str, int]:
    return {notice.code: notice.rows for notice in made.notices}


def test_answers_and_their_end_are_learned_and_nothing_else(
    prepared: Prepare, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    made = prepared(jsonl(tmp_path / "a.jsonl", asked(20)), held_out=0)
    assert learned_text(tiny_tokenizer, made.groups[3]) == ["It is 4.<|im_end|>"]
    assert made.groups[3][0].origin == Origin(str(tmp_path / "a.jsonl"), 4)
    assert made.ledger.tokens("trained") == sum(one.learned for group in made.groups for one in group)
    assert made.describe() == [f"{tmp_path / 'a.jsonl'}: 20 rows, question_answer: question -> user, answer -> answer"]


def test_the_same_conversation_in_any_shape_gives_the_same_tokens_and_weights(prepared: Prepare, tmp_path: Path) -> None:
    said = [chat(f"Question {i}?", f"Answer {i}.", f"And {i}?", f"Also {i}.") for i in range(8)]
    names = {"user": "human", "assistant": "gpt"}
    shapes: dict[str, Iterable[Mapping[str, Any]]] = {
        "messages": [{"messages": one} for one in said],
        "sharegpt": [{"conversations": [{"from": names[m["role"]], "value": m["content"]} for m in one]} for one in said],
        "alpaca": [{"instruction": c["content"], "output": d["content"], "history": [[a["content"], b["content"]]]} for a, b, c, d in said],
        "exchanges": [
            {"conversation": [{"input": a["content"], "output": b["content"]}, {"input": c["content"], "output": d["content"]}]}
            for a, b, c, d in said
        ],
        "completion": [{"prompt": one[:1], "completion": one[1:]} for one in said],
    }
    made = {name: prepared(jsonl(tmp_path / f"{name}.jsonl", rows), held_out=0) for name, rows in shapes.items()}
    assert len({one.fingerprint for one in made.values()}) == 1
    assert {layout.format.name for one in made.values() for layout in one.layouts.values()} == {
        "messages",
        "sharegpt",
        "alpaca",
        "exchanges",
        "prompt_completion",
    }


def test_it_is_deterministic_and_the_seed_only_chooses_what_is_held_out(prepared: Prepare, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", asked(100))
    one, two, other = prepared(path), prepared(path), prepared(path, seed=7)
    assert (one.fingerprint, one.split, list(one.groups)) == (two.fingerprint, two.split, list(two.groups))
    assert one.split != other.split
    assert (len(one.groups), len(one.held_out)) == (90, 10)
    assert one.sources == [{"source": str(path), "rows": 100, "sha256": one.sources[0]["sha256"]}]
    path.write_text(path.read_text().replace("It is 5.", "It is five."))
    assert prepared(path).fingerprint != one.fingerprint


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompts=st.lists(
        st.sampled_from("Tell me a joke please|tell me a joke, please!|What time is it now?|Where is the old harbour|Bye".split("|")),
        min_size=4,
    )
)
def test_no_prompt_stands_on_both_sides(prepared: Prepare, tmp_path: Path, prompts: list[str]) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"prompt": prompt, "completion": f"Answer {i}"} for i, prompt in enumerate(prompts)])
    made = prepared(path, held_out=0.4)
    sides = [
        {prompts[group[0].origin.row - 1].lower().replace(",", "").rstrip("!") for group in side} for side in (made.groups, made.held_out)
    ]
    assert not sides[0] & sides[1]
    assert len(made.held_out) <= round(0.4 * len(prompts))
    assert len(made.groups) + len(made.held_out) == len(prompts) == made.ledger.rows("trained") + made.ledger.rows("held_out")


def test_rows_added_later_leave_the_held_out_ones_where_they_are(prepared: Prepare, tmp_path: Path) -> None:
    rows = asked(200)
    few = {group[0].origin.row for group in prepared(jsonl(tmp_path / "a.jsonl", rows[:180])).held_out}
    many = {group[0].origin.row for group in prepared(jsonl(tmp_path / "a.jsonl", rows)).held_out}
    assert len(few & many) >= 0.8 * len(few)


def test_a_held_out_source_is_read_and_its_overlap_is_reported(prepared: Prepare, tmp_path: Path) -> None:
    rows = asked(30)
    aside = [
        {"question": rows[3]["question"].upper() + " ", "answer": "Something else."},
        *asked(3, answer="x")[1:2],
        {"question": "New?", "answer": "y"},
    ]
    made = prepared(jsonl(tmp_path / "a.jsonl", rows), held_out=str(jsonl(tmp_path / "b.jsonl", aside)))
    assert (len(made.groups), len(made.held_out)) == (30, 3)
    assert notices(made)["D030"] == 2
    assert made.ledger.rows("held_out") == 3
    assert [source["rows"] for source in made.sources] == [30, 3]


def test_a_file_cannot_be_trained_on_and_held_out_nor_be_listed_twice(prepared: Prepare, tmp_path: Path) -> None:
    path = str(jsonl(tmp_path / "a.jsonl", asked(5)))
    with fault("D038", where="a.jsonl"):
        prepared(path, held_out=path)
    with fault("D038", fix="weight"):
        prepared([path, path])


def test_every_row_has_one_fate_and_the_numbers_add_up(prepared: Prepare, tmp_path: Path) -> None:
    rows: list[Any] = [
        *asked(6),
        {"question": "Hm?", "answer": ""},
        {"question": "Hm? " * 200, "answer": "x"},
        {"question": "Say much.", "answer": "word " * 300},
    ]
    path = jsonl(tmp_path / "a.jsonl", rows)
    path.write_text(path.read_text() + "\nnot json\n", "utf-8")
    made = prepared(path, held_out=0, max_length=100, skip_bad=True)
    fates = {row: made.ledger.fate(Origin(str(path), row)) for row in range(1, 12)}
    assert [fates[row] and fates[row].kind for row in (1, 7, 8, 9, 10, 11)] == [
        "trained",
        "dropped",
        "dropped",
        "truncated",
        None,
        "dropped",
    ]
    reasons = {"D027 The answer is empty", "D028 The prompt alone fills max_length", "D001 A line is not valid JSON"}
    assert set(made.ledger.reasons("dropped")) == reasons
    assert made.ledger.to_json()["total"] == 10
    long = made.groups[6][0]
    assert len(long.tokens) == 100
    assert fates[9] is not None
    assert fates[9].tokens == long.learned
    assert {"D027", "D028", "D001"} <= set(notices(made))


def test_faults_that_leave_no_doubt_are_left_out_and_others_stop_with_all_their_numbers(prepared: Prepare, tmp_path: Path) -> None:
    bad = [
        {"messages": said}
        for said in (
            [],
            chat("Hi"),
            [{"role": "owl", "content": "x"}],
            [{"role": "user", "content": None}],
            [{"role": "owl", "content": "y"}],
        )
    ]
    path = jsonl(tmp_path / "a.jsonl", [*({"messages": chat(f"Question {i}?", "Yes.")} for i in range(10)), *bad])
    with fault("D024", where="a.jsonl:13, message 1", what="2 more rows cannot be used (1 x D022, 1 x D024)"):
        prepared(path)
    made = prepared(path, skip_bad=True, held_out=0)
    assert Counter(reason.split()[0] for reason in made.ledger.reasons("dropped")) == Counter(["D020", "D021", "D022", "D024"])
    assert made.ledger.rows("dropped") == 5


@pytest.mark.parametrize(
    ("row", "code", "fix"),
    [
        ({"messages": []}, "D020", ""),
        ({"messages": chat("Nobody answers")}, "D021", ""),
        ({"prompt": "Say nothing.", "completion": ""}, "D027", ""),
        ({"prompt": "word " * 100, "completion": "x"}, "D028", "data.max_length="),
        ({"messages": [*chat("Hi"), {"role": "assistant", "content": "Hello", "weight": 0}]}, "D029", "data.learn"),
    ],
)
def test_where_no_row_is_left_the_run_stops_before_training_and_says_why(
    prepared: Prepare, tmp_path: Path, row: Any, code: str, fix: str
) -> None:
    path = jsonl(tmp_path / "a.jsonl", [row] * 3)
    with fault(code, where="a.jsonl:1", what="no row is left to learn from; 3 times", fix=fix):
        prepared(path, max_length=64)


def test_rows_whose_author_wants_nothing_learned_are_masked(prepared: Prepare, tmp_path: Path) -> None:
    silent = {"messages": [*chat("Hi"), {"role": "assistant", "content": "Hello", "weight": 0}]}
    made = prepared(jsonl(tmp_path / "a.jsonl", [{"messages": chat("Hi there", "Hello")}] * 9 + [silent]), held_out=0)
    assert made.ledger.rows("masked") == 1
    assert made.ledger.fate(Origin(str(tmp_path / "a.jsonl"), 10)) is not None
    assert len(made.groups) == 9


def test_the_length_that_would_save_the_rows_is_named_and_saves_them(prepared: Prepare, tmp_path: Path) -> None:
    rows = [*asked(8), {"question": "word " * 50, "answer": "x"}, {"question": "word " * 90, "answer": "x"}]
    path = jsonl(tmp_path / "a.jsonl", rows)
    made = prepared(path, held_out=0, max_length=64)
    (notice,) = [notice for notice in made.notices if notice.code == "D028"]
    assert notice.rows == 2
    needed = int(notice.text.split("data.max_length=")[1].split()[0])
    assert prepared(path, held_out=0, max_length=needed).ledger.rows("dropped") == 0
    assert prepared(path, held_out=0, max_length=needed - 1).ledger.rows("dropped") == 1


@pytest.mark.parametrize(
    ("overflow", "kinds", "groups"),
    [("truncate", {"truncated": 1, "trained": 3}, 4), ("drop", {"dropped": 1, "trained": 3}, 3), ("split", {"trained": 4}, 8)],
)
def test_the_policy_for_long_rows_is_followed(prepared: Prepare, tmp_path: Path, overflow: str, kinds: dict[str, int], groups: int) -> None:
    path = jsonl(tmp_path / "a.jsonl", [*asked(3), {"question": "Count!", "answer": " ".join(map(str, range(150)))}])
    made = prepared(path, held_out=0, max_length=128, overflow=overflow)
    assert {kind: made.ledger.rows(kind) for kind in kinds} == kinds  # type: ignore[arg-type]
    assert len(made.groups) == groups
    assert all(len(one.tokens) <= 128 for group in made.groups for one in group)
    with fault("D033", where="a.jsonl:4"):
        prepared(path, held_out=0, max_length=128, overflow="error", skip_bad=True)


def test_raw_text_is_learned_whole_to_its_end_and_split_not_cut(
    prepared: Prepare, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("The harbour opens at six. " * 40)
    made = prepared(tmp_path / "a.txt", held_out=0, max_length=50)
    pieces = [group[0] for group in made.groups]
    assert len(pieces) > 3
    tokens = pieces[0].tokens + [token for piece in pieces[1:] for token in piece.tokens[1:]]
    assert tiny_tokenizer.decode(tokens) == ("The harbour opens at six. " * 40).strip() + "<|im_end|>"
    assert made.ledger.tokens("trained") == len(tokens) - 1
    assert made.ledger.rows("truncated") == 0


def test_control_tokens_in_raw_text_stay_text(prepared: Prepare, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    made = prepared(jsonl(tmp_path / "a.jsonl", [{"text": "A trap: <|im_end|> and on."}] * 3), held_out=0)
    tokens = made.groups[0][0].tokens
    assert tokens.count(tiny_tokenizer.eos_token_id) == 1
    assert tokens[-1] == tiny_tokenizer.eos_token_id
    assert tiny_tokenizer.decode(tokens[:-1]) == "A trap: <|im_end|> and on."


def test_weights_repeat_and_thin_out_rows_and_the_origin_is_kept(prepared: Prepare, tmp_path: Path) -> None:
    one, two = (
        jsonl(tmp_path / f"{name}.jsonl", [{"question": f"{name} {i}?", "answer": "Yes."} for i in range(40)]) for name in ("one", "two")
    )
    sources = [{"path": str(one), "weight": 2.5}, {"path": str(two), "weight": 0.5}]
    made = prepared(sources, held_out=0.1)
    seen = Counter(group[0].origin for group in made.groups)
    assert {origin.source for origin in seen} == {str(one), str(two)}
    assert {count for origin, count in seen.items() if origin.source == str(one)} == {2, 3}
    assert {count for origin, count in seen.items() if origin.source == str(two)} == {1}
    assert sum("not drawn" in reason and count for reason, count in made.ledger.reasons("dropped").items()) == 20
    assert made.ledger.to_json()["total"] == 80
    assert made.ledger.tokens("trained") == sum(one.learned for group in made.groups for one in group)
    held = [group[0].origin for group in made.held_out]
    assert len(held) == len(set(held)) == 6
    assert not set(held) & set(seen)


def test_pairs_and_labels_are_what_the_objective_asks_for(
    prepared: Prepare, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    pairs = jsonl(tmp_path / "pairs.jsonl", [{"prompt": f"Question {i}?", "chosen": "Yes, please.", "rejected": "No."} for i in range(10)])
    made = prepared(pairs, shape="pair", held_out=0)
    assert learned_text(tiny_tokenizer, made.groups[0]) == ["Yes, please.<|im_end|>", "No.<|im_end|>"]
    assert made.ledger.tokens("trained") == sum(one.learned for group in made.groups for one in group)
    assert learned_text(tiny_tokenizer, prepared(pairs, held_out=0).groups[0]) == ["Yes, please.<|im_end|>"]
    labels = jsonl(tmp_path / "labels.jsonl", [{"prompt": f"Question {i}?", "completion": f"{i}.", "label": i % 2 == 0} for i in range(10)])
    assert [group[0].facts["label"] for group in prepared(labels, shape="label", held_out=0).groups] == [1.0, 0.0] * 5
    only_good = prepared(labels, held_out=0)
    assert [group[0].origin.row for group in only_good.groups] == [1, 3, 5, 7, 9]
    assert only_good.ledger.reasons("dropped") == {"D036 The objective cannot use this row": 5}
    with fault("D036", where="labels.jsonl:1", what="two answers"):
        prepared(labels, shape="pair")
    with fault("C004", where="data.overflow"):
        prepared(pairs, shape="pair", overflow="split")


def test_the_system_prompt_of_the_run_stands_where_there_is_none(
    prepared: Prepare, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows = [{"messages": chat("Hi", "Hello")}, {"messages": chat("Hi!!", "Hello", system="Its own.")}]
    made = prepared(jsonl(tmp_path / "a.jsonl", rows), held_out=0, system="Be kind.")
    texts = [tiny_tokenizer.decode(group[0].tokens) for group in made.groups]
    assert ["Be kind." in text for text in texts] == [True, False]
    assert ["Its own." in text for text in texts] == [False, True]


def test_the_models_context_lowers_the_limit_with_a_notice(prepared: Prepare, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [*asked(9), {"question": "Count!", "answer": " ".join(map(str, range(150)))}])
    made = prepared(path, context=64, held_out=0)
    assert max(len(one.tokens) for group in made.groups for one in group) == 64
    assert "M002" in notices(made)
    assert "M002" not in notices(prepared(path, context=64, max_length=64, held_out=0))


def test_advice_on_few_rows_repeated_rows_and_lopsided_labels(prepared: Prepare, tmp_path: Path) -> None:
    made = prepared(jsonl(tmp_path / "few.jsonl", [*asked(4), *asked(1)]), held_out=0)
    assert notices(made)["D032"] == 1
    assert notices(made)["D035"] == 1
    labels = [{"sentence": f"Headline number {i}", "label": "bad" if i == 0 else "good"} for i in range(40)]
    assert "'good' has 39 rows and 'bad' 1" in str(prepared(jsonl(tmp_path / "l.jsonl", labels), held_out=0).notices)
    same = [{"sentence": f"Headline number {i}", "label": "good"} for i in range(40)]
    assert "all rows have the same label, 'good'" in str(prepared(jsonl(tmp_path / "s.jsonl", same), held_out=0).notices)
    fine = [{"sentence": f"Headline number {i}", "label": "bad" if i % 2 else "good"} for i in range(200)]
    assert prepared(jsonl(tmp_path / "f.jsonl", fine)).notices == []


def test_remarks_and_mended_turns_are_told_with_their_numbers(prepared: Prepare, tmp_path: Path) -> None:
    rows = [
        *({"messages": chat(f"Question {i}?", f"Yes, {i}.", "And?")} for i in range(3)),
        *({"messages": chat(f"Other {i}?", f"Yes, {i}.")} for i in range(120)),
    ]
    path = jsonl(tmp_path / "a.json", rows)
    made = prepared(path)
    assert [str(notice) for notice in made.notices] == [
        f"D026: the last turn is not an answer: the tail was cut off (3 rows, first {path}:1)",
        f"D039: {path}: it is called .json and holds JSON lines",
    ]


def narrow_tokenizer(letters: str, *, unknown: bool) -> PreTrainedTokenizerFast:
    """One token a letter; other letters become <unk>, or nothing at all."""
    from tokenizers import Tokenizer, models

    vocabulary = {token: i for i, token in enumerate(["<unk>", "<eos>", *letters])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>" if unknown else None))
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", **({"unk_token": "<unk>"} if unknown else {}))
    made.chat_template = "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}<eos>{% endif %}{% endfor %}"
    return made


@pytest.mark.parametrize("unknown", [True, False])
def test_text_that_the_tokenizer_cannot_write_is_left_out_or_refused(unknown: bool, tmp_path: Path) -> None:
    tokenizer = narrow_tokenizer("abcdefghijklmnopqrstuvwxyz .?", unknown=unknown)
    template = ChatTemplate.of(tokenizer)

    def run(rows: list[Mapping[str, Any]]) -> Prepared:
        path = jsonl(tmp_path / "a.jsonl", rows)
        return prepare(DataSettings(train=str(path), held_out=0.0), tokenizer, template)

    good = [
        {"question": f"what is {chr(97 + i % 26)} and {chr(97 + i // 26)}?", "answer": "that is a letter of the old kind."}
        for i in range(100)
    ]
    made = run([*good, {"question": "what is é?", "answer": "a letter"}, {"question": "a tab\tand a line\n?", "answer": "yes"}])
    # A tab that vanishes does no harm; one that becomes the unknown token would be learned as that.
    assert made.ledger.reasons("dropped") == {"D034 The tokenizer cannot write this text": 2 if unknown else 1}
    assert "the tokenizer cannot write 'é' (1)" in str(made.notices)
    assert len(made.groups) == (100 if unknown else 101)
    with fault("D034", where="a.jsonl", what="'中' (10)", fix="model whose tokenizer"):
        run([*good[:10], *({"question": f"what is 中 {one['answer']}", "answer": "x"} for one in good[:10])])


def test_a_tokenizer_with_bytes_to_fall_back_to_can_write_everything(prepared: Prepare, tmp_path: Path) -> None:
    made = prepared(jsonl(tmp_path / "a.jsonl", [{"question": "你好 é 😀 <unk>", "answer": "𐎀"}] * 12), held_out=0)
    assert made.ledger.rows("dropped") == 0


def test_settings_are_strict() -> None:
    for values, code in (
        ({"train": "x", "max_lenght": 5}, "C002"),
        ({"train": "x", "held_out": 1.5}, "C001"),
        ({"train": "x", "overflow": "cut"}, "C001"),
    ):
        with fault(code, where="data."):
            parse(DataSettings, values, section="data")
