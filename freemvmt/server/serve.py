"""Load a bundle, listen, and serve until the end. A bundle is loaded while the server's libraries are imported: much of
the one is reading and summing files, all of the other is Python, and the first answer waits only for the longer."""

import gc
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from freemvmt.runtime.console import Console
from freemvmt.runtime.devices import share_freed_memory
from freemvmt.search.retriever import Retriever
from freemvmt.server.http.listener import listen
from freemvmt.server.settings import METRICS_VARIABLE, ServeSettings


def serve(bundle: Path, settings: ServeSettings, console: Console) -> int:
    """Serve ``bundle`` until SIGTERM or SIGINT; 0.

    Raises ``UserError`` when it is damaged, the address cannot be had, or others could write without a token.
    """
    settings.check_exposure()
    os.environ.pop(METRICS_VARIABLE, None)  # one process keeps its numbers in itself, whatever others here do
    with listen(settings) as listener:
        return serve_on(listener, bundle, settings, console)


def serve_on(listener: socket.socket, bundle: Path, settings: ServeSettings, console: Console | None) -> int:
    """Serve ``bundle`` on a socket that is bound; without ``console`` nothing is said of it."""
    share_freed_memory()
    gc.disable()  # what is made now stays: to look through it again and again takes a tenth of the start
    try:
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(Retriever.load, bundle, graphs=settings.model)
            from freemvmt.server import uvicorn_server as run

            retriever = loading.result()
    finally:
        gc.enable()
    try:
        server = run.make_server(retriever, settings)
        run.set_up_logs(settings)
        if console is not None:
            server.on_listening = lambda: run.say_where(console, retriever, settings, listener)
        server.run(sockets=[listener])
    finally:
        retriever.close()
    return 0
