"""The uvicorn server: it prints where it listens, and finishes running requests before it stops."""

import contextlib
import functools
import logging
import math
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import uvicorn

from freemvmt.runtime.console import Console, count_of
from freemvmt.server.http.protocol import Protocol
from freemvmt.server.settings import GENERATE_COMMAND, TOKEN_VARIABLE, ServeSettings

if TYPE_CHECKING:
    from freemvmt.search.retriever import Retriever
    from freemvmt.server.api.app import API

_IDLE_SECONDS = 30  # until a connection without a request is closed


class Server(uvicorn.Server):
    """A uvicorn server that reports when it listens, and that does not raise a signal again after it has stopped."""

    on_listening: Callable[[], None] | None = None
    """Called when the server accepts requests."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, and call ``on_listening``."""
        await super().startup(sockets)
        if self.on_listening is not None:
            self.on_listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Finish running requests at the first signal; stop at once at the second SIGINT.

        Only the main thread receives signals.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous_handlers = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)


def make_server(retriever: "Retriever", settings: ServeSettings) -> Server:
    """A server over ``retriever``, warmed up so that the first response is as fast as later ones after a pause."""
    return Server(server_config(make_app(retriever, settings), settings))


def make_app(retriever: "Retriever", settings: ServeSettings) -> "API":
    """The application over ``retriever``, warmed up."""
    from freemvmt.server.api.app import create_app  # here: the supervisor does without it

    app = create_app(retriever, settings)
    app.service.prepare()
    return app


def server_config(app: Any, settings: ServeSettings, factory: bool = False) -> uvicorn.Config:
    """uvicorn's settings for ``app``, which with ``factory`` is a function that returns the application."""
    protocol: Any = functools.partial(Protocol, timeout=settings.body_timeout)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # our own log has the errors of clients
    return uvicorn.Config(
        app,
        factory=factory,
        workers=max(1, settings.workers),
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.proxies,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.timeout + settings.body_timeout) + 1,
    )


def address_of(settings: ServeSettings, port: int) -> str:
    """Where the server answers, without a path."""
    host = f"[{settings.host}]" if ":" in settings.host and "[" not in settings.host else settings.host
    return f"http://{host}:{port}"


def print_address(console: Console, retriever: "Retriever", settings: ServeSettings, port: int) -> None:
    """Print what is served, and the addresses of the page and the API."""
    about, address = retriever.about, address_of(settings, port)
    access = "read only" if settings.read_only else "writing needs the token" if settings.token else "writable"
    console.line(f"serving   {about['name']}: {count_of(len(retriever), 'document')}, {access}")
    console.line(f"page      {address}/")
    console.line(f"API       {address}/docs")
    if retriever.reranker is not None:
        console.line(f"rerank    the {settings.depth} best of a search, by {retriever.reranker.name}")
    if settings.token_is_short:
        console.line(f"note      {TOKEN_VARIABLE} can be guessed; before others reach this server: {GENERATE_COMMAND}")
    sys.stdout.flush()


def set_up_logs(settings: ServeSettings) -> None:
    """Log to stderr, without the console's wrapping and colours, and with tracebacks."""
    for name, enabled in (("freemvmt.access", settings.access_log), ("freemvmt.server", True)):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(logging.INFO if enabled else logging.CRITICAL)
        logger.handlers = [logging.StreamHandler()]
