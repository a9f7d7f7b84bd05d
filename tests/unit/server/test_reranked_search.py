"""A server with a cross-encoder reranks its searches, or not, as a request says; without one it answers as before."""

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from freemvmt.search.reranker import Reranker
from freemvmt.search.retriever import Retriever

from answers import ok
from live_server import refused, running


class Slow:
    """The longer a text, the higher its score; while ``held``, it waits."""

    name = "slow"

    def __init__(self) -> None:
        self.free, self.begun = threading.Event(), threading.Event()
        self.free.set()
        self.asked: list[int] = []

    def scores(self, _: str, texts: Iterable[str]) -> list[float]:
        self.begun.set()
        self.free.wait(10)
        self.asked.append(len(list(texts)))
        return [len(text) / 1000 for text in texts]


@pytest.fixture(scope="module")
def slow() -> Slow:
    return Slow()


@pytest.fixture(scope="module")
def reranking(bundle: Path, slow: Slow) -> Iterator[httpx.Client]:
    retriever = Retriever.load(bundle)
    retriever.reranker = cast("Reranker", slow)
    with (
        running(retriever, rerank="slow", rerank_depth=7, read_only=True) as address,
        httpx.Client(base_url=address) as client,
    ):
        yield client
    retriever.close()


BODY: dict[str, Any] = {"query": "finance velocity", "k": 20}


def hits_of(client: httpx.Client, **changes: Any) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = ok(client.post("/search", json=BODY | changes))["hits"]
    return hits


@pytest.mark.parametrize("asked", [{}, {"rerank": True}, {"rerank": 7}, {"rerank": 7.0}, {"rerank": None}])
def test_the_best_hits_are_in_the_order_of_the_cross_encoder(
    reranking: httpx.Client, client: httpx.Client, asked: dict[str, Any]
) -> None:
    plain, found = hits_of(client), hits_of(reranking, **asked)
    assert found[7:] == plain[7:]
    assert {hit["id"] for hit in found[:7]} == {hit["id"] for hit in plain[:7]}
    expected = [len(f"{hit['title']} {hit['text']}") / 1000 for hit in found[:7]]
    assert [hit["score"] for hit in found[:7]] == [hit["rerank"] for hit in found[:7]] == expected
    assert expected == sorted(expected, reverse=True)
    filtered = hits_of(reranking, filter={"source": "debian"}, explain=True, k=3)
    assert all(hit["metadata"]["source"] == "debian" and hit["explanation"] for hit in filtered)
    assert len(filtered) == 3


def test_a_request_may_leave_it_out(reranking: httpx.Client, client: httpx.Client, slow: Slow) -> None:
    before = list(slow.asked)
    assert hits_of(reranking, rerank=False) == hits_of(client) == hits_of(client, rerank=False)
    batch = {"queries": ["finance", "velocity"], "k": 5}
    assert (
        ok(reranking.post("/search/batch", json=batch))["results"]
        == ok(client.post("/search/batch", json=batch))["results"]
    )
    assert ok(reranking.get("/ready"))["status"] == "ready"
    assert slow.asked == before
    hits_of(reranking, rerank=12)
    assert slow.asked[-1] == 12


def test_the_server_names_it(reranking: httpx.Client, client: httpx.Client) -> None:
    assert ok(reranking.get("/info"))["rerank"] == {"model": "slow", "depth": 7}
    assert "rerank" not in ok(client.get("/info"))
    assert '"rerank"' not in client.post("/search", json=BODY).text


@pytest.mark.parametrize("wrong", [0, 1001, -1, 2.5, "yes", [5], {}])
def test_a_wrong_depth_is_refused(reranking: httpx.Client, client: httpx.Client, wrong: Any) -> None:
    for one in (reranking, client):
        status, kind, message = refused(one.post("/search", json=BODY | {"rerank": wrong}))
        assert (status, kind) == (422, "invalid_request")
        assert message == "rerank: input should be true, false, or a number of hits from 1 to 1000"


@pytest.mark.parametrize("asked", [True, 5])
def test_a_server_without_one_says_so(client: httpx.Client, asked: Any) -> None:
    status, kind, message = refused(client.post("/search", json=BODY | {"rerank": asked}))
    assert (status, kind) == (422, "invalid_request")
    assert message == "this server has no cross-encoder; leave rerank out, or start it with --rerank MODEL"


def test_other_searches_do_not_wait_for_it(reranking: httpx.Client, slow: Slow) -> None:
    slow.free.clear()
    slow.begun.clear()
    threads = [threading.Thread(target=hits_of, args=(reranking,)) for _ in range(4)]  # more than search threads
    for thread in threads:
        thread.start()
    try:
        assert slow.begun.wait(10)
        start = time.monotonic()
        assert len(hits_of(reranking, rerank=False)) == 20
        assert time.monotonic() - start < 5
        assert all(thread.is_alive() for thread in threads)
    finally:
        slow.free.set()
        for thread in threads:
            thread.join(10)
