"""Everything that a request can be refused for, in one shape: ``{"error": {"type", "message", "request_id"}}``."""

import json
from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import ValidationError

from freemvmt.errors import NotFound, UserError

Kind = Literal["invalid_request", "unauthorized", "not_found", "too_large", "busy", "timeout", "read_only", "internal"]
KINDS: tuple[str, ...] = get_args(Kind)

_LONGEST = 300  # characters of a message: what a client sent can stand in it


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """An answer other than 200: its status, its kind, one line that says why, and headers."""

    def __init__(self, status: int, kind: Kind, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.headers = dict(headers or {})

    def body(self, request_id: str) -> bytes:
        """The JSON of the answer."""
        return error_body(self.kind, str(self), request_id)


def error_body(kind: Kind, message: str, request_id: str) -> bytes:
    """The JSON of an answer that refuses; ``message`` becomes one line of at most 300 characters."""
    line = " ".join(message.split())
    line = line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
    error = {"type": kind, "message": line, "request_id": request_id}
    return json.dumps({"error": error}, ensure_ascii=False).encode("utf-8", "replace")


def as_refusal(error: Exception) -> Refusal | None:
    """What to answer for an error; None for one that no request should bring about."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, NotFound):
        return Refusal(404, "not_found", str(error))
    if isinstance(error, UserError):
        return Refusal(422, "invalid_request", str(error))
    if isinstance(error, ValidationError):
        return Refusal(422, "invalid_request", _first_error(error))
    return None


def _first_error(error: ValidationError) -> str:
    """The first thing that is wrong with a body, and where."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part)[:60] for part in found["loc"])
    message = found["msg"]
    if found["type"] == "json_invalid":
        if "hex escape" in message or "code point" in message:
            message = f"the body holds half of a surrogate pair, or what is no UTF-8 ({message})"
        return message[0].lower() + message[1:] + "; send one JSON object in UTF-8"
    if found["type"] == "model_type" and not where:
        return "the body is no object; send one JSON object"
    if found["type"] == "extra_forbidden":
        return f"{where}: there is no such field; leave it out"
    return f"{where}: {message[0].lower()}{message[1:]}" if where else message
