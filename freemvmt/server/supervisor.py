"""Several processes behind one address, under uvicorn's supervisor, which replaces a process that dies or hangs.

The parent binds the address and answers no requests; its children inherit the socket and serve. The system keeps
connections that no process has accepted in the socket's own queue. When a child is killed, only the requests that it
was answering are lost.
"""

import contextlib
import functools
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.synchronize import Lock
from pathlib import Path
from typing import TYPE_CHECKING

from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from freemvmt.errors import UserError
from freemvmt.runtime.console import Console
from freemvmt.runtime.exit_codes import run
from freemvmt.server.http.listener import listen
from freemvmt.server.settings import METRICS_VARIABLE, ServeSettings
from freemvmt.server.uvicorn_server import make_app, print_address, server_config, set_up_logs

if TYPE_CHECKING:
    from freemvmt.server.api.app import API

_BACKLOG = 2048  # connections that can wait to be accepted


def supervise(bundle: Path, settings: ServeSettings) -> int:
    """Serve ``bundle`` with ``settings.workers`` processes until SIGTERM or SIGINT.

    Returns 0, or 2 when a child cannot start. Raises ``UserError`` when the address cannot be used, others could write
    without a token, or no folder for the metrics can be made.
    """
    settings.check_exposure()
    with listen(settings) as listener, _metrics_folder_in_memory() as folder:
        listener.listen(_BACKLOG)
        os.environ[METRICS_VARIABLE] = str(folder)
        port = listener.getsockname()[1]
        app = functools.partial(_make_app, bundle, settings, port, get_context("spawn").Lock())
        group = Multiprocess(server_config(app, settings, factory=True), [listener])
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # the child has said why it cannot start
        group.run()
        return 2 if any(process.exitcode == STARTUP_FAILURE for process in group.processes) else 0


def _make_app(bundle: Path, settings: ServeSettings, port: int, unannounced: Lock) -> "API":
    """The application of one child; the first child prints the address. A ``UserError`` ends all children."""
    from freemvmt.server.serve import load

    apps: list[API] = []

    def start() -> None:
        retriever = load(bundle, settings)
        apps.append(make_app(retriever, settings))
        set_up_logs(settings)
        if unannounced.acquire(block=False):
            print_address(Console(), retriever, settings, port)

    if run(start):
        sys.exit(STARTUP_FAILURE)
    return apps[0]


@contextlib.contextmanager
def _metrics_folder_in_memory() -> Iterator[Path]:
    """A temporary folder for the numbers of /metrics, in memory where possible.

    On a full disk, a signal would kill a process that writes to a memory-mapped file.
    """
    # A folder of our own is made inside it.
    shared = Path("/dev/shm")  # nosec B108
    parent = shared if os.access(shared, os.W_OK | os.X_OK) else None
    try:
        folder = tempfile.TemporaryDirectory(prefix="two-towers-", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        message = (
            f"--workers needs a folder for the numbers of /metrics ({error}); set TMPDIR to one that can be written"
        )
        raise UserError(message) from error
    with folder:
        yield Path(folder.name)
