"""What others send and ask as they are by default: probes, monitors, and clients of OpenAI's API."""

import json
from pathlib import Path
from typing import Any

import healthcheck
import httpx
import numpy as np
import openai
import pytest

from freemvmt.server.api import embeddings
from freemvmt.server.api.embeddings import trained_sizes

from answers import ok
from live_server import refused, running

GET_ROUTES = (
    "/", "/page/app.js", "/page/style.css", "/health", "/ready", "/info", "/docs", "/openapi.json", "/metrics",
    "/documents/d1", "/documents/nobody", "/page/nothing.js", "/nothing", "/v1/models", "/v1/models/any",
)  # fmt: skip
CHANGING = {"date", "x-request-id", "content-length"}  # the metrics grow, and an error holds the id of its request


@pytest.mark.parametrize("path", GET_ROUTES)
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert int(head.headers["content-length"]) > 0
    same = [{name: value for name, value in found.headers.items() if name not in CHANGING} for found in (got, head)]
    assert same[0] == same[1]
    if path != "/metrics":
        assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.content))


def test_head_of_what_the_browser_has(client: httpx.Client) -> None:
    tag = client.head("/page/app.js").headers["etag"]
    assert client.head("/page/app.js", headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", "GET, HEAD, OPTIONS"),
        ("/page/app.js", "GET, HEAD, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("/search", "OPTIONS, POST"),
        ("/documents", "OPTIONS, POST"),
        ("/documents/d1", "DELETE, GET, HEAD, OPTIONS"),
        ("/v1/embeddings", "OPTIONS, POST"),
        ("/v1/models/any", "GET, HEAD, OPTIONS"),
    ],
)
def test_options_say_what_can_be_asked(client: httpx.Client, path: str, allowed: str) -> None:
    answer = client.options(path)
    assert (answer.status_code, answer.content, answer.headers["allow"]) == (204, b"", allowed)
    assert refused(client.put(path))[0] == 405
    assert client.put(path).headers["allow"] == allowed
    if "GET" not in allowed:
        head = client.head(path)
        assert (head.status_code, head.content, head.headers["allow"]) == (405, b"", allowed)
    assert client.options("/nothing").status_code == 404


def test_the_health_check_of_the_image_passes_whatever_the_names(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(bundle, host="0.0.0.0", read_only=True, allowed_hosts=("search.example.org",)) as address:
        assert healthcheck.main([f"{address}/ready"]) == 0
        assert healthcheck.main([f"{address}/info"]) == 1
    assert capsys.readouterr().err == f"{address}/info answers 421\n"


SEARCHES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("/search", {"query": "finance"}, dict.fromkeys(("k", "method", "weight", "filter", "explain"))),
    ("/search/batch", {"queries": ["finance"]}, dict.fromkeys(("k", "method", "weight", "filter"))),
    ("/similar", {"id": "d3"}, dict.fromkeys(("k", "filter"))),
    (
        "/v1/embeddings",
        {"input": "finance"},
        dict.fromkeys(("model", "input_type", "encoding_format", "dimensions", "user")),
    ),
    ("/search", {"query": "a", "filter": {"year": {"lt": 1980}}}, {"filter": {"year": {"lt": 1980, "gte": None}}}),
]


@pytest.mark.parametrize(("path", "asked", "nulls"), SEARCHES)
def test_null_is_what_is_not_there(
    client: httpx.Client, path: str, asked: dict[str, Any], nulls: dict[str, Any]
) -> None:
    plain, with_nulls = (ok(client.post(path, json=body)) for body in (asked, asked | nulls))
    assert plain | {"took_ms": 0} == with_nulls | {"took_ms": 0}


def test_a_document_with_nulls_and_a_number_for_an_id(own_bundle: Path) -> None:
    with running(own_bundle) as address, httpx.Client(base_url=address) as client:
        document = {"id": 1984, "text": "A novel.", "title": None, "metadata": None}
        assert ok(client.post("/documents", json={"documents": [document]}))["added"] == 1
        assert ok(client.get("/documents/1984")) == {"id": "1984", "text": "A novel.", "title": "", "metadata": {}}
        assert ok(client.post("/documents", json={"documents": [{**document, "id": "1984"}]}))["replaced"] == 1
        assert ok(client.post("/similar", json={"id": 1984, "k": 1}))["id"] == "1984"
        kept = {"id": "x", "text": "y", "metadata": {"source": None, "year": 1}}
        ok(client.post("/documents", json={"documents": [kept]}))
        assert ok(client.get("/documents/x"))["metadata"] == {"source": None, "year": 1}


@pytest.mark.parametrize("count", [1000, 2048])
def test_as_many_texts_as_openai_takes(client: httpx.Client, count: int) -> None:
    texts = [f"text {number} of finance {number % 7}" for number in range(count)]
    found = ok(client.post("/v1/embeddings", json={"input": texts, "encoding_format": "base64"}))
    assert [item["index"] for item in found["data"]] == list(range(count))
    for number in (0, 255, 256, count - 1):
        alone = ok(client.post("/v1/embeddings", json={"input": texts[number], "encoding_format": "base64"}))
        assert found["data"][number]["embedding"] == alone["data"][0]["embedding"]
    assert found["usage"]["total_tokens"] >= count


def test_openai_s_client_as_it_is_by_default(address: str) -> None:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0) as client:
        (model,) = client.models.list().data
        assert client.models.retrieve(model.id).id == model.id
        with pytest.raises(openai.NotFoundError, match=model.id):
            client.models.retrieve("text-embedding-3-small")
        own = client.embeddings.create(input="finance", model="any", dimensions=48, user="someone")
        plain = client.embeddings.create(input="finance", model="any")
        assert own.data[0].embedding == plain.data[0].embedding
        assert len(plain.data[0].embedding) == 48
        for tokens in ([15339, 1917], [[2028, 374], [264]]):
            with pytest.raises(openai.UnprocessableEntityError, match="send texts, not token ids"):
                client.embeddings.create(input=tokens, model="any")
        with pytest.raises(openai.UnprocessableEntityError, match="have 48 numbers"):
            client.embeddings.create(input="finance", model="any", dimensions=24)


def test_vectors_are_cut_where_the_model_was_trained_for_it(own_bundle: Path) -> None:
    with running(own_bundle, read_only=True) as address, httpx.Client(base_url=address) as client:
        path = own_bundle / "model" / "config.json"
        described = json.loads(path.read_text(encoding="utf-8"))
        described["training"]["config"] = {"matryoshka": [12, 24], "dim": described["model"]["dim"]}
        path.write_text(json.dumps(described), encoding="utf-8")
        ask = {"input": ["finance", ""], "encoding_format": "float"}
        whole, cut = (
            np.array([item["embedding"] for item in ok(client.post("/v1/embeddings", json=ask | more))["data"]])
            for more in ({}, {"dimensions": 12})
        )
        np.testing.assert_allclose(cut[0], whole[0, :12] / np.linalg.norm(whole[0, :12]), atol=1e-6)
        assert (cut[1] == np.zeros(12)).all()  # a text without a token
        said = refused(client.post("/v1/embeddings", json=ask | {"dimensions": 13}))[2]
        assert "have 48 numbers or, cut, 24 or 12;" in said
        described = client.get("/openapi.json").json()["components"]["schemas"]["EmbeddingsRequest"]
        assert described["properties"]["dimensions"]["anyOf"][0] == {"type": "integer", "enum": [48, 24, 12]}


@pytest.mark.parametrize(
    ("trained", "indexed", "sizes"),
    [
        ({"matryoshka": [6, 12], "dim": None}, None, [12, 6]),
        ({"matryoshka": [6, 12], "dim": None}, 12, [6]),  # `index --dim 12` took the first numbers
        ({"matryoshka": [6, 12], "dim": None}, 20, []),  # `index --dim 20` turned the vectors
        ({"matryoshka": [], "dim": None}, None, []),
        ({}, None, []),
    ],
)
def test_sizes_that_a_model_was_trained_for(
    tmp_path: Path, trained: dict[str, Any], indexed: int | None, sizes: list[int]
) -> None:
    (tmp_path / "model").mkdir()
    described = {"model": {"dim": indexed}, "training": {"config": trained}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(described), encoding="utf-8")
    assert trained_sizes(tmp_path, indexed or 48) == sizes
    assert embeddings.trained_sizes(tmp_path / "none", 48) == []
