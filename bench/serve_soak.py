"""Two minutes of 64 clients at once against `hone serve` on the seedling: every request is answered, or the run fails.

Clients chat with unlike lengths, half of them as a stream; each sixteenth request is abandoned on the way, which must free
its row and disturb nobody. Greedy answers to a question that comes again must be the same every time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench import common

SEEDLING = common.ROOT / "hone" / "demo" / "seedling"
QUESTIONS = [
    f"What does the {trade} of the town sell on market day {day}?" for trade in ("baker", "smith", "weaver") for day in range(1, 9)
]


class Soak:
    """What the clients have seen."""

    def __init__(self, client: Any, model: str, seconds: float) -> None:
        self.client, self.model, self.end = client, model, time.monotonic() + seconds
        self.seen: Counter[str] = Counter()
        self.answers: dict[tuple[str, int], str] = {}
        self.first: list[float] = []
        self.tokens = 0

    async def one_client(self, seed: int) -> None:
        """Ask until the time is over."""
        rng = random.Random(seed)
        while time.monotonic() < self.end:
            question, limit, kind = rng.choice(QUESTIONS), rng.choice((8, 24, 64)), rng.randrange(16)
            ask = {"model": self.model, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": limit}
            if kind == 0:
                await self._abandon(ask)
                continue
            text = await (self._streamed(ask) if kind % 2 else self._whole(ask))
            known = self.answers.setdefault((question, limit), text)
            self.seen["answered" if text == known else "different"] += 1

    async def _whole(self, ask: dict[str, Any]) -> str:
        answer = await self.client.chat.completions.create(**ask)
        self.tokens += answer.usage.completion_tokens
        return str(answer.choices[0].message.content)

    async def _streamed(self, ask: dict[str, Any]) -> str:
        started, text, ended = time.monotonic(), "", False
        async for chunk in await self.client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
            if not text and not ended and chunk.choices:
                self.first.append(time.monotonic() - started)
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            ended = ended or any(choice.finish_reason for choice in chunk.choices)
            self.tokens += chunk.usage.completion_tokens if chunk.usage else 0
        self.seen["cut"] += not ended
        return text

    async def _abandon(self, ask: dict[str, Any]) -> None:
        stream = await self.client.chat.completions.create(**ask | {"max_tokens": 400}, stream=True)
        async for _ in stream:
            break
        await stream.close()
        self.seen["abandoned"] += 1


async def soak(port: int, key: str, options: argparse.Namespace) -> dict[str, Any]:
    """All clients for all of the time, and the server's own count afterwards."""
    import openai

    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0, timeout=120) as client:
        await _until_up(client)
        test, started = Soak(client, "seedling", options.seconds), time.monotonic()
        await asyncio.gather(*(test.one_client(seed) for seed in range(options.clients)))
        seconds = time.monotonic() - started
        await asyncio.sleep(1)
        metrics = (await client.with_options(base_url=f"http://127.0.0.1:{port}").get("/metrics", cast_to=str)).splitlines()
    left = sum(float(line.split()[-1]) for line in metrics if line.startswith(("hone_answers_active", "hone_answers_waiting")))
    return {
        "clients": options.clients,
        "seconds": seconds,
        "seen": dict(test.seen),
        "tokens_per_second": test.tokens / seconds,
        "requests_per_second": sum(test.seen.values()) / seconds,
        "seconds_to_first_token": {"median": statistics.median(test.first), "worst": max(test.first)} if test.first else {},
        "left_in_the_server": left,
    }


async def _until_up(client: Any) -> None:
    import openai

    for _ in range(600):
        try:
            await client.models.list()
            return
        except openai.APIConnectionError:
            await asyncio.sleep(0.2)
    raise SystemExit("the server did not start")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.serve_soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--model", type=Path, default=SEEDLING)
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key = secrets.token_urlsafe(16)
    command = [sys.executable, "-m", "hone", "serve", str(options.model), "--port", str(port)]
    with subprocess.Popen(command, env=os.environ | {"HONE_API_KEY": key, "HF_HUB_OFFLINE": "1"}, cwd=common.ROOT) as server:
        try:
            result = asyncio.run(soak(port, key, options))
        finally:
            server.send_signal(signal.SIGTERM)
    result |= {"machine": common.machine(), "server_ended_with": server.returncode}
    print({name: value for name, value in result.items() if name != "machine"})
    print(f"raw figures: {common.save('serve-soak', result)}")
    if result["seen"].get("different") or result["seen"].get("cut") or result["left_in_the_server"]:
        sys.exit("answers were lost, cut or different")


if __name__ == "__main__":
    main()
