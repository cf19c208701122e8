"""What a client is told when it cannot be served, in the shape that OpenAI's clients read."""

from __future__ import annotations

from typing import Any

from hone.core.errors import HoneError

KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
KINDS |= {405: "invalid_request_error", 429: "rate_limit_error"}


class Refusal(Exception):
    """A request that is answered with an error: HTTP status, a sentence, the field at fault and a stable code."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @classmethod
    def of(cls, error: HoneError) -> Refusal:
        """A fault of the request that a lower room has found: a prompt that is too long, tools that the template cannot write."""
        message = f"{error.what} ({error.fix})" if error.fix else error.what
        code = "context_length_exceeded" if error.code == "M002" else error.code
        return cls(500 if error.code == "M030" else 400, message, code=code)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that is sent."""
        kind = KINDS.get(self.status, "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "1"} if self.status in (429, 503) else {}
