"""Every route, over HTTP, against a real bundle."""

import base64
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from freemvmt.search.retriever import Retriever

from answers import ok
from live_server import HOSTILE_TEXT, running


@pytest.mark.parametrize("method", ["hybrid", "dense", "bm25"])
def test_a_search_answers_as_the_retriever_does(client: httpx.Client, bundle: Path, method: Any) -> None:
    body = {"query": "finance velocity", "k": 5, "method": method, "filter": {"year": {"gte": 1980}}}
    found = ok(client.post("/search", json=body))
    retriever = Retriever.load(bundle)
    hits = retriever.search("finance velocity", k=5, method=method, filter={"year": {"gte": 1980}})
    retriever.close()
    assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in hits]
    assert hits
    for said, hit in zip(found["hits"], hits, strict=True):
        fields = ("id", "score", "dense", "bm25", "title", "text", "metadata")
        assert said == {name: getattr(hit, name) for name in fields}
    assert found["query"] == "finance velocity"
    assert (found["method"], found["k"], found["documents"]) == (method, 5, 60)
    assert found["took_ms"] > 0


def test_a_search_explains_when_asked(client: httpx.Client) -> None:
    found = ok(client.post("/search", json={"query": "finance", "k": 3, "explain": True, "method": "dense"}))
    assert len(found["hits"]) == 3
    for hit in found["hits"]:
        explained = hit["explanation"]
        pieces = explained["title"] + explained["text"]
        assert "".join(piece["text"] for piece in explained["text"]) == hit["text"]
        assert sum(piece["share"] for piece in pieces) == pytest.approx(hit["dense"], abs=1e-4)


def test_a_batch_answers_each_query_as_alone(client: httpx.Client) -> None:
    queries = ["finance", "velocity", "", "protein harvest"]
    found = ok(client.post("/search/batch", json={"queries": queries, "k": 4, "filter": {"source": "debian"}}))
    for query, hits in zip(queries, found["results"], strict=True):
        alone = ok(client.post("/search", json={"query": query, "k": 4, "filter": {"source": "debian"}}))
        assert [hit["id"] for hit in hits] == [hit["id"] for hit in alone["hits"]]
        assert [hit["score"] for hit in hits] == pytest.approx([hit["score"] for hit in alone["hits"]], abs=1e-5)


def test_neighbours_leave_the_document_out(client: httpx.Client) -> None:
    found = ok(client.post("/similar", json={"id": "d3", "k": 5}))
    names = [hit["id"] for hit in found["hits"]]
    assert found["id"] == "d3"
    assert len(names) == 5
    assert "d3" not in names
    assert names[0] == "d33"  # of the same topic


def test_an_explanation_gives_the_text_and_the_score(client: httpx.Client) -> None:
    found = ok(client.post("/explain", json={"query": "finance", "id": "d0"}))
    assert "".join(piece["text"] for piece in found["title"]) == "About finance"
    shares = [piece["share"] for piece in found["title"] + found["text"]]
    assert sum(shares) == pytest.approx(found["score"], abs=1e-5)


def test_a_document_is_read_by_its_id(client: httpx.Client) -> None:
    found = ok(client.get("/documents/d59"))
    assert found == {
        "id": "d59",
        "title": "About magnet",
        "text": HOSTILE_TEXT,
        "metadata": {"source": "scifact", "year": 2029},
    }


def test_what_is_added_is_found_at_once_and_what_is_deleted_is_not(own_bundle: Path) -> None:
    name = "a/b c?d#e%2F ü.txt"
    with running(own_bundle) as address, httpx.Client(base_url=address) as client:
        document = {"id": name, "text": "A zyzzyva is a weevil.", "title": "Zyzzyva", "metadata": {"source": "words"}}
        assert ok(client.post("/documents", json={"documents": [document]})) == {
            "added": 1,
            "replaced": 0,
            "documents": 61,
            "unseen": {},
        }
        for method in ("dense", "bm25", "hybrid"):
            found = ok(client.post("/search", json={"query": "zyzzyva weevil", "k": 1, "method": method}))
            assert found["hits"][0]["id"] == name
        assert "words" in ok(client.get("/info"))["fields"]["source"]["values"]
        path = "/documents/" + "".join(f"%{byte:02x}" for byte in name.encode())
        assert ok(client.get(path)) == document
        changed = {**document, "text": "An insect."}
        assert ok(client.post("/documents", json={"documents": [changed]}))["replaced"] == 1
        assert ok(client.get(path))["text"] == "An insect."
        assert ok(client.delete(path)) == {"deleted": name, "documents": 60}
        assert client.delete(path).status_code == 404
        assert client.get(path).status_code == 404
        found = ok(client.post("/search", json={"query": "zyzzyva", "method": "bm25"}))
        assert found["hits"] == []
    retriever = Retriever.load(own_bundle)
    assert len(retriever) == 60
    retriever.close()


def test_adding_and_searching_at_the_same_time(own_bundle: Path) -> None:
    errors: list[object] = []

    def add(client: httpx.Client, writer: int) -> None:
        for number in range(8):
            document = {"id": f"new-{writer}-{number}", "text": f"quagga number {writer} {number}"}
            ok(client.post("/documents", json={"documents": [document]}))
            if number % 2:
                ok(client.delete(f"/documents/new-{writer}-{number}"))

    def search(client: httpx.Client, _: int) -> None:
        for _ in range(40):
            found = ok(client.post("/search", json={"query": "quagga finance", "k": 20}))
            assert len({hit["id"] for hit in found["hits"]}) == 20

    def guarded(work: Any, client: httpx.Client, number: int) -> None:
        try:
            work(client, number)
        except Exception as error:  # noqa: BLE001 - told to the test's own thread
            errors.append(error)

    with running(own_bundle) as address, httpx.Client(base_url=address, timeout=30) as client:
        threads = [
            threading.Thread(target=guarded, args=(work, client, number)) for work in (add, search) for number in (0, 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        found = ok(client.post("/search", json={"query": "quagga", "k": 100, "method": "bm25"}))
        assert sorted(hit["id"] for hit in found["hits"]) == [f"new-{w}-{n}" for w in (0, 1) for n in (0, 2, 4, 6)]


def test_the_openai_client_works(address: str, bundle: Path) -> None:
    retriever = Retriever.load(bundle)
    model = retriever.model
    assert model is not None
    texts = ["finance velocity", "", "protein"]
    with openai.OpenAI(base_url=f"{address}/v1", api_key="any") as client:
        (served,) = client.models.list().data
        assert served.id == retriever.about["model"]["id"]
        by_default = client.embeddings.create(input=texts, model=served.id)  # asks for base64
        as_floats = client.embeddings.create(input=texts, model="any", encoding_format="float")
        want = model.encode_queries(texts)
        for found in (by_default, as_floats):
            np.testing.assert_allclose(np.array([item.embedding for item in found.data]), want, atol=1e-6)
            assert [item.index for item in found.data] == [0, 1, 2]
            assert found.usage.prompt_tokens == found.usage.total_tokens == 3
        found = client.embeddings.create(input="a text", model="any", extra_body={"input_type": "document"})
        np.testing.assert_allclose(found.data[0].embedding, model.encode_documents(["a text"])[0], atol=1e-6)
        with pytest.raises(openai.UnprocessableEntityError, match="input_type"):
            client.embeddings.create(input="a text", model="any", extra_body={"input_type": "passage"})
    retriever.close()


def test_embeddings_as_base64_are_float32(client: httpx.Client) -> None:
    ask = {"input": ["finance", "velocity"], "input_type": "document"}
    packed = ok(client.post("/v1/embeddings", json={**ask, "encoding_format": "base64"}))
    plain = ok(client.post("/v1/embeddings", json=ask))
    for one, other in zip(packed["data"], plain["data"], strict=True):
        vector = np.frombuffer(base64.b64decode(one["embedding"]), "<f4")
        assert (vector == np.array(other["embedding"], "<f4")).all()
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_info_says_what_is_served(client: httpx.Client) -> None:
    found = ok(client.get("/info"))
    assert found["name"] == "bundle"
    assert (found["documents"], found["dim"], found["writable"]) == (60, 48, False)
    assert found["fields"]["year"] == {"type": "number"}
    assert found["fields"]["source"] == {"type": "string", "values": ["debian", "reuters", "scifact"]}
    assert found["index"]["kind"] == "exact"
    assert found["limits"]["k"] == 1000


def test_health_and_readiness(client: httpx.Client) -> None:
    assert ok(client.get("/health")) == {"status": "ok"}
    assert ok(client.get("/ready")) == {"status": "ready", "documents": 60}


def test_measures_count_what_was_asked(bundle: Path) -> None:
    with running(bundle, read_only=True) as address, httpx.Client(base_url=address) as client:
        for method in ("dense", "dense", "bm25"):
            ok(client.post("/search", json={"query": "finance", "method": method}))
        client.post("/search", json={"query": "finance", "method": "none"})
        client.get("/documents/nothing")
        for number in range(3):
            client.get(f"/made-up-{number}")
        response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }

    def value(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]

    assert value("two_towers_requests_total", route="/search", method="POST", status="200") == 3
    assert value("two_towers_requests_total", route="/search", method="POST", status="422") == 1
    assert value("two_towers_requests_total", route="/documents/{id}", method="GET", status="404") == 1
    assert value("two_towers_requests_total", route="unknown", method="GET", status="404") == 3
    assert value("two_towers_request_seconds_count", route="/search", search_method="dense") == 2
    assert value("two_towers_request_seconds_count", route="/search", search_method="bm25") == 1
    assert 0 < value("two_towers_request_seconds_sum", route="/search", search_method="dense") < 60
    assert value("two_towers_documents") == 60
    assert value("two_towers_index_size_bytes") == 60 * 48 * 4
    assert value("two_towers_queue_depth") == 0
    assert value("two_towers_in_flight") == 1  # this one
