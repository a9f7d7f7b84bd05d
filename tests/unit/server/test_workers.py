"""The queue and the threads behind it, and queries that are searched together, without HTTP."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from freemvmt.errors import UserError
from freemvmt.server.api.batching import Batcher
from freemvmt.server.api.thread_pool import ThreadPool
from freemvmt.server.http.errors import Refusal


def run(
    workers: ThreadPool, test: Callable[[], Coroutine[Any, Any, None]], gate: threading.Event | None = None
) -> None:
    async def whole() -> None:
        try:
            await test()
        finally:
            if gate is not None:
                gate.set()
            workers.close()

    asyncio.run(whole())


def test_work_runs_in_threads_that_were_prepared() -> None:
    prepared: list[str] = []
    workers = ThreadPool(2, 0, 10, lambda: prepared.append(threading.current_thread().name))

    async def test() -> None:
        here = threading.current_thread().name
        there = await workers.run(lambda: threading.current_thread().name)
        assert there != here
        assert there in prepared
        with pytest.raises(ZeroDivisionError):
            await workers.run(divmod, 1, 0)
        assert workers.waiting == 0

    run(workers, test)


def test_what_does_not_end_keeps_its_place() -> None:
    workers = ThreadPool(1, 1, 0.05)
    gate = threading.Event()

    async def test() -> None:
        for _ in range(2):  # one runs, one waits until its time is over
            with pytest.raises(Refusal, match="no answer within") as caught:
                await workers.run(gate.wait)
            assert caught.value.status == 504
        async with asyncio.timeout(30):
            while workers.waiting:  # what only waited leaves
                await asyncio.sleep(0)
        workers.timeout = 30
        waits = asyncio.ensure_future(workers.run(gate.wait))
        await asyncio.sleep(0)
        assert workers.waiting == 1
        with pytest.raises(Refusal, match="too many requests") as caught:
            await workers.run(gate.wait)
        assert caught.value.status == 503
        gate.set()
        assert await waits is True
        assert await workers.run(gate.wait) is True

    run(workers, test, gate)


def test_queries_gather_while_the_thread_is_busy() -> None:
    workers = ThreadPool(1, 100, 10)
    gate = threading.Event()
    batches: list[tuple[str, list[str]]] = []

    def search(queries: list[str], kind: str) -> list[str]:
        batches.append((kind, queries))
        if kind == "broken":
            raise UserError("it is broken; mend it")
        return [f"{kind} {query}" for query in queries]

    batcher = Batcher(search, workers, most=3, window=0.0)

    async def test() -> None:
        busy = asyncio.ensure_future(workers.run(gate.wait))
        await asyncio.sleep(0)
        kinds = ["a", "a", "b", "a", "a", "broken", "broken", "b"]
        asked = [asyncio.ensure_future(batcher.search(str(n), kind)) for n, kind in enumerate(kinds)]
        await asyncio.sleep(0)
        assert workers.waiting == len(kinds)
        gate.set()
        await busy
        found = await asyncio.gather(*asked, return_exceptions=True)
        for number, kind in enumerate(kinds):
            if kind == "broken":
                assert isinstance(found[number], UserError)
            else:
                assert found[number] == f"{kind} {number}"
        together = [("a", ["0", "1", "3"]), ("b", ["2", "7"]), ("a", ["4"]), ("broken", ["5", "6"])]
        assert batches == [*together, ("broken", ["5"]), ("broken", ["6"])]  # what fails together is asked alone
        assert workers.waiting == 0

    run(workers, test, gate)


def test_a_query_whose_time_is_over_is_not_searched() -> None:
    workers = ThreadPool(1, 100, 0.05)
    gate = threading.Event()
    batches: list[list[str]] = []
    batcher = Batcher(lambda queries, _: batches.append(queries) or queries, workers, most=3, window=0.0)

    async def test() -> None:
        with pytest.raises(Refusal):
            await workers.run(gate.wait)
        with pytest.raises(Refusal) as caught:
            await batcher.search("late", "kind")
        assert caught.value.status == 504
        workers.timeout = 30
        gate.set()
        assert await batcher.search("in time", "kind") == "in time"
        assert batches == [["in time"]]

    run(workers, test, gate)
