"""A server that is busy, slow, or broken within: it says so, and serves on."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from freemvmt.errors import UserError
from freemvmt.search.retriever import Hit, Retriever

from live_server import refused, running


class Slow(Retriever):
    """A retriever whose searches for "slow" wait until they are let go."""

    gate: threading.Event
    begun: threading.Semaphore

    def search(self, query: Any, *arguments: Any, **options: Any) -> Any:
        asked = query if isinstance(query, list) else [query]
        if "slow" in asked:
            self.begun.release()
            assert self.gate.wait(60)
        if "broken" in asked:
            raise RuntimeError("a secret of the house")
        if "torn" in asked:
            torn = [Hit("x", float("nan"), "half \ud800 of a pair")]
            return [torn for _ in asked] if isinstance(query, list) else torn
        return super().search(query, *arguments, **options)


@contextmanager
def slow(bundle: Path) -> Iterator[Slow]:
    retriever = Slow.load(bundle)
    assert isinstance(retriever, Slow)
    retriever.gate, retriever.begun = threading.Event(), threading.Semaphore(0)
    try:
        yield retriever
    finally:
        retriever.gate.set()
        retriever.close()


def test_a_full_queue_is_busy(bundle: Path) -> None:
    answers: list[int] = []

    def ask(address: str) -> None:
        answers.append(httpx.post(f"{address}/search", json={"query": "slow"}, timeout=60).status_code)

    with slow(bundle) as retriever, running(retriever, threads=1, queue=2, timeout=60.0) as address:
        threads = [threading.Thread(target=ask, args=(address,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert retriever.begun.acquire(timeout=30)
        deadline = time.monotonic() + 30
        while "two_towers_queue_depth 2.0" not in httpx.get(f"{address}/metrics").text:
            assert time.monotonic() < deadline
        response = httpx.post(f"{address}/search", json={"query": "finance"})
        assert refused(response)[:2] == (503, "busy")
        assert int(response.headers["retry-after"]) >= 1
        assert httpx.get(f"{address}/health").is_success  # it is busy, not dead
        assert refused(httpx.get(f"{address}/ready"))[0] == 503
        retriever.gate.set()
        for thread in threads:
            thread.join()
        assert answers == [200, 200, 200]
        assert httpx.post(f"{address}/search", json={"query": "finance"}).is_success


def test_what_takes_too_long_is_let_go(bundle: Path) -> None:
    with slow(bundle) as retriever, running(retriever, threads=1, timeout=0.2) as address:
        assert refused(httpx.post(f"{address}/search", json={"query": "slow"}))[:2] == (504, "timeout")
        # The thread is still at it, so what waits for it is let go too; the rest of the server answers.
        assert refused(httpx.post(f"{address}/search", json={"query": "finance"}))[:2] == (504, "timeout")
        assert httpx.get(f"{address}/health").is_success
        retriever.gate.set()
        deadline = time.monotonic() + 30
        while not httpx.post(f"{address}/search", json={"query": "finance"}).is_success:  # a busy machine is slow
            assert time.monotonic() < deadline


def test_a_fault_of_ours_tells_nothing_of_it(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with slow(bundle) as retriever, running(retriever) as address:
        response = httpx.post(f"{address}/search", json={"query": "broken"})
        status, kind, message = refused(response)
        assert (status, kind) == (500, "internal")
        assert "secret" not in message
    (record,) = [record for record in caplog.records if record.name == "freemvmt.server"]
    assert response.headers["x-request-id"] in record.getMessage()
    assert record.exc_info
    assert "a secret of the house" in str(record.exc_info[1])


def test_answers_are_json_in_utf_8_whatever_was_found(bundle: Path) -> None:
    with slow(bundle) as retriever, running(retriever) as address:
        response = httpx.post(f"{address}/search", json={"query": "torn"})
        (hit,) = json.loads(response.content.decode("utf-8"), parse_constant=pytest.fail)["hits"]
        assert hit["text"] == "half ? of a pair"
        assert hit["score"] is None


def test_a_bundle_that_is_gone_is_not_ready(own_bundle: Path) -> None:
    retriever = Retriever.load(own_bundle)

    def fail(*_: object, **__: object) -> None:
        raise UserError("the disk is gone; put it back")

    with running(retriever) as address:
        retriever.search = fail  # type: ignore[method-assign, assignment]
        response = httpx.get(f"{address}/ready")
        assert refused(response)[:2] == (503, "busy")
        assert "the disk is gone" in response.text
    retriever.close()


def test_a_clock_that_is_set_back_changes_nothing(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(own_bundle) as address, httpx.Client(base_url=address) as client:
        now = time.time
        for hours in (0, -1, -100_000, 100_000):
            monkeypatch.setattr(time, "time", lambda hours=hours: now() + hours * 3600)
            assert 0 <= client.post("/search", json={"query": "tower"}).json()["took_ms"] < 10_000
            document = {"id": "x", "text": f"the zebra of {hours}"}
            assert client.post("/documents", json={"documents": [document]}).is_success
            hits = client.post("/search", json={"query": "zebra", "method": "bm25"}).json()["hits"]
            assert [hit["text"] for hit in hits] == [document["text"]]
            assert client.get("/ready").is_success


def test_no_answer_says_where_the_bundle_is(own_bundle: Path) -> None:
    with running(own_bundle) as address, httpx.Client(base_url=address) as client:
        aside = own_bundle.rename(own_bundle.with_name("aside"))
        try:
            status, _, message = refused(client.post("/documents", json={"documents": [{"id": "x", "text": "y"}]}))
        finally:
            aside.rename(own_bundle)
        assert status == 409
        assert "the bundle was taken away" in message
        assert str(own_bundle.parent) not in message
