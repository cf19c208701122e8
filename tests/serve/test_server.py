"""A real server process driven from outside: by the official client, by raw requests, and by clients that misbehave."""

from __future__ import annotations

import asyncio
import base64
import copy
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from hone.cli.main import main
from hone.core.types import Message
from hone.recipe.certificate import of_opened
from hone.recipe.opening import open_model
from hone.recipe.verifying import verify_server
from hone.rollout.sample import Sampler
from hone.tuning.lora import Lora, lora_layers
from tests.serve.caller import CALL, TOOL, make_caller

pytest.importorskip("fastapi", reason="the server's packages are not installed (pip install 'hone-llm[serve]')")
openai = pytest.importorskip("openai", reason="the official client is not installed")

KEY = "a-key-for-tests"
SHIP = "When does the ship leave?"
QUESTION = [{"role": "user", "content": SHIP}]


class Server(NamedTuple):
    process: subprocess.Popen[bytes]
    port: int

    def client(self) -> Any:
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=KEY, max_retries=0, timeout=60)

    def raw(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, Any]]:
        """A request as it is written here; headers that are given replace the right ones."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        right = {"Host": f"127.0.0.1:{self.port}", "Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        connection.request(method, path, body, right | {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text.startswith(b"{") else {"text": text.decode()}

    def chat(self, **body: Any) -> tuple[int, dict[str, Any]]:
        whole = {"model": "base", "messages": QUESTION, "max_tokens": 4} | body
        return self.raw("POST", "/v1/chat/completions", json.dumps(whole).encode())

    def metric(self, name: str) -> float:
        lines = self.raw("GET", "/metrics")[1]["text"].splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Callable[..., Any], tiny_tokenizer: Any) -> dict[str, Path]:
    """A random model that never ends by itself, an adapter on it, and one that answers everything with a tool call."""
    place = tmp_path_factory.mktemp("models")
    model, generator = tiny_llama(max_position_embeddings=2048), torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    model.lm_head.weight.data[:3] = 0
    model.save_pretrained(place / "base")
    tiny_tokenizer.save_pretrained(place / "base")
    tuning = Lora(rank=4, tokens=(7,))
    tuning.attach(model, seed=0)
    for layer in lora_layers(model).values():
        layer.b.data = 0.3 * torch.randn(layer.b.shape, generator=generator)
    (place / "tuned").mkdir()
    tuning.save(model, place / "tuned", base={"name": str(place / "base")})
    make_caller(place / "caller", tiny_llama(), copy.deepcopy(tiny_tokenizer))
    return {name: place / name for name in ("base", "tuned", "caller")}


@pytest.fixture(scope="module")
def server(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from hone.cli.main import main; raise SystemExit(main())", "serve", *map(str, models.values())]
    said = tmp_path_factory.mktemp("log") / "log"
    with (
        said.open("wb") as log,
        subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log, env=os.environ | {"HONE_API_KEY": KEY}) as process,
    ):
        found, deadline = Server(process, port), time.monotonic() + 120
        while not answers(found):
            assert process.poll() is None and time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
        yield found
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)
    assert "Traceback" not in said.read_text()
    assert KEY not in said.read_text()


def answers(server: Server) -> bool:
    try:
        return server.raw("GET", "/health", Authorization="") == (200, {"status": "ok"})
    except OSError:
        return False


@pytest.fixture(scope="module")
def direct(models: dict[str, Path]) -> Callable[..., str]:
    """What the sampler itself answers."""
    opened = {name: open_model(models[name]) for name in ("base", "tuned")}
    samplers = {name: Sampler(each.policy.model, each.tokenizer) for name, each in opened.items()}

    def answer(name: str, question: str, new: int, **how: Any) -> str:
        template = opened[name].template
        prompt = template.prompt_ids([Message("user", question)])
        (said,) = samplers[name].generate([prompt], max_new_tokens=new, stop_ids=template.stop_ids, **how)
        return said.text

    return answer


def test_models_are_listed_by_name(server: Server) -> None:
    client = server.client()
    assert [model.id for model in client.models.list()] == ["base", "tuned", "caller"]
    assert client.models.retrieve("tuned").root == "base", "a name, and not where it lies"
    with pytest.raises(openai.NotFoundError, match="there is no model 'nobody'") as caught:
        client.chat.completions.create(model="nobody", messages=QUESTION)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("model", ["base", "tuned"])
def test_answers_are_the_samplers_whole_or_in_pieces(server: Server, direct: Callable[..., str], model: str) -> None:
    expected = direct(model, SHIP, 40)
    ask: dict[str, Any] = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 40}
    whole = server.client().chat.completions.create(**ask)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (expected, "length")
    assert whole.usage.completion_tokens == 40
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 40
    chunks = list(server.client().chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage.completion_tokens == 40
    assert len({chunk.id for chunk in chunks}) == 1


def test_base_and_adapter_say_different_things(direct: Callable[..., str]) -> None:
    assert direct("base", SHIP, 40) != direct("tuned", SHIP, 40)


def test_stop_strings_seeds_and_choices(server: Server, direct: Callable[..., str]) -> None:
    client, ask = server.client(), {"model": "base", "messages": QUESTION, "max_tokens": 30}
    free = direct("base", SHIP, 30)
    stopped = client.chat.completions.create(**ask, temperature=0, stop=[free[10:13], "never"]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (free.partition(free[10:13])[0], "stop")
    drawn = [client.chat.completions.create(**ask, seed=seed, n=3, temperature=1.0).choices for seed in (5, 5, 6)]
    texts = [[choice.message.content for choice in choices] for choices in drawn]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) == 3
    assert texts[0][0] == direct("base", SHIP, 30, temperature=1.0, seed=5)


def test_log_probabilities(server: Server) -> None:
    ask = {"model": "base", "temperature": 0, "max_tokens": 8}
    choice = server.client().chat.completions.create(**ask, messages=QUESTION, logprobs=True, top_logprobs=3).choices[0]
    assert len(choice.logprobs.content) == 8
    for entry in choice.logprobs.content:
        assert entry.logprob == pytest.approx(entry.top_logprobs[0].logprob, abs=1e-5)
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 3
        assert bytes(entry.bytes).decode() == entry.token
    text = server.client().completions.create(**ask, prompt="The ship", logprobs=2).choices[0]
    assert len(text.logprobs.tokens) == len(text.logprobs.token_logprobs) == 8
    pieces = list(server.client().completions.create(**ask, prompt="The ship", logprobs=2, stream=True))
    told = [logp for piece in pieces if piece.choices[0].logprobs for logp in piece.choices[0].logprobs.token_logprobs]
    assert told == pytest.approx(text.logprobs.token_logprobs, abs=1e-5)
    assert "".join(piece.choices[0].text for piece in pieces) == text.text


def test_plain_completions_of_texts_and_tokens(server: Server, tiny_tokenizer: Any) -> None:
    ask = {"model": "base", "temperature": 0, "max_tokens": 9}
    found = server.client().completions.create(**ask, prompt=["The ship", "At six"], n=2)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in found.choices]
    assert texts[0] == texts[1] != texts[2] == texts[3]
    assert server.client().completions.create(**ask, prompt=tiny_tokenizer.encode("The ship")).choices[0].text == texts[0]
    assert found.usage.completion_tokens == 36
    assert server.client().completions.create(**ask | {"model": "tuned"}, prompt="The ship").choices[0].text != texts[0]
    assert server.client().embeddings.create(model="tuned", input="The ship").usage.prompt_tokens > 0
    body = json.dumps(ask | {"prompt": "The ship"}).encode()
    assert (
        server.raw("POST", "/v1/completions", body, Content_Type="application/x-www-form-urlencoded")[1]["choices"][0]["text"] == texts[0]
    )


def test_embeddings_are_of_length_one_and_the_same_in_both_codings(server: Server) -> None:
    client, texts = server.client(), ["The ship leaves at six.", "The ship leaves at seven.", "Who said so?"]
    packed = client.embeddings.create(model="base", input=texts)
    plain = client.embeddings.create(model="base", input=texts, encoding_format="float")
    vectors = torch.tensor([each.embedding for each in plain.data])
    torch.testing.assert_close(torch.tensor([each.embedding for each in packed.data]), vectors, rtol=0, atol=1e-6)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    body = {"model": "base", "input": texts[2], "encoding_format": "base64"}
    _, answer = server.raw("POST", "/v1/embeddings", json.dumps(body).encode())
    alone = torch.tensor(struct.unpack("<32f", base64.b64decode(answer["data"][0]["embedding"])))
    torch.testing.assert_close(alone, vectors[2], rtol=0, atol=1e-5)


def test_tools_are_called(server: Server) -> None:
    client, ask = server.client(), {"model": "caller", "messages": QUESTION, "tools": [TOOL], "temperature": 0}
    whole = client.chat.completions.create(**ask).choices[0]
    assert (whole.finish_reason, whole.message.content) == ("tool_calls", None)
    call = whole.message.tool_calls[0]
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == ("function", "weather", {"city": "Rome"})
    chunks = list(client.chat.completions.create(**ask, stream=True))
    streamed = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert [call.function.name for call in streamed] == ["weather"]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    went_on = [*QUESTION, {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]}, result]
    assert client.chat.completions.create(**ask | {"messages": went_on}).choices[0].finish_reason == "tool_calls"
    unasked = client.chat.completions.create(**ask, tool_choice="none").choices[0]
    assert (unasked.message.content, unasked.finish_reason) == (CALL, "stop")
    with pytest.raises(openai.BadRequestError, match="shows the model no tools"):
        client.chat.completions.create(**ask | {"model": "base"})


def test_a_conversation_is_read_once(server: Server) -> None:
    client, ask = server.client(), {"model": "base", "temperature": 0}
    history = [{"role": "user", "content": "When does the ship to the island leave, said the baker?"}]
    first = client.chat.completions.create(**ask, messages=history, max_tokens=20)
    history += [{"role": "assistant", "content": first.choices[0].message.content}, {"role": "user", "content": "And then?"}]
    second = client.chat.completions.create(**ask, messages=history, max_tokens=5)
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens - 1


def test_the_shapes_of_open_webui(server: Server) -> None:
    parts = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": SHIP}]}]
    body = {"stream": True, "model": "base", "messages": parts, "stream_options": {"include_usage": True}, "max_tokens": 5}
    status, answer = server.raw("POST", "/v1/chat/completions", json.dumps(body).encode(), Origin=f"http://localhost:{server.port}")
    events = [line.removeprefix("data: ") for line in answer["text"].splitlines() if line]
    assert (status, events[-1]) == (200, "[DONE]")
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 5
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}]}]
    status, answer = server.chat(messages=image)
    assert (status, answer["error"]["code"]) == (400, "S001")


@pytest.mark.parametrize(
    ("change", "message", "param"),
    [
        ({"messages": []}, "messages: List should have at least 1 item", "messages"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "there is no role 'nobody'", None),
        ({"messages": [{"role": "user"}]}, "null", None),
        ({"temperature": "hot"}, "temperature", "temperature"),
        ({"temperature": 3}, "temperature", "temperature"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "frequency_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format", "response_format"),
        ({"colour": "red"}, "colour: this field is not known here", "colour"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs=true", None),
        ({"max_tokens": 100_000}, "at most 4096 new tokens", "max_tokens"),
        ({"n": 100}, "at most 16 answers", "n"),
        ({"messages": [{"role": "user", "content": "ship " * 3000}]}, "leaves no room in a context of 2048", None),
        ({"tools": [{"type": "function"}]}, "a tool has no name", None),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_reason(server: Server, change: dict[str, Any], message: str, param: str | None) -> None:
    status, answer = server.chat(**change)
    assert status == 400, answer
    assert message in answer["error"]["message"]
    assert (answer["error"]["param"], answer["error"]["type"]) == (param, "invalid_request_error")


@pytest.mark.parametrize("body", [b"{not json", b"[]", b"", b'{"model": "base"}', b"\xff\xfe", b'{"model": ' + b"[" * 5000])
def test_broken_bodies_are_refused(server: Server, body: bytes) -> None:
    status, answer = server.raw("POST", "/v1/chat/completions", body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


def test_a_body_that_is_too_large_is_refused_and_the_server_goes_on(server: Server) -> None:
    status, answer = server.chat(messages=[{"role": "user", "content": "x" * (5 << 20)}])
    assert (status, answer["error"]["code"]) == (400, "request_too_large")
    assert server.raw("GET", "/health")[0] == 200


def test_strangers_are_turned_away(server: Server) -> None:
    with pytest.raises(openai.AuthenticationError):
        server.client().with_options(api_key="wrong").models.list()
    for given in ("", "Basic abc", "Bearer", f"Bearer {KEY}x"):
        assert server.raw("GET", "/v1/models", Authorization=given)[0] == 401
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"):
        assert server.raw(method, "/v1/models", Host="evil.example")[0] == 403
        assert server.raw(method, "/v1/models", Origin="http://evil.example")[0] == 403
        assert server.raw(method, "/v1/models", Origin="null")[0] == 403
        assert server.raw(method, "/health", Sec_Fetch_Site="cross-site")[0] == 403
    assert server.raw("GET", "/v1/models", Host=f"localhost:{server.port}", Origin=f"http://localhost:{server.port}")[0] == 200
    assert server.raw("GET", "/v1/nothing")[1]["error"]["code"] == "unknown_url"
    assert server.raw("DELETE", "/v1/models")[0] == 405


def test_its_answers_are_the_certificates(server: Server, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """`hone verify URL`, with the key from the environment; and another model's answers are told apart."""
    monkeypatch.setenv("HONE_API_KEY", KEY)
    golden = of_opened(open_model(models["base"]), base={"name": "base"})
    verdicts = [verify_server(f"http://127.0.0.1:{server.port}", golden, model=name) for name in ("base", "tuned")]
    assert verdicts[0].passed, verdicts[0].findings
    assert len(verdicts[0].readings) == len(golden.vectors) and verdicts[0].total.worst < 1e-3
    assert not verdicts[1].passed


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "no/such-model", "--port", str(server.port)]) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert "S044" in said and f"--port {server.port + 1}" in said


def test_many_at_once_and_nothing_is_lost(server: Server, direct: Callable[..., str]) -> None:
    asked = [("tuned" if i % 3 == 0 else "base", f"{i}: {SHIP}", 3 + i % 17) for i in range(64)]

    async def all_at_once() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY, max_retries=0, timeout=120) as client:

            async def one(model: str, question: str, new: int) -> str:
                messages = [{"role": "user", "content": question}]
                answer = await client.chat.completions.create(
                    model=model, messages=messages, temperature=0, max_tokens=new, stream=bool(new % 2)
                )
                if new % 2:
                    return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])
                return str(answer.choices[0].message.content)

            return await asyncio.gather(*(one(*each) for each in asked))

    before = server.metric("hone_answers_total")
    assert asyncio.run(all_at_once()) == [direct(*each) for each in asked]
    assert server.metric("hone_answers_total") - before == 64
    assert server.metric("hone_answers_active") == server.metric("hone_answers_waiting") == 0


LEAVES = """
import sys, openai
client = openai.OpenAI(base_url=f"http://127.0.0.1:{sys.argv[1]}/v1", api_key=sys.argv[2], max_retries=0)
ask = {"model": "base", "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 1900, "n": 4}
for chunk in client.chat.completions.create(**ask, stream=True):
    print("one", flush=True)
"""


def test_a_client_that_dies_frees_its_rows(server: Server) -> None:
    before = server.metric("hone_answers_abandoned_total")
    with subprocess.Popen([sys.executable, "-c", LEAVES, str(server.port), KEY], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"one\n"
        client.kill()
    deadline = time.monotonic() + 30
    while server.metric("hone_answers_abandoned_total") == before or server.metric("hone_answers_active"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert 1 <= server.metric("hone_answers_abandoned_total") - before <= 4, "some may have been done before it died"
    assert server.client().chat.completions.create(model="base", messages=QUESTION, max_tokens=2).usage.completion_tokens == 2


def node_modules() -> str | None:
    """A folder from which node finds the npm package openai: HONE_NODE says where it was installed."""
    place, node = os.environ.get("HONE_NODE", str(Path.cwd())), shutil.which("node")
    return place if node is not None and (Path(place) / "node_modules" / "openai").is_dir() else None


@pytest.mark.skipif(node_modules() is None, reason="no npm client here (npm install --prefix FOLDER openai, then HONE_NODE=FOLDER)")
def test_the_npm_client(server: Server, direct: Callable[..., str]) -> None:
    script = ["node", str(Path(__file__).with_name("client.mjs")), f"http://127.0.0.1:{server.port}/v1", KEY, str(node_modules())]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["models"] == ["base", "tuned", "caller"]
    assert said["whole"] == said["streamed"] == direct("base", SHIP, 6)
    assert (said["places"], said["finish"]) == (6, "length")
    assert said["call"]["name"] == "weather" and json.loads(said["call"]["arguments"]) == {"city": "Rome"}
    assert said["refused"] == [404, "model_not_found"] and said["unknown"] == 401
