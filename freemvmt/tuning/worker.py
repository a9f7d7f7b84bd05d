"""A process that trains trials, one after the other, for a sweep in another process (``workers``).

It reads a JSON object a line on stdin and writes one a line on stdout. In: first what all trials share, then the
settings of a trial, and after each epoch whether to prune. Out: the score of an epoch, then the end of the trial. When
stdin closes, the process ends: at a training's next step, and after ``GRACE`` seconds at the latest.
"""

import _thread
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from freemvmt.config import TrainConfig, config_of, replace
from freemvmt.errors import UserError
from freemvmt.runtime.console import QUIET, Console
from freemvmt.tuning.trial import OWN, Trainer, identity, offline_runs, offline_tracker

if TYPE_CHECKING:
    from freemvmt.trainer.dataset import TrainingData

GRACE = 10.0  # seconds


def main() -> None:
    """Serve the process whose pipes are stdin and stdout, until it closes them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it
    Console(stderr=True)  # prints warnings as the sweep's own process does
    with suppress(KeyboardInterrupt, BrokenPipeError):
        _Worker(_Pipes()).serve()


class _Pruned(Exception):  # noqa: N818 - no error
    """The sweep ends this trial."""


class _Pipes:
    """The lines from and to the sweep."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # what a library prints is no line for the sweep
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self._lines.put(line)
        self._lines.put("")
        _thread.interrupt_main()  # ends a training as Ctrl-C does
        time.sleep(GRACE)
        os._exit(1)

    def receive(self) -> dict[str, Any]:
        """The next object; ``KeyboardInterrupt`` at the end."""
        line = self._lines.get()
        if not line:
            raise KeyboardInterrupt
        content: dict[str, Any] = json.loads(line)
        return content

    def send(self, **content: object) -> None:
        """Send one object."""
        self._out.write(json.dumps(content) + "\n")
        self._out.flush()


class _Worker:
    def __init__(self, pipes: _Pipes) -> None:
        shared = pipes.receive()
        self._pipes = pipes
        self._config: TrainConfig = config_of(shared["config"])
        self._sweep_name: str = shared["sweep_name"]
        self._identity: tuple[str, int] = tuple(shared["data"])
        self._data: TrainingData | None = None

    def serve(self) -> None:
        """Train one trial after the other; whatever error a trial raises, the next can be sound."""
        while True:
            trial = self._pipes.receive()
            try:
                self._pipes.send(score=self._score(trial["number"], trial["settings"]))
            except _Pruned:
                self._pipes.send(pruned=True)
            except BrokenPipeError:
                raise
            except Exception as error:  # noqa: BLE001 - the sweep decides what it means
                is_wrong_setting = isinstance(error, UserError)
                self._pipes.send(error=str(error), is_user_error=is_wrong_setting, traceback=traceback.format_exc())

    def _score(self, number: int, settings: dict[str, Any]) -> float:
        self._data = self._data or self._read()
        config = replace(self._config, settings)
        tracker = offline_tracker(config, self._sweep_name, number)
        self._pipes.send(offline_runs=offline_runs(tracker))
        return Trainer(OWN.train, self._data).score(config, tracker, self._on_epoch)

    def _on_epoch(self, epoch: int, score: float) -> None:
        self._pipes.send(epoch=epoch, score=score)
        if self._pipes.receive()["prune"]:
            raise _Pruned

    def _read(self) -> "TrainingData":
        logging.disable(logging.WARNING)  # the sweep has read the same data, and said what there is to say
        try:
            data = OWN.prepare(self._config, QUIET)
        finally:
            logging.disable(logging.NOTSET)
        if identity(data) != self._identity:
            raise UserError(f"the data set has changed since the sweep began: {data.name}")
        return data
