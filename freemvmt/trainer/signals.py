"""Ctrl-C and SIGTERM end a training after the step that runs: nothing learned is lost."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGINT or SIGTERM came; a second one has its usual effect at once."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield came.is_set
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    def note(number: int, frame: FrameType | None) -> None:
        came.set()
        signal.signal(number, before[signal.Signals(number)])

    try:
        for number in before:
            signal.signal(number, note)
        yield came.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
