"""The town is the same for everybody, big enough, true to itself, and its splits do not leak."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from hone.demo.town import Document, Town, papers, phrasings
from hone.demo.town.questions import SIZES, Question

CORPUS = "fb7476fcdd962b5a7af44fa1f48b42414407d18c66f8cdf992e88b9fa5adba06"
"""Hash of the first volume. The shipped seedling read these bytes: a change here means growing it anew."""


@pytest.fixture(scope="module")
def town() -> Town:
    return Town(seed=7)


@pytest.fixture(scope="module")
def documents(town: Town) -> list[Document]:
    return town.documents()


@pytest.fixture(scope="module")
def sentences(documents: list[Document]) -> list[str]:
    return [s for d in documents for s in re.split(r"(?<=[.?])\s|\n", d.text)]


def _hash(texts: list[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def test_same_seed_same_bytes(documents: list[Document]) -> None:
    assert _hash([d.text for d in documents]) == CORPUS


def test_another_seed_is_another_town() -> None:
    one, other = Town(seed=7), Town(seed=8)
    assert one.world.shops != other.world.shops
    assert _hash([d.text for d in one.documents(held_out=True)]) != _hash([d.text for d in other.documents(held_out=True)])


def test_the_corpus_is_large_and_varied(documents: list[Document], sentences: list[str]) -> None:
    assert 2_000_000 < sum(len(d.text) for d in documents) < 4_500_000
    assert len(set(sentences)) > 40_000
    assert len({d.kind for d in documents}) >= 15
    assert all(d.text.startswith(d.title) for d in documents)


def test_volumes_begin_with_the_first_and_then_say_it_in_other_words(town: Town, documents: list[Document]) -> None:
    both = town.documents(volumes=2)
    assert both[: len(documents)] == documents
    again = {d.text for d in both[len(documents) :]} & {d.text for d in documents}
    assert len(again) < 0.01 * len(documents)


def test_held_out_documents_are_not_in_the_corpus(town: Town, documents: list[Document]) -> None:
    unseen = town.documents(held_out=True)
    share = sum(len(d.text) for d in unseen) / sum(len(d.text) for d in documents)
    assert 0.02 < share < 0.04
    assert not {d.text for d in unseen} & {d.text for d in documents}


def test_documents_never_show_the_chat_format(documents: list[Document]) -> None:
    pattern = re.compile(r"<\||\b(user|assistant|system)\b|^(Q|A|Question|Answer):", re.MULTILINE | re.IGNORECASE)
    assert not [d.text for d in documents if pattern.search(d.text)]


def test_every_fact_is_told_often_and_in_many_wordings(town: Town, sentences: list[str]) -> None:
    entities = {e.name: e for e in town.world.entities}
    names = re.compile("|".join(name.removeprefix("the ") for name in entities))
    told: Counter[tuple[str, str]] = Counter()
    wordings: dict[tuple[str, str], set[str]] = defaultdict(set)
    for sentence in sentences:
        about = [entities[f"the {found}"] for found in set(names.findall(sentence))]
        for name, attribute, value in [(e.name, a, v) for e in about for a, v in e.facts().items() if v in sentence]:
            told[name, attribute] += 1
            wordings[name, attribute].add(sentence.replace(name[4:], "_").replace(value, "_"))
    facts = [(e.name, a) for e in entities.values() for a in e.facts()]
    assert len(facts) == 600
    assert min(told[fact] for fact in facts) >= 30
    assert min(len(wordings[fact]) for fact in facts) >= 12


def test_the_values_of_an_entity_are_its_own(town: Town) -> None:
    shops = (*town.world.shops, *town.world.new_shops)
    names = [e.name for e in (*town.world.entities, *town.world.new_shops)]
    people = [s.owner for s in shops] + [s.captain for s in town.world.ships] + list(town.world.townsfolk)
    assert len({name.split()[-1] for name in names}) == len(names)
    assert len(set(people)) == len(people)


def test_sums_and_change_in_the_documents_are_right(documents: list[Document]) -> None:
    text = "\n".join(d.text for d in documents if d.kind in ("sums", "till roll"))
    added = re.findall(r"(?:^|\. )(\d+) (?:\+|and) (\d+) (?:=|make) (\d+)", text, re.MULTILINE)
    bought = re.findall(r"(\d+) coins and an? \w+ (?:for|at|costs) (\d+) coins[^.]*? (\d+) coins", text)
    taken = re.findall(r"(\d+) (?:coins less|-|take away) (\d+) (?:coins leave|=|is) (\d+)", text)
    assert len(added) > 1500
    assert len(bought) > 300
    assert len(taken) > 300
    assert all(int(a) + int(b) == int(c) < 100 for a, b, c in [*added, *bought])
    assert all(int(a) - int(b) == int(c) for a, b, c in taken)


def test_policies_in_the_documents_are_applied_right(documents: list[Document]) -> None:
    text = "\n".join(d.text for d in documents if d.kind == "policy")
    cases = re.findall(r"(\d+) days is (within|more than) (\d+) days", text)
    assert len(cases) > 800
    assert all((int(days) <= int(limit)) == (word == "within") for days, word, limit in cases)
    assert 0.35 < sum(word == "within" for _, word, _ in cases) / len(cases) < 0.65


def test_quotes_in_the_documents_repeat_a_clause_word_by_word(documents: list[Document]) -> None:
    court = [d.text for d in documents if d.kind == "contract"]
    quotes = [(text, k, said) for text in court for k, said in re.findall(r"[Cc]lause (\d) (?:reads|says): ([^.]+\.)", text)]
    assert len(quotes) > 200
    assert all(f"\n{k}. {said}" in text for text, k, said in quotes)


def test_flag_messages_come_back_whole_or_from_one_of_their_words_on(documents: list[Document]) -> None:
    messages = [re.findall(r": (.+)\.$", d.text, re.MULTILINE) for d in documents if d.kind == "flags"]
    assert len(messages) > 500
    assert all(said.endswith(again) and len(again.split()) > 2 for said, *echoes in messages for again in echoes)


def test_every_clause_is_headed_by_its_topic(town: Town) -> None:
    drawn = [papers.contract(random.Random(i), town.world.townsfolk) for i in range(200)]
    assert {topic for paper in drawn for topic in paper.topics} == set(papers.CLAUSES)
    assert all(clause.startswith(f"On the {topic}: ") for p in drawn for topic, clause in zip(p.topics, p.clauses, strict=True))
    assert all(len(set(paper.topics)) == len(paper.topics) for paper in drawn)


def test_the_word_before_a_blank_belongs_to_one_topic() -> None:
    before = [word for said in papers.CLAUSES.values() for word in re.findall(r"(\w+),? \{", said)]
    spoken = Counter(word for said in papers.CLAUSES.values() for word in set(re.findall(r"\w+", re.sub(r"\{.*?\}", "", said))))
    assert {word: spoken[word] for word in before} == dict.fromkeys(before, 1)


@pytest.mark.parametrize("task", SIZES["train"])
def test_held_out_questions_share_neither_entity_nor_frame_with_training(town: Town, task: str) -> None:
    def of(split: str) -> list[Question]:
        return [q for q in town.questions(split) if q.task == task]

    train, unseen = of("train"), of("held_out")
    assert (len(train), len(unseen)) == (SIZES["train"][task], SIZES["held_out"][task])
    assert not {q.entity for q in train} & {q.entity for q in unseen}
    assert not {f for q in train for f in q.frames} & {f for q in unseen for f in q.frames}
    assert not {q.turns[0][0] for q in train} & {q.turns[0][0] for q in unseen}
    asked = "\n".join(q.turns[0][0] + (q.system or "") for q in train)
    if task in ("facts", "support", "sentiment"):
        assert not [q.entity for q in unseen if q.entity.removeprefix("the ") in asked]


def test_held_out_questions_use_only_known_words(town: Town, documents: list[Document]) -> None:
    def words(texts: list[str]) -> set[str]:
        return set(re.findall(r"[A-Za-z]+", " ".join(texts)))

    known = words([d.text for d in documents]) | words([m["content"] for r in town.instructions("train") for m in r["messages"]])
    assert words([m["content"] for r in town.instructions("held_out") for m in r["messages"]]) <= known


def test_no_frame_is_in_both_splits() -> None:
    groups = [phrasings.SENTIMENT, phrasings.SUMS, phrasings.CHANGES]
    groups += [*phrasings.FACTS.values(), *phrasings.CONTRACT.values(), *phrasings.SUPPORT.values()]
    for frames in groups:
        assert len(frames["train"]) >= 8
        assert len(frames["held_out"]) >= 3
        assert not set(frames["train"]) & set(frames["held_out"])


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_answers_follow_from_the_prompt_or_the_town(town: Town, split: str) -> None:
    facts = {e.name: e.facts() for e in town.world.entities}
    questions = town.questions(split)
    assert all(facts[q.entity][q.facts["attribute"]] in q.turns[0][1] for q in questions if q.task == "facts")
    for q in questions:
        if q.task == "contracts":
            _check_contract(q)
        elif q.task == "arithmetic":
            _check_sum(*q.turns[0])
        elif q.task == "support":
            _check_support(q.system or "", q.turns)


def _check_contract(q: Question) -> None:
    user, answer = q.turns[0]
    number, clause = q.facts["k"], q.facts["clause"]
    assert f"\n{number}. {clause}\n" in user
    possible = (clause, f"Clause {number}. {clause}", f"The {q.facts['t']} can be found in clause {number}.")
    assert answer in possible
    assert len(clause.split()) <= 15


def _check_sum(user: str, answer: str) -> None:
    a, b, c = map(int, re.findall(r"\d+", answer))
    assert {str(a), str(b)} == set(re.findall(r"\d+", user))
    assert c == (a - b if "less" in answer else a + b)


POLICY = re.compile(
    r"Policy of .+: ((With a receipt you have (\d+) days) and (get an? \w+)\.) "
    r"((Without a receipt there are only (\d+) days) and (we offer an? \w+)\.) (Delivery costs \d+ coins\.)"
)


def _check_support(policy: str, turns: tuple[tuple[str, str], ...]) -> None:
    found = POLICY.fullmatch(policy)
    assert found is not None
    for user, answer in turns:
        rule, start, limit, outcome = found.group(5, 6, 7, 8) if "no receipt" in user else found.group(1, 2, 3, 4)
        days = re.search(r"(\d+) days", user)
        possible = [rule, found[9]]
        if days is not None:
            so = outcome if outcome.startswith("we") else f"you {outcome}"
            end = f"within {limit} days, so {so}." if int(days[1]) <= int(limit) else f"more than {limit} days, so we must say no."
            possible = [f"{start}. {days[1]} days is {end}"]
        assert answer.removeprefix("Thank you for asking. ") in possible


def test_everything_is_written_as_json_lines(town: Town, tmp_path: Path) -> None:
    files = town.write(tmp_path)
    assert {f.relative_to(tmp_path).as_posix() for f in files if f.suffix == ".jsonl"} == {
        f"{part}/{split}.jsonl"
        for part in ("documents", "instructions", "preferences", "labels", "checkable", "new_facts")
        for split in ("train", "held_out")
    }
    rows = [json.loads(line) for line in (tmp_path / "instructions" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows == town.instructions("train")
    assert len({row["id"] for row in rows}) == len(rows) == 3000
    assert all(row["messages"][-1]["role"] == "assistant" for row in rows)
