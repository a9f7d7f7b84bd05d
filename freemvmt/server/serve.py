"""Load a bundle, listen, and serve.

A thread loads the bundle while the server's libraries are imported: the first mostly reads and hashes files, the
second runs Python, so the start takes only as long as the slower of the two.
"""

import contextlib
import gc
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

from freemvmt.runtime.console import Console
from freemvmt.runtime.devices import share_freed_memory
from freemvmt.runtime.garbage import no_collection
from freemvmt.search.reranker import load_reranker
from freemvmt.search.retriever import Retriever
from freemvmt.server.http.listener import listen
from freemvmt.server.settings import METRICS_VARIABLE, ServeSettings

_MODULES = ("freemvmt.server.uvicorn_server", "freemvmt.server.api.app")


def serve(bundle: Path, settings: ServeSettings, console: Console) -> int:
    """Serve ``bundle`` in this process until SIGTERM or SIGINT; returns 0.

    Raises ``UserError`` when it is damaged, the address cannot be used, or others could write without a token.
    """
    settings.check_exposure()
    os.environ.pop(METRICS_VARIABLE, None)  # a single process keeps its metrics in its own memory
    with listen(settings) as listener:
        retriever = load(bundle, settings)
        from freemvmt.server import uvicorn_server

        with contextlib.closing(retriever), _follower(retriever, settings):
            server = uvicorn_server.make_server(retriever, settings)
            uvicorn_server.set_up_logs(settings)
            port = listener.getsockname()[1]
            server.on_listening = lambda: uvicorn_server.print_address(console, retriever, settings, port)
            server.run(sockets=[listener])
    return 0


def _follower(retriever: Retriever, settings: ServeSettings) -> contextlib.AbstractContextManager[object]:
    """What keeps the bundle in step with its folder while it is served, if that is asked for."""
    if not settings.sync:
        return contextlib.nullcontext()
    from freemvmt.server.follower import Follower

    return Follower(retriever)


def load(bundle: Path, settings: ServeSettings, modules: Sequence[str] = _MODULES) -> Retriever:
    """Load ``bundle`` while ``modules``, the server's, are imported with their libraries.

    The garbage collector passes over all of it from then on: to look through it would stop every request for 15 ms,
    with PyTorch for 90, and take as long at the end.
    """
    share_freed_memory()
    with no_collection(), ThreadPoolExecutor(1) as pool:
        loading = pool.submit(Retriever.load, bundle, graphs=settings.model, query_rows=settings.query_rows)
        for module in modules:
            import_module(module)
        retriever = loading.result()
        retriever.reranker = load_reranker(settings, settings.search_threads)
        gc.freeze()
        return retriever
