"""The transport over stdin and stdout: a client starts the process, and ends it by closing its stdin."""

import os
import signal
from typing import Any

import anyio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server


def run_stdio(server: Server[Any]) -> None:
    """Serve until stdin closes. SIGTERM and SIGINT end the process at once, with exit code 0.

    Nothing but the protocol reaches stdout; while this runs, what else is printed goes to stderr.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        # A thread waits in a read of stdin that nothing can interrupt, and there is nothing to save.
        signal.signal(number, lambda *_: os._exit(0))
    try:
        anyio.run(_serve, server)
    except* BrokenPipeError:  # the client is gone
        pass


async def _serve(server: Server[Any]) -> None:
    async with stdio_server() as (read_stream, write_stream):
        await server.run(read_stream, write_stream, server.create_initialization_options())
