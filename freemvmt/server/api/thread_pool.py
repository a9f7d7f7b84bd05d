"""Threads for blocking work behind a bounded queue: calls are refused when it is full, and have a timeout."""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from freemvmt.server.http.errors import Refusal

T = TypeVar("T")


class ThreadPool:
    """Runs up to ``threads`` calls at once while ``queue`` more wait; each has ``timeout`` seconds in all.

    ``prepare`` is called once in each thread. All methods except ``close`` must be called in the event loop's thread.
    """

    def __init__(self, threads: int, queue: int, timeout: float, prepare: Callable[[], None] = lambda: None) -> None:
        self.threads, self.queue, self.timeout = threads, queue, timeout
        self._pool = ThreadPoolExecutor(threads, initializer=prepare)
        self._active = 0
        self.on_change: Callable[[], None] = lambda: None  # called when ``waiting`` may have changed

    @property
    def waiting(self) -> int:
        """The number of calls that wait for a thread."""
        return max(0, self._active - self.threads)

    def admit(self) -> None:
        """Take a place in the queue; ``Refusal`` (503) when the queue is full."""
        if self._active >= self.threads + self.queue:
            raise Refusal(503, "busy", "too many requests wait already; try again", {"Retry-After": "1"})
        self._active += 1
        self.on_change()

    def leave(self) -> None:
        """Give a place in the queue back."""
        self._active -= 1
        self.on_change()

    async def run(self, call: Callable[..., T], *arguments: object) -> T:
        """The result of ``call(*arguments)``, run in a thread.

        Raises ``Refusal``: 503 when the queue is full, 504 after the timeout. A call that has begun cannot be stopped.
        It keeps its place until it ends, so that calls that never end fill the queue, not the memory.
        """
        self.admit()
        loop = asyncio.get_running_loop()
        future = self._pool.submit(call, *arguments)

        def leave(_: "Future[T]") -> None:
            # Once the event loop is closed, the count is not used.
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.leave)

        future.add_done_callback(leave)
        return await self.with_timeout(asyncio.wrap_future(future))

    async def with_timeout(self, future: "asyncio.Future[T]") -> T:
        """The result of ``future``; ``Refusal`` (504) after the timeout."""
        try:
            async with asyncio.timeout(self.timeout):
                return await future
        except TimeoutError:
            message = f"no answer within {self.timeout:g} s; ask for less, or later"
            raise Refusal(504, "timeout", message) from None

    def submit(self, call: Callable[[], None]) -> None:
        """Run ``call`` in a thread, for requests that ``admit`` has let in."""
        self._pool.submit(call)

    def close(self) -> None:
        """Wait for the calls that have begun, and drop the ones that wait."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def one_core() -> None:
    """Limit a thread's searches to one core: with more, the threads would wait for one another."""
    import faiss

    faiss.omp_set_num_threads(1)
    if (torch := sys.modules.get("torch")) is not None:  # with ONNX graphs, PyTorch is not loaded
        torch.set_num_threads(1)
