"""The middleware around every request: its id, limits, errors in one form, a line in the log, and metrics.

It answers HEAD for every route: the headers of GET, without the body.
"""

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from freemvmt.server.http.auth import Authenticator
from freemvmt.server.http.errors import Refusal, as_refusal
from freemvmt.server.http.metrics import Metrics
from freemvmt.server.settings import ServeSettings

_log = logging.getLogger("freemvmt.server")
_access_logger = logging.getLogger("freemvmt.access")

CLIENT_LEFT = 499  # in the log and the metrics: the client disconnected before the response
_MAX_DRAINED = 16 * 1024 * 1024  # bytes of a refused body that are read and dropped

_SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_DEFAULT_HEADERS = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]


class RequestMiddleware:
    """The outermost ASGI middleware."""

    def __init__(
        self, app: ASGIApp, settings: ServeSettings, authenticator: Authenticator, metrics: Metrics, folder: Path | None
    ) -> None:
        self._app, self._settings, self._authenticator, self._metrics = app, settings, authenticator, metrics
        self._folder_paths = (
            [] if folder is None else sorted({str(folder.resolve()), str(folder.absolute()), str(folder)})
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        method = scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}
        request_id = scope["request_id"] = _request_id(scope)
        our_headers = [(b"x-request-id", request_id.encode()), *_SECURITY_HEADERS]
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                names = {name for name, _ in headers}
                headers = [*headers, *our_headers, *(item for item in _DEFAULT_HEADERS if item[0] not in names)]
                message = {**message, "headers": headers}
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        self._metrics.begin()
        try:
            self._authenticator.check_host(scope)
            body = _Body(scope, receive, self._settings.body_bytes, self._settings.body_timeout)
            await body.check_length()
            await self._app(scope, body.receive, send_with_headers)
        except ClientDisconnect:
            status = status or CLIENT_LEFT
        except Exception as error:  # noqa: BLE001 - the client always gets a response; the log gets the details
            refusal = as_refusal(error)
            if refusal is None:
                _log.error("request %s failed", request_id, exc_info=error)
                refusal = Refusal(500, "internal", "this should not happen; the server's log says more")
            if not status:
                await _send_refusal(self._without_folder(refusal), request_id, send_with_headers)
        finally:
            self._finish(scope, method, request_id, status or CLIENT_LEFT, time.perf_counter() - start)

    def _without_folder(self, refusal: Refusal) -> Refusal:
        """``refusal`` without the path of the bundle: clients must not learn it."""
        message = str(refusal)
        for path in reversed(self._folder_paths):  # the longest first, where one path is the start of another
            message = message.replace(path, "the bundle")
        return Refusal(refusal.status, refusal.kind, message, refusal.headers)

    def _finish(self, scope: Scope, method: str, request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path_format", "unknown")
        self._metrics.count(route, method, scope.get("search_method", ""), status, seconds)
        if self._settings.access_log and _access_logger.isEnabledFor(logging.INFO):
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "request_id": request_id,
                "method": method,
                "path": route,
                "status": status,
                "ms": round(seconds * 1000, 2),
                "client": scope["client"][0] if scope.get("client") else "",
            }
            _access_logger.info("%s", json.dumps(line))


class _Body:
    """A request's body while it arrives: at most ``max_bytes`` bytes, within ``timeout`` seconds."""

    def __init__(self, scope: Scope, receive: Receive, max_bytes: int, timeout: float) -> None:
        self._scope, self._receive, self._max_bytes, self._timeout = scope, receive, max_bytes, timeout
        self._received_bytes = 0
        self._complete = False
        self._deadline: float | None = None

    async def check_length(self) -> None:
        """Raise ``Refusal`` (413) when ``Content-Length`` is above the limit."""
        length = [value for name, value in self._scope["headers"] if name == b"content-length"]
        if length and length[0].isdigit() and int(length[0][:20]) > self._max_bytes:
            await self._refuse()

    async def receive(self) -> Message:
        """The next message. Raises ``Refusal``: 413 when the body is too large, 408 when it is too slow."""
        if self._complete:  # only a disconnect can follow
            return await self._receive()
        message = await self._receive_in_time()
        self._received_bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._received_bytes > self._max_bytes:
            await self._refuse()
        return message

    async def _receive_in_time(self) -> Message:
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._receive()
        except TimeoutError:
            message = f"the body did not arrive within {self._timeout:g} s; send it faster"
            raise Refusal(408, "timeout", message, {"Connection": "close"}) from None

    async def _refuse(self) -> None:
        """Raise ``Refusal`` (413), after reading some of the body: a client that still sends would miss it."""
        expects_continue = any(name == b"expect" for name, _ in self._scope["headers"])
        while not self._complete and not expects_continue and self._received_bytes < _MAX_DRAINED:
            message = await self._receive_in_time()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._received_bytes += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
        message_ = f"the body has more than {self._max_bytes:,} bytes; send less at once"
        raise Refusal(413, "too_large", message_, {"Connection": "close"})


def _request_id(scope: Scope) -> str:
    """The client's request id when it is short and safe to log; else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and re.fullmatch(rb"[A-Za-z0-9._-]{1,64}", value):
            return str(value.decode())
    return os.urandom(8).hex()


async def _send_refusal(refusal: Refusal, request_id: str, send: Send) -> None:
    body = refusal.body(request_id)
    headers: Iterable[tuple[bytes, bytes]] = (
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in refusal.headers.items()),
    )
    await send({"type": "http.response.start", "status": refusal.status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})
