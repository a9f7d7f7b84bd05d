"""What stands around every request: id, limits, errors in one shape, a line in the log, and measures.

HEAD is answered here for every route: as GET, with its headers and without its body.
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

from freemvmt.server.http.auth import Access
from freemvmt.server.http.errors import Refusal, as_refusal
from freemvmt.server.http.metrics import Metrics
from freemvmt.server.settings import ServeSettings

_log = logging.getLogger("freemvmt.server")
_access = logging.getLogger("freemvmt.access")

CLIENT_LEFT = 499  # in the log and the measures: the client went away before its answer
_DRAINED = 16 * 1024 * 1024  # bytes that are read and dropped of a body that is refused

_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_DEFAULTS = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]


class Guard:
    """ASGI middleware, the outermost."""

    def __init__(
        self, app: ASGIApp, settings: ServeSettings, access: Access, metrics: Metrics, folder: Path | None
    ) -> None:
        self._app, self._settings, self._access, self._metrics = app, settings, access, metrics
        self._places = [] if folder is None else sorted({str(folder.resolve()), str(folder.absolute()), str(folder)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        method = scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}
        request_id = scope["request_id"] = _request_id(scope)
        own = [(b"x-request-id", request_id.encode()), *_SECURITY]
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                names = {name for name, _ in headers}
                headers = [*headers, *own, *(item for item in _DEFAULTS if item[0] not in names)]
                message = {**message, "headers": headers}
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        self._metrics.begin()
        try:
            self._access.check_host(scope)
            body = _Body(scope, receive, self._settings.body_bytes, self._settings.body_timeout)
            await body.check_length()
            await self._app(scope, body.receive, send_on)
        except ClientDisconnect:
            status = status or CLIENT_LEFT
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the rest
            refusal = as_refusal(error)
            if refusal is None:
                _log.error("request %s failed", request_id, exc_info=error)
                refusal = Refusal(500, "internal", "this should not happen; the server's log says more")
            if not status:
                await _answer(self._without_places(refusal), request_id, send_on)
        finally:
            self._done(scope, method, request_id, status or CLIENT_LEFT, time.perf_counter() - started)

    def _without_places(self, refusal: Refusal) -> Refusal:
        """Where the bundle is on this machine is nobody's business."""
        message = str(refusal)
        for place in reversed(self._places):  # the longest of those that begin alike
            message = message.replace(place, "the bundle")
        return Refusal(refusal.status, refusal.kind, message, refusal.headers)

    def _done(self, scope: Scope, method: str, request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path_format", "unknown")
        self._metrics.count(route, method, scope.get("search_method", ""), status, seconds)
        if self._settings.access_log and _access.isEnabledFor(logging.INFO):
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "request_id": request_id,
                "method": method,
                "path": route,
                "status": status,
                "ms": round(seconds * 1000, 2),
                "client": scope["client"][0] if scope.get("client") else "",
            }
            _access.info("%s", json.dumps(line))


class _Body:
    """A request's body as it arrives: at most ``most`` bytes, and within ``timeout`` seconds."""

    def __init__(self, scope: Scope, receive: Receive, most: int, timeout: float) -> None:
        self._scope, self._receive, self._most, self._timeout = scope, receive, most, timeout
        self._read = 0
        self._whole = False
        self._deadline: float | None = None

    async def check_length(self) -> None:
        """Raise ``Refusal`` (413) when the body says that it is too long."""
        length = [value for name, value in self._scope["headers"] if name == b"content-length"]
        if length and length[0].isdigit() and int(length[0][:20]) > self._most:
            await self._refuse()

    async def receive(self) -> Message:
        """The next part. Raises ``Refusal``: 413 when there is too much of it, 408 when it is too slow."""
        if self._whole:  # nothing but a disconnection can come
            return await self._receive()
        message = await self._in_time()
        self._read += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._read > self._most:
            await self._refuse()
        return message

    async def _in_time(self) -> Message:
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._receive()
        except TimeoutError:
            message = f"the body did not arrive within {self._timeout:g} s; send it faster"
            raise Refusal(408, "timeout", message, {"Connection": "close"}) from None

    async def _refuse(self) -> None:
        """Say that it is too much. Some of it is read first: a client that still sends would not see the answer."""
        waits = any(name == b"expect" for name, _ in self._scope["headers"])
        while not self._whole and not waits and self._read < _DRAINED:
            message = await self._in_time()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._read += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
        message_ = f"the body has more than {self._most:,} bytes; send less at once"
        raise Refusal(413, "too_large", message_, {"Connection": "close"})


def _request_id(scope: Scope) -> str:
    """The client's own when it is short and plain, so that it can stand in a log; else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and re.fullmatch(rb"[A-Za-z0-9._-]{1,64}", value):
            return str(value.decode())
    return os.urandom(8).hex()


async def _answer(refusal: Refusal, request_id: str, send: Send) -> None:
    body = refusal.body(request_id)
    headers: Iterable[tuple[bytes, bytes]] = (
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in refusal.headers.items()),
    )
    await send({"type": "http.response.start", "status": refusal.status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})
