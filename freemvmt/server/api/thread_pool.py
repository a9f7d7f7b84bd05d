"""Threads for blocking work behind a bounded queue: what finds it full is refused, what lasts too long is let go."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from freemvmt.server.http.errors import Refusal

T = TypeVar("T")


class Workers:
    """``threads`` calls run at once and ``queue`` more wait; each has ``timeout`` seconds until it is answered.

    ``prepare`` is called once in each thread.

    All methods but ``close`` belong to the event loop's thread.
    """

    def __init__(self, threads: int, queue: int, timeout: float, prepare: Callable[[], None] = lambda: None) -> None:
        self.threads, self.queue, self.timeout = threads, queue, timeout
        self._pool = ThreadPoolExecutor(threads, initializer=prepare)
        self._admitted = 0
        self.changed: Callable[[], None] = lambda: None  # called when more or fewer may wait

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread."""
        return max(0, self._admitted - self.threads)

    def admit(self) -> None:
        """Take a place in the queue; ``Refusal`` (503) when there is none."""
        if self._admitted >= self.threads + self.queue:
            raise Refusal(503, "busy", "too many requests wait already; try again", {"Retry-After": "1"})
        self._admitted += 1
        self.changed()

    def leave(self) -> None:
        """Give a place back."""
        self._admitted -= 1
        self.changed()

    async def run(self, call: Callable[..., T], *arguments: object) -> T:
        """``call(*arguments)`` in a thread.

        Raises ``Refusal``: 503 when the queue is full, 504 when the time is over. A call that has begun cannot be
        stopped: it keeps its place until it ends, so that calls that never end fill the queue, not the memory.
        """
        self.admit()
        loop = asyncio.get_running_loop()
        future = self._pool.submit(call, *arguments)

        def leave(_: "Future[T]") -> None:
            # An event loop that is closed has nobody left to count for.
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.leave)

        future.add_done_callback(leave)
        return await self.in_time(asyncio.wrap_future(future))

    async def in_time(self, future: "asyncio.Future[T]") -> T:
        """What ``future`` gives, or ``Refusal`` (504) when the time is over."""
        try:
            async with asyncio.timeout(self.timeout):
                return await future
        except TimeoutError:
            message = f"no answer within {self.timeout:g} s; ask for less, or later"
            raise Refusal(504, "timeout", message) from None

    def submit(self, call: Callable[[], None]) -> None:
        """Start ``call`` in a thread for requests that were admitted already."""
        self._pool.submit(call)

    def close(self) -> None:
        """Wait for what has begun, drop what waits."""
        self._pool.shutdown(wait=True, cancel_futures=True)
