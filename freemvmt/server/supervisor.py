"""Several processes behind one address: who dies is replaced, and what waits to be accepted waits for its successor.

The parent binds the address and never answers; its children inherit the socket and serve. The system keeps the
connections that nobody has accepted yet in the socket's own queue, so that a child that is killed takes with it what
it was answering, and nothing else.
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

_BACKLOG = 2048  # connections that may wait to be accepted
_SOON, _TOO_OFTEN = 10.0, 5  # so many deaths within so many seconds: something is wrong that starting does not mend


def supervise(bundle: Path, settings: ServeSettings) -> int:
    """Serve ``bundle`` by ``settings.workers`` processes until SIGTERM or SIGINT; 0, or what a child could not start
    with. Raises ``UserError`` as ``start.serve`` does."""
    settings.check_exposure()
    with listen(settings) as listener, _memory() as numbers:
        listener.listen(_BACKLOG)
        family = _Family(listener, bundle, settings, numbers)
        before = {number: signal.signal(number, family.stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return family.live()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _memory() -> Iterator[Path]:
    """A folder for the numbers of /metrics while the block runs: in memory where there is such a place, because a
    process ends by a signal when it writes to a mapped file and the disk is full."""
    # A folder of its own is made in it.
    shared = Path("/dev/shm")  # nosec B108
    place = shared if os.access(shared, os.W_OK | os.X_OK) else None
    try:
        folder = tempfile.TemporaryDirectory(prefix="two-towers-", dir=place, ignore_cleanup_errors=True)
    except OSError as error:
        message = (
            f"--workers needs a folder for the numbers of /metrics ({error}); set TMPDIR to one that can be written"
        )
        raise UserError(message) from error
    with folder:
        yield Path(folder.name)


class _Family:
    def __init__(self, listener: socket.socket, bundle: Path, settings: ServeSettings, numbers: Path) -> None:
        self._listener, self._settings, self._numbers = listener, settings, numbers
        plain = {field.name: getattr(settings, field.name) for field in dataclasses.fields(ServeSettings)}
        del plain["token"]  # it goes by the environment, which few can read
        self._words = [str(listener.fileno()), str(bundle), json.dumps(plain)]
        self._environment = dict(os.environ) | {METRICS_VARIABLE: str(numbers)}
        if settings.token:
            self._environment[TOKEN_VARIABLE] = settings.token
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False
        self._deaths: list[float] = []

    def live(self) -> int:
        """Start the children and replace those that die; how the last one ended, once all have."""
        for number in range(self._settings.workers):
            self._start(announce=number == 0)
        ended = 0
        while self._children:
            for child in [one for one in self._children if one.poll() is not None]:
                self._children.remove(child)
                self._forget(child.pid)
                if self._stopping:  # one that was still starting has ended by our signal
                    ended = ended or (0 if child.returncode == -signal.SIGTERM else child.returncode)
                elif self._is_hopeless(child.returncode):
                    ended = abs(child.returncode) or 1
                    self.stop(signal.SIGTERM, None)
                else:
                    self._start()
            time.sleep(0.02)
        return ended

    def _is_hopeless(self, code: int) -> bool:
        """Whether a child that ended with ``code`` need not be started again: it said why, or it is not the first."""
        now = time.monotonic()
        self._deaths = [*(death for death in self._deaths if now - death < _SOON), now]
        return code == 2 or len(self._deaths) >= _TOO_OFTEN * self._settings.workers

    def _forget(self, pid: int) -> None:
        """Take away what a process that has ended was doing; what it counted stays."""
        for file in self._numbers.glob(f"gauge_live*_{pid}.db"):
            file.unlink(missing_ok=True)

    def _start(self, announce: bool = False) -> None:
        command = [sys.executable, "-m", "freemvmt.server.supervisor", *self._words, *(["announce"] * announce)]
        listener = self._listener.fileno()
        self._numbers.mkdir(mode=0o700, exist_ok=True)  # it may have been taken away meanwhile
        self._children.append(subprocess.Popen(command, pass_fds=[listener], env=self._environment))

    def stop(self, number: int, frame: object) -> None:
        """Let all finish what is under way; at the second signal, end them."""
        for child in self._children:
            child.send_signal(signal.SIGKILL if self._stopping else signal.SIGTERM)
        self._stopping = True


def child(words: list[str]) -> int:
    """What a child does: serve on the socket that it was given."""
    from freemvmt.runtime.console import Console
    from freemvmt.server.serve import serve_on

    listener, bundle, settings, *announce = words
    plain = json.loads(settings)
    plain |= {name: tuple(plain[name]) for name in ("allowed_hosts", "trusted_proxies")}
    console = Console() if announce else None
    try:
        with socket.socket(fileno=int(listener)) as inherited:
            return serve_on(inherited, Path(bundle), ServeSettings(**plain), console)
    except OSError as error:
        raise UserError(f"the socket that was given cannot be served on ({error}); start the server again") from error


if __name__ == "__main__":
    sys.exit(run(lambda: child(sys.argv[1:])))
