"""Batching: single queries that wait at the same time are searched as one list.

Queries collect while all threads are busy; the next free thread takes all waiting queries of one kind. The kind is the
settings of the search: k, method and weight. A query never waits only for other queries, unless a window is set.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from freemvmt.server.api.thread_pool import ThreadPool

Kind = TypeVar("Kind", bound=Hashable)
Found = TypeVar("Found")


class Batcher(Generic[Kind, Found]):
    """Collects single queries for ``search(queries, kind)``, which returns one result for each query.

    A batch has at most ``most`` queries. Its thread waits ``window`` seconds for more queries before it searches.
    """

    def __init__(
        self, search: Callable[[list[str], Kind], list[Found]], pool: ThreadPool, most: int, window: float
    ) -> None:
        self._search, self._pool, self._max_batch, self._window = search, pool, most, window
        self._lock = threading.Lock()
        self._waiting: dict[Kind, list[tuple[str, asyncio.Future[Found]]]] = {}

    async def search(self, query: str, kind: Kind) -> Found:
        """The result of one query. Raises the errors of the search, and ``Refusal`` as ``ThreadPool.run`` does.

        The query keeps its place in the queue until a thread has taken it, even after its timeout.
        """
        loop = asyncio.get_running_loop()
        self._pool.admit()
        future: asyncio.Future[Found] = loop.create_future()
        with self._lock:
            waiting = self._waiting.setdefault(kind, [])
            waiting.append((query, future))
            starts_batch = len(waiting) % self._max_batch == 1 or self._max_batch == 1
        if starts_batch:  # one call takes the whole batch
            self._pool.submit(lambda: self._run(kind, loop))
        return await self._pool.with_timeout(future)

    def _run(self, kind: Kind, loop: asyncio.AbstractEventLoop) -> None:
        if self._window:
            time.sleep(self._window)
        with self._lock:
            waiting = self._waiting.pop(kind, [])
            batch, remaining = waiting[: self._max_batch], waiting[self._max_batch :]
            if remaining:
                self._waiting[kind] = remaining
        results: dict[int, Found | Exception] = {}
        pending = [number for number, (_, future) in enumerate(batch) if not future.done()]  # done: timed out
        if pending:
            results = dict(zip(pending, self._search_each([batch[number][0] for number in pending], kind), strict=True))
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._deliver, [future for _, future in batch], results)

    def _search_each(self, queries: list[str], kind: Kind) -> Sequence[Found | Exception]:
        """A result or an error for each query: when one query fails, the others still get their results."""
        try:
            return self._search(queries, kind)
        except Exception as error:  # noqa: BLE001 - each request gets its error
            if len(queries) == 1:
                return [error]
            return [self._search_each([query], kind)[0] for query in queries]

    def _deliver(self, futures: "list[asyncio.Future[Found]]", results: dict[int, Found | Exception]) -> None:
        for number, future in enumerate(futures):
            self._pool.leave()
            if future.done():  # it timed out meanwhile
                continue
            result = results[number]
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
