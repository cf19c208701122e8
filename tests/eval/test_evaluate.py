"""From rows to scores: what is asked, what is measured, and what two models' scores on the same questions say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from hone.core.errors import HoneError
from hone.core.types import Conversation, Example, Message, Origin, Sequence
from hone.data.batching import pack
from hone.data.chat import ChatTemplate
from hone.eval.evaluate import TEXT_TASK, Evaluation, by_function, by_model, compare, evaluate
from hone.eval.likelihood import likelihood
from hone.eval.questions import questions
from hone.models.policy import Policy
from hone.report.scores import read_scores
from hone.rollout.sample import Sampler
from hone.tuning.base import Untouched


def row(question: str, answer: str, number: int = 1, **columns: Any) -> Example:
    return Example(
        conversations=((Message("user", question), Message("assistant", answer)),), columns=columns, origin=Origin("rows", number)
    )


ROWS = [
    *(row(f"Is {i} even?", "yes" if i % 2 == 0 else "no", i, task="parity") for i in range(20)),
    *(row(f"What is {i} + 1?", f"It is {i + 1}.", 100 + i, task="sums") for i in range(10)),
]


def knows(right: int, *, wrong: str = "no") -> Any:
    """A model that answers the first questions of each task right, and then always the same."""

    def fn(history: Conversation) -> str:
        asked = history[-1].content
        found = next(one for one in ROWS if one.conversations[0][0].content == asked)
        task = [one for one in ROWS if one.columns["task"] == found.columns["task"]]
        return found.conversations[0][1].content if task.index(found) < right else wrong

    return by_function(fn)


def values(evaluation: Evaluation) -> dict[tuple[str, str], float]:
    return {(line["task"], line["metric"]): line["value"] for line in evaluation.tasks()}


def test_each_answer_of_a_conversation_is_asked_after_the_reference_before_it() -> None:
    talk = (
        Message("system", "Be kind."),
        Message("user", "Hello"),
        Message("assistant", "Good day"),
        Message("user", "Bye"),
        Message("assistant", "not this one", weight=0),
        Message("user", "Bye!"),
        Message("assistant", "Farewell"),
    )
    asked = list(questions([Example(conversations=(talk, talk[:3])), Example(text="raw"), Example(conversations=(talk[:2],))]))
    assert [(one.expected, one.history, one.turn) for one in asked] == [("Good day", talk[:2], 2), ("Farewell", talk[:6], 6)]
    assert asked[1].prompt == "Bye!"


def test_label_tasks_get_accuracy_and_f1_and_the_others_exact_match() -> None:
    found = values(evaluate(knows(10), ROWS))
    assert found == pytest.approx({
        ("parity", "accuracy"): 15 / 20,
        ("parity", "macro_f1"): (2 * 5 / 15 + 2 * 10 / 25) / 2,
        ("sums", "exact_match"): 1.0,
    })  # fmt: skip


def test_metrics_can_be_chosen() -> None:
    found = values(evaluate(knows(6, wrong="It is 4"), ROWS, metrics=["exact_match", "number", "contains"]))
    assert found["parity", "exact_match"] == 6 / 20
    assert found["sums", "number"] == 6 / 10
    assert ("parity", "accuracy") not in found
    both = values(evaluate(knows(6), ROWS, metrics=["auto", "exact_match"]))
    assert both["parity", "exact_match"] == pytest.approx(6 / 20 + 7 / 20)
    assert ("parity", "accuracy") in both


def test_intervals_hold_the_value_and_are_of_the_right_kind() -> None:
    for line in evaluate(knows(7), ROWS).tasks():
        assert 0 <= line["low"] <= line["value"] <= line["high"] <= 1
        assert line["low"] < line["high"]
        assert line["n"] == (20 if line["task"] == "parity" else 10)


def test_a_limit_asks_a_seeded_choice() -> None:
    def asked(seed: int) -> list[str]:
        return [one.prompt for one in evaluate(knows(9), ROWS, max_questions=12, seed=seed).outcomes]

    assert len(asked(0)) == 12
    assert asked(0) == asked(0) != asked(1)
    assert asked(0) != [one.conversations[0][0].content for one in ROWS[:12]]


def test_a_comparison_is_made_question_by_question() -> None:
    before, after = evaluate(knows(2), ROWS), evaluate(knows(9), ROWS)
    found = compare(before, after)
    sums = next(line for line in found["tasks"] if line["task"] == "sums")
    assert (sums["n"], sums["before"]["value"], sums["after"]["value"]) == (10, 0.2, 0.9)
    assert sums["difference"]["value"] == pytest.approx(0.7)
    assert 0.3 <= sums["difference"]["low"] < 0.7 < sums["difference"]["high"] <= 1
    assert {(one["task"], one["before"], one["after"]) for one in found["samples"]} >= {("sums", "no", "It is 3.")}
    assert compare(after, after)["tasks"][0]["difference"] == {"value": 0, "low": 0, "high": 0}
    scores = read_scores(found)
    assert [(score.task, score.gain) for score in scores if score.task == "sums"] == [("sums", pytest.approx(0.7))]
    json.dumps(found, allow_nan=False)


def test_other_questions_cannot_be_compared() -> None:
    with pytest.raises(HoneError, match="C042"):
        compare(evaluate(knows(2), ROWS), evaluate(knows(2), ROWS[1:]))


def test_an_evaluation_survives_being_saved() -> None:
    evaluation = Evaluation(evaluate(knows(5), ROWS).outcomes, 3, torch.rand(4, 3).double().numpy())
    saved = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    again = Evaluation.of_json(saved)
    assert again.tasks() == evaluation.tasks() == saved["tasks"]
    assert again.left_out == 3
    assert compare(again, evaluation)["tasks"][0]["difference"]["high"] == 0


def test_the_users_own_grader(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def grade(answer, expected, columns):\n    return len(answer) / 10\n")
    found = values(evaluate(knows(0, wrong="abcd"), ROWS, metrics=[f"{tmp_path}/own.py:grade"]))
    assert list(found.values()) == pytest.approx([0.4, 0.4])


@pytest.fixture
def policy(tiny_llama: Any) -> Policy:
    return Policy.of(tiny_llama(), Untouched())


def test_a_model_answers_through_its_template(policy: Policy, tiny_tokenizer: Any) -> None:
    sampler, template = Sampler(policy.model, tiny_tokenizer), ChatTemplate.of(tiny_tokenizer)
    answerer = by_model(sampler.generate, template, max_new_tokens=6, context=sampler.context)
    rows = [*ROWS[:3], row("long " * 300, "never asked")]
    found = evaluate(answerer, rows)
    assert (len(found.outcomes), found.left_out) == (3, 1)
    for one, source in zip(found.outcomes, rows, strict=False):
        (direct,) = sampler.generate([template.prompt_ids(source.conversations[0][:1])], max_new_tokens=6, stop_ids=template.stop_ids)
        assert (one.answer, one.stopped) == (direct.text, direct.stop_reason == "stop")
    stopped = found.stopped()
    assert stopped is not None
    assert stopped.value == sum(one.stopped for one in found.outcomes if one.stopped) / 3
    assert found.to_json()["stopped"]["low"] <= stopped.value


def test_likelihood_against_the_model_itself(policy: Policy, tiny_tokenizer: Any) -> None:
    texts = ["The harbour of the town", "für 3 €", "When does the next ship leave?"]
    groups = []
    for i, text in enumerate(texts):
        tokens = tiny_tokenizer.encode(text)
        groups.append((Sequence(tokens, [float(j > i) for j in range(len(tokens))], origin=Origin("rows", i + 1)),))
    rows = likelihood(policy, tiny_tokenizer, groups, budget=16)
    found = {line["metric"]: line["value"] for line in Evaluation(likelihood=rows).tasks() if line["task"] == TEXT_TASK}
    surprise, learned, size = 0.0, 0, 0
    for (one,) in groups:
        with torch.no_grad(), torch.random.fork_rng():
            logp = policy.signals(pack([(Sequence(one.tokens, [0.0] + [1.0] * (len(one.tokens) - 1)),)]), "logp").logp
        kept = [j for j in range(1, len(one.tokens)) if one.weights[j]]
        surprise -= sum(logp[j - 1].item() for j in kept)
        learned += len(kept)
        size += len(tiny_tokenizer.decode([one.tokens[j] for j in kept]).encode())
    assert found["loss"] == pytest.approx(surprise / learned, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(surprise / learned), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(surprise / math.log(2) / size, rel=1e-5)


def test_sequences_without_anything_learned_and_special_tokens_have_no_bytes(policy: Policy, tiny_tokenizer: Any) -> None:
    rows = likelihood(policy, tiny_tokenizer, [(Sequence([5, 6], [1.0, 0.0]),), (Sequence([5, 1], [0.0, 1.0]),)])
    assert rows.shape == (1, 3)
    assert rows[0, 2] == 0
    assert likelihood(policy, tiny_tokenizer, []).shape == (0, 3)
    assert Evaluation().tasks() == []
    assert Evaluation().stopped() is None
