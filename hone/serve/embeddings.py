"""POST /v1/embeddings: the mean of a text's last hidden states, of length one.

A language model is no embedding model: texts of like words come out near each other, but one that was trained for it does
better. It is there so that one server is enough to try a thing.
"""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import Any

from hone.serve.completions import Completions, ids_of
from hone.serve.errors import Refusal
from hone.serve.wire import EmbeddingRequest


async def embed(completions: Completions, body: EmbeddingRequest) -> dict[str, Any]:
    """Vectors in the order of the inputs. Raises Refusal for what is too much or too long."""
    voice, limits = completions.voice(body.model), completions.limits
    if not 0 < len(body.inputs) <= limits.inputs:
        raise Refusal(400, f"between 1 and {limits.inputs} inputs", param="input")
    texts = await completions.at_desk(lambda: [ids_of(voice, each, limits) for each in body.inputs])
    if max(map(len, texts)) > voice.positions:
        message = f"an input of {max(map(len, texts))} tokens is longer than the model's {voice.positions} positions"
        raise Refusal(400, message, param="input", code="context_length_exceeded")
    vectors = await asyncio.wrap_future(completions.engine.call(lambda: voice.embed(texts)))
    read = sum(map(len, texts))
    completions.metrics.add("hone_prompt_tokens_total", read)
    data = [
        {"object": "embedding", "index": i, "embedding": _packed(vector) if body.encoding_format == "base64" else vector}
        for i, vector in enumerate(vectors)
    ]
    return {"object": "list", "data": data, "model": voice.name, "usage": {"prompt_tokens": read, "total_tokens": read}}


def _packed(vector: list[float]) -> str:
    """Little-endian fp32, as clients read it."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
