"""The routes, and the guard around them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hone.serve.completions import Completions
from hone.serve.embeddings import embed
from hone.serve.engine import Engine
from hone.serve.errors import Refusal
from hone.serve.guard import App, Guard
from hone.serve.limits import Limits
from hone.serve.metrics import Metrics
from hone.serve.voices import Voice
from hone.serve.wire import ChatRequest, EmbeddingRequest, TextRequest


class Service:
    """What the server does, a method for each route."""

    def __init__(self, engine: Engine, limits: Limits, metrics: Metrics) -> None:
        self.engine, self.metrics = engine, metrics
        self.completions = Completions(engine, limits, metrics)
        self._since = int(time.time())

    async def chat(self, body: ChatRequest) -> Any:
        return await self.completions.chat(body)

    async def text(self, body: TextRequest) -> Any:
        return await self.completions.text(body)

    async def embeddings(self, body: EmbeddingRequest) -> dict[str, Any]:
        return await embed(self.completions, body)

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [self._model(voice) for voice in self.engine.voices.values()]}

    async def model(self, name: str) -> dict[str, Any]:
        return self._model(self.completions.voice(name))

    def _model(self, voice: Voice) -> dict[str, Any]:
        base = str(voice.opened.resolved["model"]["name"])
        root = Path(base).name if Path(base).exists() else base  # where it lies is nobody else's business
        return {"id": voice.name, "object": "model", "created": self._since, "owned_by": "hone", "root": root}

    async def health(self) -> dict[str, Any]:
        if not self.engine.is_alive():
            raise Refusal(503, "the engine has stopped", code="engine_stopped")
        return {"status": "ok"}

    async def measured(self) -> Any:
        from fastapi.responses import PlainTextResponse

        now = {"hone_answers_active": float(self.engine.active), "hone_answers_waiting": float(self.engine.waiting)}
        return PlainTextResponse(self.metrics.text(now), media_type="text/plain; version=0.0.4")


def build(voices: Mapping[str, Voice], *, token: str, hosts: Iterable[str] = (), limits: Limits | None = None) -> App:
    """The application. Its engine runs from start-up to shut-down."""
    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    limits, metrics = limits or Limits(), Metrics()
    engine = Engine(voices, limits, metrics)

    @asynccontextmanager
    async def alive(_: Any) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.stop()

    app = FastAPI(title="hone", lifespan=alive, docs_url=None, redoc_url=None)
    service = Service(engine, limits, metrics)
    for method, path, handler in (
        ("POST", "/v1/chat/completions", service.chat),
        ("POST", "/v1/completions", service.text),
        ("POST", "/v1/embeddings", service.embeddings),
        ("GET", "/v1/models", service.models),
        ("GET", "/v1/models/{name:path}", service.model),
        ("GET", "/health", service.health),
        ("GET", "/metrics", service.measured),
    ):
        app.add_api_route(path, handler, methods=[method], response_model=None)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(Exception, _failed)
    return Guard(app, token=token, hosts=hosts, limits=limits, metrics=metrics)


async def _refused(_: Any, error: Any) -> Any:
    from fastapi.responses import JSONResponse

    return JSONResponse(error.body, error.status, headers=error.headers)


async def _failed(request: Any, error: Any) -> Any:
    """Our own fault; it goes on to the log."""
    return await _refused(request, Refusal(500, "the server failed; its log says how", code="server_failed"))


async def _invalid(request: Any, error: Any) -> Any:
    """The first thing that is wrong with a body, by the name of its field."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return await _refused(request, Refusal(400, "the body is not valid JSON", code="invalid_json"))
    path = [str(part) for part in first["loc"][1:]]
    field = path[0] if path else None
    message = "this field is not known here" if first["type"] == "extra_forbidden" else first["msg"]
    return await _refused(request, Refusal(400, f"{'.'.join(path) or 'body'}: {message}", param=field, code="invalid_value"))


async def _unknown(request: Any, error: Any) -> Any:
    return await _refused(request, Refusal(error.status_code, f"{request.method} {request.url.path}: {error.detail}", code="unknown_url"))
