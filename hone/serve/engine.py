"""The one thread that computes: it takes requests in, moves every model's rows on by a token, and tells those who wait."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from hone.core.errors import HoneError
from hone.rollout.answer import Request
from hone.serve.errors import Refusal
from hone.serve.limits import Limits
from hone.serve.metrics import Metrics
from hone.serve.voices import Voice

log = logging.getLogger("hone.serve")
Event = tuple[int, int] | Exception
"""(which answer, new token), or what went wrong."""


class Writing:
    """The answers that one client waits for. Tokens arrive in `events`, in the event loop that made it."""

    def __init__(self, voice: Voice) -> None:
        self.voice = voice
        self.requests: list[Request] = []
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.unwanted = False
        self._loop = asyncio.get_running_loop()

    def tell(self, index: int, token: int) -> None:
        """Pass a token on; called by the engine's thread."""
        self._loop.call_soon_threadsafe(self.events.put_nowait, (index, token))

    def fail(self, error: Exception) -> None:
        """Pass a fault on; called by the engine's thread."""
        self._loop.call_soon_threadsafe(self.events.put_nowait, error)


class Engine(threading.Thread):
    """Continuous batching over all voices. Public methods are called from the event loop."""

    def __init__(self, voices: Mapping[str, Voice], limits: Limits, metrics: Metrics) -> None:
        super().__init__(name="hone-engine", daemon=True)
        self.voices, self.limits, self.metrics = voices, limits, metrics
        self._entering: deque[Writing] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._running: dict[int, Writing] = {}
        self._wake = threading.Event()
        self._ended = False

    @contextmanager
    def writing(self, writing: Writing) -> Iterator[Writing]:
        """Have answers written while the context lasts; leaving it early frees their rows. Raises Refusal 429 and 503."""
        if self._ended or not self.is_alive():
            raise Refusal(503, "the server is stopping", code="server_stopping")
        if self.waiting + len(writing.requests) > self.limits.queue:
            raise Refusal(429, f"{self.waiting} answers are waiting already; try again in a moment", code="queue_full")
        self._entering.append(writing)
        self._wake.set()
        try:
            yield writing
        finally:
            writing.unwanted = True
            self._wake.set()

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Have something else computed by the thread that owns the models."""
        future: Future[Any] = Future()
        if self._ended:
            future.set_exception(Refusal(503, "the server is stopping", code="server_stopping"))
            return future
        self._calls.append((work, future))
        self._wake.set()
        return future

    @property
    def waiting(self) -> int:
        """Answers that have no row yet."""
        entering = sum(len(writing.requests) for writing in tuple(self._entering))
        return entering + sum(len(voice.waiting) for voice in self.voices.values())

    @property
    def active(self) -> int:
        """Answers that are being written."""
        return sum(len(voice.batch.active) for voice in self.voices.values() if voice.batch is not None)

    def stop(self) -> None:
        """End after the present step; those who wait are told."""
        self._ended = True
        self._wake.set()
        self.join()

    def run(self) -> None:
        with ExitStack() as stack, torch.inference_mode():
            for voice in self.voices.values():
                voice.start(stack)
            while not self._ended:
                self._wake.clear()
                self._take()
                busy = [self._move(voice) for voice in self.voices.values()]
                if not any(busy) and not self._entering and not self._calls:
                    self._wake.wait()
        for writing in (*self._running.values(), *self._entering):
            writing.fail(Refusal(503, "the server is stopping", code="server_stopping"))
        for _, future in self._calls:
            future.set_exception(Refusal(503, "the server is stopping", code="server_stopping"))

    def _take(self) -> None:
        """Let new requests in and unwanted ones go, and do what else is asked."""
        while self._entering:
            writing = self._entering.popleft()
            writing.voice.waiting.extend(writing.requests)
            self._running |= {id(request): writing for request in writing.requests}
        for voice in {id(w.voice): w.voice for w in self._running.values() if w.unwanted}.values():
            self._let_go(voice)
        while self._calls:
            work, future = self._calls.popleft()
            try:
                future.set_result(work())
            except Exception as error:  # one request's fault must not end the thread that serves all
                future.set_exception(error)

    def _let_go(self, voice: Voice) -> None:
        def unwanted(request: Request) -> bool:
            return self._running[id(request)].unwanted

        gone = voice.batch.drop(unwanted) if voice.batch is not None else []
        gone += [request for request in voice.waiting if unwanted(request)]
        voice.waiting = deque(request for request in voice.waiting if not unwanted(request))
        for request in gone:
            del self._running[id(request)]
            self.metrics.add("hone_answers_abandoned_total")

    def _move(self, voice: Voice) -> bool:
        """One step of a model. A fault costs those who were in this batch their answers, nobody else."""
        began = time.perf_counter()
        try:
            busy = voice.step()
        except Exception as error:  # one batch's fault must not end the thread that serves all
            if not isinstance(error, HoneError):
                log.exception("a step of %s failed", voice.name)
            for writing in {id(w): w for w in (self._running.pop(id(request)) for request in voice.reset())}.values():
                writing.fail(error)
            return True
        for key in [key for key, writing in self._running.items() if writing.voice is voice and self._done(writing, key)]:
            del self._running[key]
        if busy:
            self.metrics.add("hone_busy_seconds_total", time.perf_counter() - began)
        return busy

    @staticmethod
    def _done(writing: Writing, key: int) -> bool:
        return next(request for request in writing.requests if id(request) == key).done
