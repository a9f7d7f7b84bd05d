"""Load a bundle, and serve it to agents over one of the two transports.

The SDK takes longer to import than most bundles to load, so a thread loads the bundle in the meantime.
"""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from freemvmt.errors import UserError
from freemvmt.runtime.console import Console, count_of
from freemvmt.server.http.listener import listen
from freemvmt.server.serve import load
from freemvmt.server.settings import TOKEN_VARIABLE, ServeSettings

if TYPE_CHECKING:
    from freemvmt.search.retriever import Retriever

_MODULES = ("freemvmt.server.mcp.server", "freemvmt.server.mcp.stdio")
_HTTP_MODULES = ("freemvmt.server.mcp.server", "freemvmt.server.mcp.http", "freemvmt.server.uvicorn_server")


def serve_stdio(bundle: Path, settings: ServeSettings) -> int:
    """Serve ``bundle`` over stdin and stdout until stdin closes; returns 0."""
    retriever = load(bundle, settings, _MODULES)
    from freemvmt.server.mcp.server import make_server
    from freemvmt.server.mcp.stdio import run_stdio

    with contextlib.closing(retriever):
        run_stdio(make_server(retriever, settings))
    return 0


def serve_http(bundle: Path, settings: ServeSettings, console: Console) -> int:
    """Serve ``bundle`` over HTTP until SIGTERM or SIGINT; returns 0.

    Raises ``UserError`` when the address cannot be used, or others could search without a token.
    """
    if not settings.on_loopback and settings.token is None:
        raise UserError(f"whoever reaches {settings.host} could read the documents; set {TOKEN_VARIABLE}")
    settings.check_exposure()
    with listen(settings) as listener:
        retriever = load(bundle, settings, _HTTP_MODULES)
        from freemvmt.server import uvicorn_server
        from freemvmt.server.mcp.http import make_app
        from freemvmt.server.mcp.server import make_server

        with contextlib.closing(retriever):
            app = make_app(make_server(retriever, settings), retriever, settings)
            server = uvicorn_server.Server(uvicorn_server.server_config(app, settings))
            uvicorn_server.set_up_logs(settings)
            address = uvicorn_server.address_of(settings, listener.getsockname()[1])
            server.on_listening = lambda: _print_endpoint(console, retriever, settings, address)
            server.run(sockets=[listener])
    return 0


def _print_endpoint(console: Console, retriever: "Retriever", settings: ServeSettings, address: str) -> None:
    from freemvmt.server.mcp.http import PATH

    access = "anyone on this machine may search" if settings.token is None else "searching needs the token"
    console.line(f"serving   {retriever.about['name']}: {count_of(len(retriever), 'document')}, {access}")
    console.line(f"MCP       {address}{PATH}")
    sys.stdout.flush()
