"""Certificates replayed on servers: right ones pass, and what is wrong with the others is called by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from hone.core.errors import HoneError
from hone.export.proof.diagnose import Cause
from hone.export.proof.endpoint import Server, verify_endpoint
from hone.export.proof.golden import Golden, Vector
from tests.export.desk import desk

Change = Callable[[Vector, dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """The certificate of the small base that comes along: it stops by itself, and says things."""
    from hone.demo import SEEDLING
    from tests.export.kit import tune

    return tune(SEEDLING, tmp_path_factory.mktemp("run"), rank=4)


def serving(golden: Golden, change: Change) -> Any:
    """A server that answers each probe as the certificate says, after `change`."""
    by_prompt = {json.dumps(v.messages) if v.messages else v.text: v for v in golden.vectors}

    def answer(method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": [{"id": "tuned"}]}
        asked = json.loads(body)
        vector = by_prompt[json.dumps(asked["messages"]) if "messages" in asked else asked["prompt"]]
        logps = vector.logp_PK[-len(vector.answer) :, 0].tolist()
        said = {"text": vector.answer_text, "tokens": len(vector.written), "finish": "stop" if vector.stopped else "length", "logps": logps}
        said = change(vector, said)
        choice: dict[str, Any] = {"finish_reason": said["finish"]}
        if "messages" in asked:
            choice |= {"message": {"content": said["text"]}, "logprobs": {"content": [{"logprob": x} for x in said["logps"]]}}
        else:
            choice |= {"text": said["text"], "logprobs": {"token_logprobs": said["logps"]}}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": said["tokens"]}}

    return desk(answer)


CASES: dict[str, tuple[list[Cause], Change]] = {
    "the same": ([], lambda v, said: said),
    "one token more": ([Cause.WRONG_TEMPLATE], lambda v, said: said | {"tokens": said["tokens"] + 1}),
    "many tokens more": ([Cause.WRONG_TEMPLATE], lambda v, said: said | {"tokens": said["tokens"] + 9, "text": "?"}),
    "goes on after the end": ([Cause.WRONG_STOP], lambda v, said: said | {"text": said["text"] + " and on"} if v.stopped else said),
    "shows its end": ([Cause.MISSING_EOS], lambda v, said: said | {"text": said["text"] + "<|im_end|>\nuser"} if v.stopped else said),
    "stops early": ([Cause.WRONG_STOP], lambda v, said: said | {"text": said["text"][:3], "finish": "stop"}),
    "another model": ([Cause.OTHER], lambda v, said: said | {"text": "I am another model."}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_server_is_told_what_is_wrong(case: str, golden: Golden) -> None:
    causes, change = CASES[case]
    if not any(vector.stopped for vector in golden.vectors) and case in ("goes on after the end", "shows its end"):
        golden = Golden(golden.about, tuple(_stopped(v) for v in golden.vectors))
    with serving(golden, change) as server:
        verdict = verify_endpoint(golden, Server(server.url + "/v1"))
    assert [finding.cause for finding in verdict.findings] == causes


def _stopped(vector: Vector) -> Vector:
    from dataclasses import replace

    return replace(vector, stopped=True)


def test_bos_is_counted(golden: Golden) -> None:
    for first, cause in ((5, Cause.DOUBLE_BOS), (None, Cause.ADDED_BOS)):
        about = golden.about | {"bos": 5}
        vectors = tuple(_with_first(v, first) for v in golden.vectors)
        made = Golden(about, vectors)
        with serving(made, lambda v, said: said | {"tokens": said["tokens"] + 1}) as server:
            assert [f.cause for f in verify_endpoint(made, Server(server.url)).findings] == [cause]


def _with_first(vector: Vector, first: int | None) -> Vector:
    from dataclasses import replace

    return replace(vector, written=[first, *vector.written]) if first is not None else vector


def test_a_server_that_cannot_be_asked() -> None:
    with pytest.raises(HoneError) as caught:
        Server("http://127.0.0.1:9")
    assert caught.value.code == "F046"
    with desk(lambda *_: (500, {"error": "no"})) as server, pytest.raises(HoneError) as caught:
        Server(server.url)
    assert "500" in caught.value.what
