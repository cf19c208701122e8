"""What stands before every request: the right Host and Origin, the token, a body of decent size, and somebody still there.

A page in a browser can send requests to a server on the same machine, and by rebinding its name can pass for it. So the
Host must be one of ours on every method, a foreign Origin is refused, and the token is asked for even on loopback.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from hone.serve.errors import Refusal
from hone.serve.limits import Limits
from hone.serve.metrics import Metrics

LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN = ("/health",)
"""Paths that need no token."""
DRAIN = 16
"""A body that is too large is read away up to so many times its limit, so that the client hears why it is refused."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: App, *, token: str, hosts: Iterable[str], limits: Limits, metrics: Metrics) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self._token, self._hosts = token.encode(), {*LOOPBACK, *hosts}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        known = _Watched(send)
        try:
            self._check(scope["path"], headers)
            body = await asyncio.wait_for(self._body(receive, headers), self.limits.body_seconds)
            await self._run(scope, body, receive, known)
        except Refusal as refusal:
            await _answer(known, refusal)
        except TimeoutError:
            await _answer(known, Refusal(400, "the request's body did not arrive in time", code="body_timeout"))
        except _Gone:
            known.status = 499
        route = scope["path"] if known.status not in (401, 403, 404) else "other"
        self.metrics.add("hone_requests_total", labels=f'{{route="{_plain(route)}",status="{known.status}"}}')

    def _check(self, path: str, headers: dict[str, str]) -> None:
        if _name(f"//{headers.get('host', '')}") not in self._hosts:
            raise Refusal(403, "this server does not answer to that Host; --allow-host adds a name", code="host_not_allowed")
        origin = headers.get("origin")
        if (origin is not None and _name(origin) not in self._hosts) or headers.get("sec-fetch-site") == "cross-site":
            raise Refusal(403, "pages of other sites may not use this server", code="origin_not_allowed")
        scheme, _, given = headers.get("authorization", "").partition(" ")
        right = scheme.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), self._token)
        if path not in OPEN and not right:
            message = "the API key is wrong" if given else "no API key: send it as 'Authorization: Bearer KEY'"
            raise Refusal(401, message, code="invalid_api_key")

    async def _body(self, receive: Receive, headers: dict[str, str]) -> bytes:
        """The whole body. Raises Refusal where it is too large, and _Gone where the client left."""
        pieces, size, more = list[bytes](), 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
            if size <= self.limits.body_bytes:
                pieces.append(message.get("body", b""))
            if size > DRAIN * self.limits.body_bytes:
                break
        if size > self.limits.body_bytes:
            raise Refusal(400, f"the request is larger than {self.limits.body_bytes} bytes", code="request_too_large")
        return b"".join(pieces)

    async def _run(self, scope: MutableMapping[str, Any], body: bytes, receive: Receive, send: Send) -> None:
        """Run the application until it is done or the client is gone, whichever is first."""
        gone, given = asyncio.Event(), False

        async def replay() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        work = asyncio.ensure_future(self.app(_as_json(scope), replay, send))
        watch = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                gone.set()
                work.cancel()
                await asyncio.wait((work,))
                raise _Gone
            work.result()
        finally:
            watch.cancel()
            work.cancel()


def _as_json(scope: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Every body here is JSON, whatever curl says of it by default."""
    others = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-type"]
    return {**scope, "headers": [*others, (b"content-type", b"application/json")]}


class _Gone(Exception):
    """The client left before it was answered."""


class _Watched:
    """Sends, and remembers the status."""

    def __init__(self, send: Send) -> None:
        self._send, self.status = send, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


async def _answer(send: _Watched, refusal: Refusal) -> None:
    if send.status:
        return
    body = json.dumps(refusal.body, ensure_ascii=False).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _name(address: str) -> str:
    """The host of an address, without its port; nothing where it has none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _plain(text: str) -> str:
    """A path as the value of a label."""
    return "".join(char if char.isalnum() or char in "/_-.:" else "_" for char in text[:80])
