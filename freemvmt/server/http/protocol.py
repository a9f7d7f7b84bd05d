"""uvicorn's HTTP/1.1 protocol, with limits that the application cannot set.

The limits are for slow or endless headers, slow bodies, and clients that do not read. Errors have the API's form.
"""

import asyncio
import os
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from freemvmt.server.http.errors import error_body

MAX_HEADER_BYTES = 64 * 1024

SLOWEST_READER = 1024  # bytes a second; a client that reads more slowly is disconnected
_CLOSE_DELAY = 1.0  # seconds from an error response to the end of the connection
_TOO_LARGE = "the headers are too large; send less of them"


class Protocol(HttpToolsProtocol):
    """A connection with a client.

    ``timeout`` is in seconds: for the headers, for the body, and between two checks that the client reads.
    """

    _timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None  # checks that the client reads
    _in_headers = True
    _received_header_bytes = 0  # bytes of the headers that the parser has received
    _parsed_header_bytes = 0  # bytes of the headers that the parser has returned
    _refused = False
    _running_cycle: RequestResponseCycle | None = None

    def __init__(self, *arguments: Any, timeout: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timeout = timeout

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout of the first headers."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers and the running request."""
        self._stop_timer()
        self._stop_read_timer()
        self._disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data to the parser; refuse headers that do not end within ``MAX_HEADER_BYTES``."""
        if self._refused:
            return
        super().data_received(data)
        if self._in_headers:
            self._received_header_bytes += len(data)
            if self._received_header_bytes > MAX_HEADER_BYTES:
                self._refuse(431, _TOO_LARGE)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends nothing more; keep the connection until the response to a complete request is sent."""
        response_due = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        if response_due:
            self.cycle.keep_alive = False
        return response_due

    def pause_writing(self) -> None:
        """The write buffer is full: start to check that the client reads."""
        super().pause_writing()
        self._start_read_timer(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client has read enough: stop the check."""
        self._stop_read_timer()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """No further request came: close, and do not wait for ever for the client to read the rest."""
        super().timeout_keep_alive_handler()
        self._start_read_timer(self.transport.get_write_buffer_size())

    def _start_read_timer(self, unsent: int) -> None:
        self._stop_read_timer()
        self._read_timer = self.loop.call_later(self._timeout, self._check_reader, unsent)

    def _check_reader(self, unsent_before: int) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent_before - unsent < SLOWEST_READER * self._timeout:
            self.transport.abort()
        elif unsent:
            self._start_read_timer(unsent)

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; ``ValueError`` when the headers are too large."""
        self._parsed_header_bytes += len(name) + len(value) + 4
        if self._parsed_header_bytes > MAX_HEADER_BYTES:
            raise ValueError(_TOO_LARGE)
        super().on_header(name, value)

    def on_message_begin(self) -> None:
        """Start the timeout of a request's headers."""
        super().on_message_begin()
        self._in_headers, self._received_header_bytes, self._parsed_header_bytes = True, 0, 0
        self._start_timer()

    def on_headers_complete(self) -> None:
        """Start the timeout of the body, one second longer than the application's, which should come first."""
        self._in_headers = False
        self._start_timer(grace=1.0)
        if not self.url.startswith(b"/"):
            self._reduce_target_to_path()
        super().on_headers_complete()
        if not self.pipeline:  # the request is not queued behind another
            self._running_cycle = self.cycle

    def _reduce_target_to_path(self) -> None:
        """Reduce a target that is a whole URL, as clients send it to proxies, to its path.

        The host of the URL replaces the ``Host`` header (RFC 9112, 3.2.2). The target of ``OPTIONS *`` becomes ``/``.
        """
        if self.url == b"*" and self.parser.get_method() == b"OPTIONS":
            self.url = b"/"
            return
        scheme, _, rest = self.url.partition(b"://")
        if scheme.lower() not in (b"http", b"https"):
            raise ValueError("the target is no path")
        authority = re.match(rb"[^/?#]*", rest)
        assert authority is not None
        self.headers[:] = [(b"host", authority[0]), *(item for item in self.headers if item[0] != b"host")]
        path = rest[authority.end() :]
        self.url = path if path.startswith(b"/") else b"/" + path

    def on_message_complete(self) -> None:
        """The request is complete: stop its timeout."""
        self._stop_timer()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser cannot read."""
        if self._parsed_header_bytes > MAX_HEADER_BYTES:
            self._refuse(431, _TOO_LARGE)
        else:
            self._refuse(400, "this is no HTTP/1.1 request; send one")

    def _refuse(self, status: int, message: str) -> None:
        """Send an error and close after a delay.

        Without the delay, data that arrives at the closed socket could make the client lose the response.
        """
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
        self._stop_timer()
        self._timer = self.loop.call_later(_CLOSE_DELAY, self.transport.close)

    def on_response_complete(self) -> None:
        """A response is sent: the next request that the client has pipelined runs."""
        if not self.transport.is_closing():
            self._running_cycle = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()

    def _disconnect(self) -> None:
        """End the running request. With pipelined requests, uvicorn's ``cycle`` is the latest, not the running one."""
        if self._running_cycle is not None and not self._running_cycle.response_complete:
            self._running_cycle.disconnected = True
            self._running_cycle.waiting_for_100_continue = False
            self._running_cycle.message_event.set()

    def _start_timer(self, grace: float = 0.0) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self._timeout + grace, self._on_timeout)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        # An earlier request may still be running; reading is paused until it ends.
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self._start_timer()
        elif not self.transport.is_closing():
            self.transport.close()
            self._start_read_timer(self.transport.get_write_buffer_size())
