"""Any model behind an OpenAI-compatible address, asked many things at once: judges, teachers, writers (extra: teacher).

What was answered is kept on the disk, so that a run that is started again pays for nothing twice. Servers that are busy, slow or
broken are asked again, after waits that grow and differ.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from hone.core.errors import HoneError
from hone.core.files import write_atomically
from hone.core.types import Conversation

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0


class Lost(NamedTuple):
    """A question that got no answer, and why."""

    what: str


class Endpoint:
    """One model at one address. `key` is the name of the environment variable that holds the key; it is never written anywhere.

    `cache` is a folder of answers. Raises C062 where the package is missing and C066 where the server refuses the key or the model.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str = "OPENAI_API_KEY",
        cache: str | Path | None = None,
        seconds: float = 120.0,
        tries: int = 6,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        if find_spec("openai") is None:
            raise HoneError("C062", "models behind an address need the package openai", fix="pip install 'hone-llm[teacher]'")
        from openai import OpenAI

        self.url, self.model, self.tries, self.wait = url, model, tries, wait
        self.cache = Path(cache) if cache is not None else None
        self._client = OpenAI(base_url=url, api_key=os.environ.get(key) or "none", timeout=seconds, max_retries=0)
        self.calls = 0
        """Requests that were sent; what the cache knew is not among them."""

    def ask(self, conversations: Sequence[Conversation], *, at_once: int = 8, **options: Any) -> list[str | Lost]:
        """A reply to each conversation, in order; `options` (temperature, max_tokens, seed ...) go to the server as they are.

        Equal questions without a temperature are asked once.
        """
        requests = [{"model": self.model, "messages": [m.to_dict() for m in talk], "temperature": 0.0} | options for talk in conversations]
        keys = [self._key(i, request) for i, request in enumerate(requests)]
        todo = {key: request for key, request in zip(keys, requests, strict=True) if self._known(key) is None}
        fresh: dict[str, str | Lost] = {}
        if todo:
            with ThreadPoolExecutor(min(at_once, len(todo))) as pool:
                fresh = dict(zip(todo, pool.map(self._one, todo, todo.values()), strict=True))
        return [fresh[key] if key in fresh else self._known(key) or "" for key in keys]

    def _key(self, place: int, request: dict[str, Any]) -> str:
        """With a temperature, the n-th of several equal questions is a question of its own."""
        drawn = place if request["temperature"] else 0
        return hashlib.sha256(json.dumps([self.url, request, drawn], sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def _known(self, key: str) -> str | None:
        file = self._file(key)
        return json.loads(file.read_text("utf-8"))["reply"] if file is not None and file.is_file() else None

    def _file(self, key: str) -> Path | None:
        return self.cache / key[:2] / f"{key}.json" if self.cache is not None else None

    def _one(self, key: str, request: dict[str, Any]) -> str | Lost:
        """Ask until there is a whole answer, or no more tries."""
        rng, why = random.Random(key), "it was never asked"
        for attempt in range(self.tries):
            if attempt:
                self.wait(min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1)) * rng.uniform(0.5, 1.5))
            reply = self._send(request)
            if isinstance(reply, str):
                self._keep(key, request, reply)
                return reply
            why = reply.what
        return Lost(f"{self.url} gave no answer in {self.tries} tries: {why}")

    def _send(self, request: dict[str, Any]) -> str | Lost:
        from openai import (
            APIConnectionError,
            APIError,
            APIStatusError,
            AuthenticationError,
            BadRequestError,
            NotFoundError,
            PermissionDeniedError,
        )

        self.calls += 1
        try:
            found = self._client.chat.completions.create(**request)
            content = found.choices[0].message.content
        except (AuthenticationError, PermissionDeniedError, NotFoundError) as error:
            fix = "check the address, the model's name, and the variable that holds the key"
            raise HoneError("C066", f"{self.url} refuses: {error.message}", where=self.model, fix=fix) from None
        except BadRequestError as error:
            return Lost(f"the server does not take this request: {error.message}")
        except APIStatusError as error:
            return Lost(f"status {error.status_code}")
        except (APIConnectionError, APIError) as error:
            return Lost(f"{type(error).__name__}: {error}")
        except (ValueError, AttributeError, IndexError, TypeError) as error:  # a body that was cut, or is no answer
            return Lost(f"the reply cannot be read ({type(error).__name__}: {error})")
        return content if isinstance(content, str) else Lost("the reply has no text")

    def _keep(self, key: str, request: dict[str, Any], reply: str) -> None:
        file = self._file(key)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps({"model": self.model, "request": request, "reply": reply}, ensure_ascii=False))
