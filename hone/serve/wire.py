"""What clients may send, field by field. A field that is unknown, or would be ignored, is refused: nothing is a silent no-op."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Zero = Annotated[float, Field(ge=0, le=0)]
Token = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class _Sampled(_Strict):
    """What all requests for text have in common. Penalties and biases are not there: they may only be neutral."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] = 0
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    n: Annotated[int, Field(ge=1)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: str | None = None
    """A label of the client's own."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings; empty ones stop nothing."""
        found = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(each for each in found if each)

    @model_validator(mode="after")
    def _few_stops(self) -> _Sampled:
        if isinstance(self.stop, list) and len(self.stop) > 16:
            raise ValueError("at most 16 stop strings")
        return self


class ResponseFormat(_Strict):
    type: Literal["text"]


class ChatRequest(_Sampled):
    """POST /v1/chat/completions."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    response_format: ResponseFormat | None = None
    store: Literal[False] | None = None
    metadata: dict[str, Any] | None = None
    service_tier: Literal["auto", "default"] | None = None

    @property
    def alternatives(self) -> int | None:
        """How many likeliest tokens to tell at each place; None tells no probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @model_validator(mode="after")
    def _consistent(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs=true")
        return self


class TextRequest(_Sampled):
    """POST /v1/completions."""

    prompt: str | list[str] | list[Token] | list[list[Token]]
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """One or many, as text or tokens."""
        return _listed(self.prompt)


class EmbeddingRequest(_Strict):
    """POST /v1/embeddings."""

    model: str
    input: str | list[str] | list[Token] | list[list[Token]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None
    user: str | None = None

    @property
    def inputs(self) -> list[str | list[int]]:
        return _listed(self.input)


def _listed(given: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    if isinstance(given, str):
        return [given]
    if given and all(isinstance(each, int) for each in given):
        return [[each for each in given if isinstance(each, int)]]
    return [each for each in given if isinstance(each, str | list)]
