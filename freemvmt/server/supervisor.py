"""Several processes behind one address; a process that dies is replaced.

The parent binds the address and answers no requests; its children inherit the socket and serve. The system keeps
connections that no process has accepted in the socket's own queue. When a child is killed, only the requests that it
was answering are lost.
"""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from freemvmt.errors import UserError
from freemvmt.runtime.exit_codes import run
from freemvmt.server.http.listener import listen
from freemvmt.server.settings import METRICS_VARIABLE, TOKEN_VARIABLE, ServeSettings

_BACKLOG = 2048  # connections that can wait to be accepted
_DEATH_WINDOW, _MAX_DEATHS = 10.0, 5  # seconds, deaths per worker: with more, a restart does not help


def supervise(bundle: Path, settings: ServeSettings) -> int:
    """Serve ``bundle`` with ``settings.workers`` processes until SIGTERM or SIGINT.

    Returns 0, or the exit code of a child that failed. Raises ``UserError`` when the address cannot be used, others
    could write without a token, or no folder for the metrics can be made.
    """
    settings.check_exposure()
    with listen(settings) as listener, _metrics_folder_in_memory() as metrics_folder:
        listener.listen(_BACKLOG)
        group = _WorkerGroup(listener, bundle, settings, metrics_folder)
        previous_handlers = {number: signal.signal(number, group.stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return group.serve()
        finally:
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)


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


class _WorkerGroup:
    def __init__(self, listener: socket.socket, bundle: Path, settings: ServeSettings, metrics_folder: Path) -> None:
        self._listener, self._settings, self._metrics_folder = listener, settings, metrics_folder
        values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(ServeSettings)}
        del values["token"]  # it goes in the environment: other users can read the command line
        self._arguments = [str(listener.fileno()), str(bundle), json.dumps(values)]
        self._environment = dict(os.environ) | {METRICS_VARIABLE: str(metrics_folder)}
        if settings.token:
            self._environment[TOKEN_VARIABLE] = settings.token
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False
        self._deaths: list[float] = []

    def serve(self) -> int:
        """Start the children and replace those that die; the exit code, once all have ended."""
        for number in range(self._settings.workers):
            self._start(announce=number == 0)
        exit_code = 0
        while self._children:
            for child in [child for child in self._children if child.poll() is not None]:
                self._children.remove(child)
                self._remove_gauges(child.pid)
                if self._stopping:  # a child that was still starting dies of our signal
                    exit_code = exit_code or (0 if child.returncode == -signal.SIGTERM else child.returncode)
                elif self._is_hopeless(child.returncode):
                    exit_code = abs(child.returncode) or 1
                    self.stop(signal.SIGTERM, None)
                else:
                    self._start()
            time.sleep(0.02)
        return exit_code

    def _is_hopeless(self, code: int) -> bool:
        """Whether a restart cannot help: exit code 2 is a ``UserError``, or too many children have died."""
        now = time.monotonic()
        self._deaths = [*(death for death in self._deaths if now - death < _DEATH_WINDOW), now]
        return code == 2 or len(self._deaths) >= _MAX_DEATHS * self._settings.workers

    def _remove_gauges(self, pid: int) -> None:
        """Remove the current values of a process that has ended from /metrics; its counts stay."""
        for file in self._metrics_folder.glob(f"gauge_live*_{pid}.db"):
            file.unlink(missing_ok=True)

    def _start(self, announce: bool = False) -> None:
        command = [sys.executable, "-m", "freemvmt.server.supervisor", *self._arguments, *(["announce"] * announce)]
        listener = self._listener.fileno()
        self._metrics_folder.mkdir(mode=0o700, exist_ok=True)  # the system may have removed it
        self._children.append(subprocess.Popen(command, pass_fds=[listener], env=self._environment))

    def stop(self, number: int, frame: object) -> None:
        """Let the children finish their requests; at the second signal, kill them."""
        for child in self._children:
            child.send_signal(signal.SIGKILL if self._stopping else signal.SIGTERM)
        self._stopping = True


def run_child(arguments: list[str]) -> int:
    """Serve on the socket that the parent has passed to this process."""
    from freemvmt.runtime.console import Console
    from freemvmt.server.serve import serve_on

    listener, bundle, settings, *announce = arguments
    values = json.loads(settings)
    values |= {name: tuple(values[name]) for name in ("allowed_hosts", "trusted_proxies")}
    console = Console() if announce else None
    try:
        with socket.socket(fileno=int(listener)) as sock:
            return serve_on(sock, Path(bundle), ServeSettings(**values), console)
    except OSError as error:
        raise UserError(f"the socket that was given cannot be served on ({error}); start the server again") from error


if __name__ == "__main__":
    sys.exit(run(lambda: run_child(sys.argv[1:])))
