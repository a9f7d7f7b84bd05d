"""The processes (``worker``) that train trials of a sweep at the same time, as the sweep's own process sees them.

They are processes of their own, not forked: a copy of PyTorch's threads would hang. They share no session with the
sweep, so Ctrl-C in a terminal reaches the sweep alone, which then closes their stdin.
"""

import json
import os
import queue
import signal
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from freemvmt.errors import UserError
from freemvmt.runtime.cores import cores
from freemvmt.runtime.processes import command_of
from freemvmt.tuning.worker import GRACE


@dataclass(frozen=True)
class Started:
    """A trial trains; ``offline_runs`` is the path pattern of W&B's offline runs."""

    trial: int
    offline_runs: str


@dataclass(frozen=True)
class Epoch:
    """The score of an epoch; the trial waits for ``Workers.answer``."""

    trial: int
    epoch: int
    score: float


@dataclass(frozen=True)
class End:
    """The end of a trial: its score, its error, or None if it was pruned."""

    trial: int
    outcome: float | Exception | None


class Workers:
    """Up to ``jobs`` processes; each is started when a trial needs it. A context: at its end they are gone."""

    def __init__(self, jobs: int, shared: dict[str, Any]) -> None:
        self._threads, self._shared = threads_of_each(jobs), shared
        self._lines: queue.SimpleQueue[tuple[_Process, str]] = queue.SimpleQueue()
        self._processes: set[_Process] = set()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes:
            process.close()
        for process in self._processes:
            process.wait()

    def train(self, trial: int, settings: dict[str, Any]) -> None:
        """Train a trial, in a process that has none."""
        process = next((process for process in self._processes if process.trial is None), None)
        if process is None:
            process = _Process(self._threads, self._lines)
            process.send(self._shared)
            self._processes.add(process)
        process.trial = trial
        process.send({"number": trial, "settings": settings})

    def answer(self, trial: int, *, prune: bool) -> None:
        """Let a trial go on after an epoch, or end it."""
        process = next(process for process in self._processes if process.trial == trial)
        process.send({"prune": prune})

    def receive(self, timeout: float) -> Started | Epoch | End | None:
        """The next news of a trial; None if there is none in ``timeout`` seconds."""
        try:
            process, line = self._lines.get(timeout=timeout)
        except queue.Empty:
            return None
        trial = process.trial
        if not line:
            self._processes.remove(process)
            reason = f"its process ended ({process.wait()})"
            return None if trial is None else End(trial, RuntimeError(reason))
        assert trial is not None, "a process without a trial says nothing"
        news = _news(trial, json.loads(line))
        if isinstance(news, End):
            process.trial = None
        return news


def threads_of_each(jobs: int) -> int:
    """The number of threads of each of ``jobs`` processes. ``OMP_NUM_THREADS``, if set, is the number of all."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, (int(given) if given.isdigit() else cores()) // jobs)


def _news(trial: int, content: dict[str, Any]) -> Started | Epoch | End:
    if "offline_runs" in content:
        return Started(trial, content["offline_runs"])
    if "epoch" in content:
        return Epoch(trial, content["epoch"], content["score"])
    if "error" not in content:
        return End(trial, content.get("score"))
    kind = UserError if content["is_user_error"] else RuntimeError
    error = kind(content["error"])
    error.add_note(content["traceback"])  # shown where the error ends the sweep
    return End(trial, error)


class _Process:
    """One worker, and the number of its trial. A thread listens to it; its last line is empty."""

    def __init__(self, threads: int, lines: "queue.SimpleQueue[tuple[_Process, str]]") -> None:
        self.trial: int | None = None
        self._process = subprocess.Popen(
            command_of("freemvmt.tuning.worker.main"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            encoding="utf-8",
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, args=(lines,), daemon=True)
        self._listener.start()

    def _listen(self, lines: "queue.SimpleQueue[tuple[_Process, str]]") -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                lines.put((self, line))
        lines.put((self, ""))

    def send(self, content: dict[str, Any]) -> None:
        """Send one object; to a process that has died, nothing: its last line says so."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(content) + "\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """Ask the process to end."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # what was not yet written
            self._process.stdin.close()

    def wait(self) -> str:
        """Wait for the end of the process, and return how it ended; it is killed if that takes too long."""
        self.close()
        try:
            code = self._process.wait(GRACE + 5)
        except BaseException as error:
            self._process.kill()
            code = self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):  # a second Ctrl-C
                raise
        self._listener.join()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
