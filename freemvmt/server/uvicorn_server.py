"""The server itself: it says where it listens, and stops in order: what is under way is finished first."""

import contextlib
import logging
import math
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator

import uvicorn

from freemvmt.runtime.console import Console
from freemvmt.search.retriever import Retriever
from freemvmt.server.api.app import create_app
from freemvmt.server.http.protocol import protocol
from freemvmt.server.settings import GENERATE_COMMAND, TOKEN_VARIABLE, ServeSettings

_IDLE_SECONDS = 30  # that a connection is kept without a request


class Server(uvicorn.Server):
    """uvicorn, which says when it listens, and ends by itself after a signal instead of raising it once more."""

    on_listening: Callable[[], None] | None = None
    """Called once requests are taken."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.on_listening is not None:
            self.on_listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Stop in order at the first signal, at once at the second SIGINT. Only a main thread gets signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def make_server(retriever: Retriever, settings: ServeSettings) -> Server:
    """A server over ``retriever`` that has searched once, so that its first answer is as fast as the others."""
    app = create_app(retriever, settings)
    app.service.warm_up()
    config = uvicorn.Config(
        app,
        http=protocol(settings.body_timeout),
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
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what it notes of clients stands in our own log
    return Server(config)


def say_where(console: Console, retriever: Retriever, settings: ServeSettings, listener: socket.socket) -> None:
    """What is served, and where."""
    port = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host and "[" not in settings.host else settings.host
    about = retriever.about
    writing = "read only" if settings.read_only else "writing needs the token" if settings.token else "writable"
    console.line(f"serving   {about['name']}: {len(retriever):,} documents, {writing}")
    console.line(f"page      http://{host}:{port}/")
    console.line(f"API       http://{host}:{port}/docs")
    if settings.token_is_short:
        console.line(f"note      {TOKEN_VARIABLE} can be guessed; before others reach this server: {GENERATE_COMMAND}")
    sys.stdout.flush()


def set_up_logs(settings: ServeSettings) -> None:
    """Lines as they are, to stderr: a console would wrap and colour them, and leave tracebacks out."""
    for name, shown in (("freemvmt.access", settings.access_log), ("freemvmt.server", True)):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(logging.INFO if shown else logging.CRITICAL)
        logger.handlers = [logging.StreamHandler()]
