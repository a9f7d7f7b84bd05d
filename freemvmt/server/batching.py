"""Single queries that wait at the same time are searched as one list.

No query waits for another unless a window is set: while the threads are busy queries gather by themselves, and the
thread that comes free takes all of a kind. A kind is how they are searched: k, method and weight.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from freemvmt.server.workers import Workers

Kind = TypeVar("Kind", bound=Hashable)
Found = TypeVar("Found")


class Batcher(Generic[Kind, Found]):
    """``search(queries, kind)`` gives one result a query; ``most`` queries at once, after ``window`` seconds."""

    def __init__(
        self, search: Callable[[list[str], Kind], list[Found]], workers: Workers, most: int, window: float
    ) -> None:
        self._search, self._workers, self._most, self._window = search, workers, most, window
        self._lock = threading.Lock()
        self._waiting: dict[Kind, list[tuple[str, asyncio.Future[Found]]]] = {}

    async def search(self, query: str, kind: Kind) -> Found:
        """The result of one query. Raises what the search raises, and ``Refusal`` as ``Workers.run`` does."""
        loop = asyncio.get_running_loop()
        with self._workers.admitted():
            future: asyncio.Future[Found] = loop.create_future()
            with self._lock:
                waiting = self._waiting.setdefault(kind, [])
                waiting.append((query, future))
                first = len(waiting) % self._most == 1 or self._most == 1
            if first:  # the others of its batch come along
                self._workers.submit(lambda: self._run(kind, loop))
            return await self._workers.in_time(future)

    def _run(self, kind: Kind, loop: asyncio.AbstractEventLoop) -> None:
        if self._window:
            time.sleep(self._window)
        with self._lock:
            waiting = self._waiting.pop(kind, [])
            taken, rest = waiting[: self._most], waiting[self._most :]
            if rest:
                self._waiting[kind] = rest
        taken = [(query, future) for query, future in taken if not future.done()]  # done: its time is over
        if not taken:
            return
        try:
            found: list[Found] | Exception = self._search([query for query, _ in taken], kind)
        except Exception as error:  # noqa: BLE001 - every request of the batch is told
            found = error
        loop.call_soon_threadsafe(_deliver, [future for _, future in taken], found)


def _deliver(futures: "list[asyncio.Future[Found]]", found: list[Found] | Exception) -> None:
    for number, future in enumerate(futures):
        if future.done():  # its time was over meanwhile
            continue
        if isinstance(found, Exception):
            future.set_exception(found)
        else:
            future.set_result(found[number])
