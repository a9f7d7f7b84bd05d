"""`two-towers mcp`: a bundle for agents, by the Model Context Protocol. This module must load fast."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import tyro

from freemvmt.cli.parsing import BundleArgument, parse
from freemvmt.errors import UserError
from freemvmt.runtime.console import Console
from freemvmt.runtime.optional import require
from freemvmt.server.settings import ServeSettings, token_of_environment

_TIMEOUT = 60.0  # seconds: the first search may load PyTorch, for a transformer that encodes queries
_HOST, _PORT = "127.0.0.1", 8001


@dataclass(frozen=True, kw_only=True)
class McpOptions:
    """Let agents search a bundle: the Model Context Protocol, over stdin and stdout unless --http is given."""

    bundle: BundleArgument
    http: bool = False
    """Serve over (streamable) HTTP, at /mcp. If TWO_TOWERS_TOKEN is set, a client must send it as a bearer token."""
    host: str = _HOST
    """http: address to listen on; beyond this machine it needs TWO_TOWERS_TOKEN."""
    port: int = _PORT
    """http: port to listen on; 0: any that is free."""
    allowed_hosts: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """http: names by which this server may be called; none given: on loopback localhost only, elsewhere any."""


def mcp(argv: Sequence[str]) -> int:
    """Let agents search a bundle, by the Model Context Protocol."""
    options = parse(McpOptions, argv, "two-towers mcp")
    if not options.http and (options.host, options.port, options.allowed_hosts) != (_HOST, _PORT, ()):
        raise UserError("--host, --port and --allowed-hosts are for --http; add it, or leave them out")
    token = token_of_environment() if options.http else None
    settings = ServeSettings(
        host=options.host,
        port=options.port,
        allowed_hosts=options.allowed_hosts,
        read_only=True,
        protect_reads=token is not None,
        timeout=_TIMEOUT,
        token=token,
    )
    for library in ("mcp", "faiss"):
        if find_spec(library) is None:
            require(library)  # raises an error that names the extra
    from freemvmt.server.mcp.serve import serve_http, serve_stdio

    console = Console(stderr=not options.http)
    bundle = Path(options.bundle)
    return serve_http(bundle, settings, console) if options.http else serve_stdio(bundle, settings)
