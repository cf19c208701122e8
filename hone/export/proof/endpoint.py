"""Replays a certificate on a server that speaks OpenAI's protocol: ours, vLLM, llama.cpp's, Ollama."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from hone.core.errors import HoneError
from hone.export.proof.compare import Band, Reading
from hone.export.proof.diagnose import Cause, Finding, Verdict
from hone.export.proof.golden import Golden, Vector

TIMEOUT = 300
LARGEST = 32 << 20
"""Bytes of an answer that are read."""
KEYS = ("HONE_API_KEY", "OPENAI_API_KEY")
"""Where a token may be; it is sent and never shown."""
BAND = Band(worst=0.5, kl=0.0)
"""A server's arithmetic is its own business; what is compared is the log-probability of the tokens that both chose."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a server answered to one probe."""

    text: str
    prompt_tokens: int | None
    finish: str
    logps: tuple[float, ...]


class Server:
    """A server's address and model. Raises F046 where it cannot be reached or does not speak the protocol."""

    def __init__(self, url: str, model: str | None = None) -> None:
        self.root = url.rstrip("/").removesuffix("/v1")
        self.model = model or self._only_model()

    def _only_model(self) -> str:
        listed = [str(entry["id"]) for entry in self._call("/v1/models", None).get("data", []) if "id" in entry]
        if len(listed) != 1:
            raise HoneError(
                "F046", f"the server has {len(listed)} models", where=self.root, fix=f"name one: --model {listed[0] if listed else 'NAME'}"
            )
        return listed[0]

    def ask(self, vector: Vector) -> Heard:
        """The greedy answer to a probe, as long as the certificate's."""
        common = {"model": self.model, "temperature": 0, "max_tokens": len(vector.answer), "stream": False}
        if vector.messages:
            tools = {"tools": vector.tools, "tool_choice": "none"} if vector.tools else {}
            body = common | {"messages": vector.messages, "logprobs": True, "top_logprobs": 1} | tools
            said = self._call("/v1/chat/completions", body)
        else:
            said = self._call("/v1/completions", common | {"prompt": vector.text, "logprobs": 1})
        try:
            return _heard(said)
        except (KeyError, IndexError, TypeError, AttributeError):
            raise HoneError("F046", "the server's answer is not OpenAI's", where=self.root, fix="check the address") from None

    def _call(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        key = next((os.environ[name] for name in KEYS if os.environ.get(name)), None)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = Request(self.root + path, json.dumps(body).encode() if body is not None else None, headers)
        try:
            with urlopen(request, timeout=TIMEOUT) as answer:
                found = json.loads(answer.read(LARGEST))
        except HTTPError as error:
            said = error.read(300).decode("utf-8", "replace")
            raise HoneError(
                "F046", f"{path} answered with HTTP {error.code}: {said}", where=self.root, fix="check the model's name and the token"
            ) from None
        except (URLError, OSError, ValueError) as error:
            raise HoneError(
                "F046", f"{path} cannot be asked ({error})", where=self.root, fix="is the server running at this address?"
            ) from None
        if not isinstance(found, dict):
            raise HoneError("F046", f"{path} answered with something else than an object", where=self.root, fix="check the address")
        return found


def _heard(said: dict[str, Any]) -> Heard:
    choice = said["choices"][0]
    text = choice["message"].get("content") if "message" in choice else choice["text"]
    logs = choice.get("logprobs") or {}
    numbers = [entry["logprob"] for entry in logs["content"]] if logs.get("content") else logs.get("token_logprobs") or []
    prompt = (said.get("usage") or {}).get("prompt_tokens")
    return Heard(text or "", prompt, str(choice.get("finish_reason")), tuple(float(n) for n in numbers if n is not None))


def verify_endpoint(golden: Golden, server: Server) -> Verdict:
    """Ask every probe, and name what is wrong with the answers."""
    verdict = Verdict(f"{server.model} at {server.root}", band=BAND)
    found: Counter[Finding] = Counter()
    for vector in golden.vectors:
        try:
            heard = server.ask(vector)
        except HoneError as error:
            if "HTTP 4" not in error.what or vector.name not in ("system", "tools", "text"):
                raise
            verdict.notes.append(f"the probe '{vector.name}' was refused: {error.what}")
            continue
        finding = _judge(golden, vector, heard)
        if finding is not None:
            found[finding] += 1
        verdict.readings.append(_reading(vector, heard))
    by_cause: dict[Cause, Finding] = {}
    for finding in found:
        by_cause.setdefault(finding.cause, finding)
    order = [cause for cause in Cause if cause in by_cause]
    # Another prompt explains other answers, so those are not counted as a second cause.
    prompts = {Cause.DOUBLE_BOS, Cause.ADDED_BOS, Cause.MISSING_BOS, Cause.WRONG_TEMPLATE, Cause.TOKENIZER}
    chosen = [cause for cause in order if cause in prompts] or order
    verdict.findings = [by_cause[cause] for cause in chosen]
    return verdict


def _judge(golden: Golden, vector: Vector, heard: Heard) -> Finding | None:
    """What is wrong with one answer: first the prompt, then the end, then the words."""
    finding = _prompt(golden, vector, heard.prompt_tokens)
    if finding is not None or (vector.written != vector.prompt and heard.prompt_tokens != len(vector.prompt)):
        return finding  # or the engine took a control token's name in the text for the token, and answered something else
    text, expected = heard.text.strip(), vector.answer_text.strip()
    if text == expected:
        return None
    end = golden.about["end_text"].strip()
    if vector.stopped and text.startswith(expected):
        cause = Cause.MISSING_EOS if end and end in heard.text else Cause.WRONG_STOP
        return Finding(cause, f"after {expected[-20:]!r} the answer goes on with {text[len(expected) :][:20]!r}")
    if heard.finish == "stop" and expected.startswith(text):
        return Finding(Cause.WRONG_STOP, f"the answer to '{vector.name}' ends early, after {text[-20:]!r}")
    same = len(os.path.commonprefix([text, expected]))
    return Finding(Cause.OTHER, f"the answer to '{vector.name}' is another one from character {same + 1} on: {text[same : same + 20]!r}")


def _prompt(golden: Golden, vector: Vector, count: int | None) -> Finding | None:
    """What the number of a prompt's tokens says. Names of control tokens in its text may be read as text, or as the tokens."""
    wanted = (len(vector.written), len(vector.prompt))
    if count is None or count in wanted:
        return None
    bos = golden.about["bos"]
    begins = vector.written[:1] == [bos]
    if bos is not None and count - 1 in wanted:
        return Finding(Cause.DOUBLE_BOS if begins else Cause.ADDED_BOS, "prompts are one token longer than in training")
    if begins and count + 1 in wanted:
        return Finding(Cause.MISSING_BOS, "prompts are one token shorter than in training")
    return Finding(Cause.WRONG_TEMPLATE, f"the probe '{vector.name}' has {count} tokens there and {wanted[0]} in training")


def _reading(vector: Vector, heard: Heard) -> Reading:
    """Log-probabilities of the tokens that both chose, while the texts agree."""
    wanted = vector.logp_PK[-len(vector.answer) :, 0].tolist() if vector.answer else []
    same = heard.text.strip() == vector.answer_text.strip()
    pairs = list(zip(wanted, heard.logps, strict=False)) if same else []
    worst = max((abs(a - b) for a, b in pairs), default=0.0)
    return Reading(vector.name, worst, 0.0, float(same), max(1, len(vector.answer)))
