"""Ctrl-C and SIGTERM end a training after the current step, so that no progress is lost."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGINT or SIGTERM came; a second signal has its usual effect."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield event.is_set
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    previous = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    def on_signal(number: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(number, previous[signal.Signals(number)])

    try:
        for number in previous:
            signal.signal(number, on_signal)
        yield event.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
