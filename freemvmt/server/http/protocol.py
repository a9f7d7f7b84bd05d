"""uvicorn's HTTP/1.1 with limits on what the application never sees: slow or endless headers, readers that do not read,
and our errors."""

import asyncio
import os
import re
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from freemvmt.server.http.errors import error_body

MOST_HEADER_BYTES = 64 * 1024

SLOWEST_READER = 1024  # bytes a second; whoever takes less of an answer is left
_LINGER = 1.0  # seconds between an answer that refuses and the end of the connection
_TOO_LARGE = "the headers are too large; send less of them"


class Protocol(HttpToolsProtocol):
    """A connection. ``patience`` is how long its headers, and again its body, may take, in seconds; after as long again
    it is seen whether an answer is read."""

    patience = 10.0

    _timer: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None  # looks whether the client reads
    _in_head = True
    _head_bytes = 0  # that were fed to the parser
    _header_bytes = 0  # that it has made headers of
    _refused = False
    _running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there: its headers are due."""
        super().connection_made(transport)
        self._wait_for_more()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop_waiting()
        self._stop_looking()
        self._disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; headers that have no end by now have none at all."""
        if self._refused:
            return
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEADER_BYTES:
                self._refuse(431, _TOO_LARGE)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client writes no more; what it has asked for already, it still gets."""
        asked = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        if asked:
            self.cycle.keep_alive = False
        return asked

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered."""
        super().pause_writing()
        self._look_again(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """It has read."""
        self._stop_looking()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing more was asked: close, and do not wait for what was never read."""
        super().timeout_keep_alive_handler()
        self._look_again(self.transport.get_write_buffer_size())

    def _look_again(self, left: int) -> None:
        self._stop_looking()
        self._reading = self.loop.call_later(self.patience, self._look, left)

    def _look(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left and before - left < SLOWEST_READER * self.patience:
            self.transport.abort()
        elif left:
            self._look_again(left)

    def _stop_looking(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; too many of them end the request."""
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > MOST_HEADER_BYTES:
            raise ValueError(_TOO_LARGE)
        super().on_header(name, value)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head, self._head_bytes, self._header_bytes = True, 0, 0
        self._wait_for_more()

    def on_headers_complete(self) -> None:
        """The headers are there: the body is due, for which the application waits a little less long."""
        self._in_head = False
        self._wait_for_more(grace=1.0)
        if not self.url.startswith(b"/"):
            self._find_path()
        super().on_headers_complete()

    def _find_path(self) -> None:
        """A whole URL, as proxies are asked: its host counts, not that of the headers (RFC 9112, 3.2.2). OPTIONS asks
        ``*`` of the server itself."""
        if self.url == b"*" and self.parser.get_method() == b"OPTIONS":
            self.url = b"/"
            return
        scheme, _, rest = self.url.partition(b"://")
        if scheme.lower() not in (b"http", b"https"):
            raise ValueError("the target is no path")
        place = re.match(rb"[^/?#]*", rest)
        assert place is not None
        self.headers[:] = [(b"host", place[0]), *(item for item in self.headers if item[0] != b"host")]
        path = rest[place.end() :]
        self.url = path if path.startswith(b"/") else b"/" + path

    def on_message_complete(self) -> None:
        """The request is there, whole."""
        self._stop_waiting()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        if self._header_bytes > MOST_HEADER_BYTES:
            self._refuse(431, _TOO_LARGE)
        else:
            self._refuse(400, "this is no HTTP/1.1 request; send one")

    def _refuse(self, status: int, message: str) -> None:
        """Answer, and close a little later: a socket that is closed while more arrives would take the answer back."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._disconnect()
        request_id = os.urandom(8).hex()
        body = error_body("invalid_request", message, request_id)
        head = [
            STATUS_LINE[status],
            *(name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers),
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n".encode(),
            f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n".encode(),
        ]
        self.transport.write(b"".join([*head, body]))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._stop_waiting()
        self._timer = self.loop.call_later(_LINGER, self.transport.close)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _disconnect(self) -> None:
        """Let the request that is worked on say no more. uvicorn knows only the last of those that came in one go."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.waiting_for_100_continue = False
            self._running.message_event.set()

    def _wait_for_more(self, grace: float = 0.0) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(self.patience + grace, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        # A request before this one may still be worked on, and reading is paused meanwhile.
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self._wait_for_more()
        elif not self.transport.is_closing():
            self.transport.close()
            self._look_again(self.transport.get_write_buffer_size())


def protocol(patience: float) -> type[Protocol]:
    """``Protocol`` with that patience."""
    kind: Any = type("PatientProtocol", (Protocol,), {"patience": patience})
    return kind  # type: ignore[no-any-return]
