"""The errors of the API, all in one form: ``{"error": {"type", "message", "request_id"}}``."""

import json
from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import ValidationError

from freemvmt.errors import NotFound, UserError
from freemvmt.runtime.console import shorten

ErrorKind = Literal[
    "invalid_request", "unauthorized", "not_found", "too_large", "busy", "timeout", "read_only", "internal"
]
ERROR_KINDS: tuple[str, ...] = get_args(ErrorKind)

_MAX_MESSAGE_LENGTH = 300  # characters; a message can quote what a client sent


class Refusal(Exception):  # noqa: N818 - a response, not a failure
    """An error response: its status, its kind, a message of one line, and headers."""

    def __init__(self, status: int, kind: ErrorKind, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.headers = dict(headers or {})

    def body(self, request_id: str) -> bytes:
        """The JSON of the response."""
        return error_body(self.kind, str(self), request_id)


def error_body(kind: ErrorKind, message: str, request_id: str) -> bytes:
    """The JSON of an error response; ``message`` becomes one line of at most 300 characters."""
    error = {"type": kind, "message": one_line(message), "request_id": request_id}
    return json.dumps({"error": error}, ensure_ascii=False).encode("utf-8", "replace")


def one_line(message: str) -> str:
    """``message`` in one line of at most 300 characters."""
    return shorten(" ".join(message.split()), _MAX_MESSAGE_LENGTH)


def as_refusal(error: Exception) -> Refusal | None:
    """The refusal for an exception; None for an exception that no request should cause."""
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
    """The message of the first error in a body, with the path of the field."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part)[:60] for part in first["loc"])
    message = first["msg"]
    if first["type"] == "json_invalid":
        if "hex escape" in message or "code point" in message:
            message = f"the body holds half of a surrogate pair, or what is no UTF-8 ({message})"
        return message[0].lower() + message[1:] + "; send one JSON object in UTF-8"
    if first["type"] == "model_type" and not where:
        return "the body is no object; send one JSON object"
    if first["type"] == "extra_forbidden":
        return f"{where}: there is no such field; leave it out"
    return f"{where}: {message[0].lower()}{message[1:]}" if where else message
