"""Single queries that wait at the same time are searched as one list.

No query waits for another unless a window is set: while the threads are busy queries gather by themselves, and the
thread that comes free takes all of a kind. A kind is how they are searched: k, method and weight.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from freemvmt.server.api.thread_pool import Workers

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
        """The result of one query. Raises what the search raises, and ``Refusal`` as ``Workers.run`` does.

        It keeps its place until it was searched, also when nobody waits for the answer any more.
        """
        loop = asyncio.get_running_loop()
        self._workers.admit()
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
        found: dict[int, Found | Exception] = {}
        wanted = [number for number, (_, future) in enumerate(taken) if not future.done()]  # done: its time is over
        if wanted:
            found = dict(zip(wanted, self._all([taken[number][0] for number in wanted], kind), strict=True))
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._deliver, [future for _, future in taken], found)

    def _all(self, queries: list[str], kind: Kind) -> Sequence[Found | Exception]:
        """A result or an error for each query: what is wrong with one of them does not touch the others."""
        try:
            return self._search(queries, kind)
        except Exception as error:  # noqa: BLE001 - the requests are told
            if len(queries) == 1:
                return [error]
            return [self._all([query], kind)[0] for query in queries]

    def _deliver(self, futures: "list[asyncio.Future[Found]]", found: dict[int, Found | Exception]) -> None:
        for number, future in enumerate(futures):
            self._workers.leave()
            if future.done():  # its time was over meanwhile
                continue
            result = found[number]
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
