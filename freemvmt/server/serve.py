"""Load a bundle, listen, and serve.

A thread loads the bundle while the server's libraries are imported: the first mostly reads and hashes files, the
second runs Python, so the start takes only as long as the slower of the two.
"""

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
    """Serve ``bundle`` in this process until SIGTERM or SIGINT; returns 0.

    Raises ``UserError`` when it is damaged, the address cannot be used, or others could write without a token.
    """
    settings.check_exposure()
    os.environ.pop(METRICS_VARIABLE, None)  # a single process keeps its metrics in its own memory
    with listen(settings) as listener:
        return serve_on(listener, bundle, settings, console)


def serve_on(listener: socket.socket, bundle: Path, settings: ServeSettings, console: Console | None) -> int:
    """Serve ``bundle`` on a bound socket; without ``console`` no address is printed."""
    share_freed_memory()
    gc.disable()  # the objects that are made now stay; collecting garbage would take a tenth of the start
    try:
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(Retriever.load, bundle, graphs=settings.model)
            from freemvmt.server import uvicorn_server as server_module

            retriever = loading.result()
    finally:
        gc.enable()
    try:
        server = server_module.make_server(retriever, settings)
        server_module.set_up_logs(settings)
        if console is not None:
            server.on_listening = lambda: server_module.print_address(console, retriever, settings, listener)
        server.run(sockets=[listener])
    finally:
        retriever.close()
    return 0
