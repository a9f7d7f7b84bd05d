"""What a server refuses, how it says so, and that nothing else is let through."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from freemvmt.server.http import auth as access_module

from live_server import Shape, refused, running


def post(client: httpx.Client, path: str, content: str | bytes) -> Shape:
    return refused(client.post(path, content=content, headers={"Content-Type": "application/json"}))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("{}", "query: field required"),
        ('{"query": 3}', "query: input should be a valid string"),
        ('{"query": "a", "k": 0}', "k: input should be greater than or equal to 1"),
        ('{"query": "a", "k": 1001}', "k: input should be less than or equal to 1000"),
        ('{"query": "a", "k": "10"}', "k: input should be a valid integer"),
        ('{"query": "a", "k": 1.5}', "k: input should be a valid integer"),
        ('{"query": "a", "k": true}', "k: input should be a valid integer"),
        ('{"query": "a", "method": "magic"}', "method: input should be 'dense', 'bm25' or 'hybrid'"),
        ('{"query": "a", "weight": 2}', "weight: input should be less than or equal to 1"),
        ('{"query": "a", "weight": NaN}', "weight: input should be a finite number"),
        ('{"query": "a", "colour": "red"}', "colour: there is no such field; leave it out"),
        ('{"query": "a", "filter": []}', "filter: input should be an object"),
        ('{"query": "a", "filter": {"colour": "red"}}', "the fields are: source, year"),
        ('{"query": "a", "filter": {"year": "1990"}}', 'the field "year" is a number'),
        ('{"query": "a", "filter": {"year": {"near": 3}}}', 'the range of "year"'),
        ('{"query": "a", "filter": {"year": 1e999}}', "no number to compare with"),
        ('{"query": "a", "filter": {"year": 1' + "0" * 400 + "}}", "holds a whole number beyond 2**53"),
        ('{"query": "a", "filter": {"year": {"lt": 9007199254740993}}}', "holds a whole number beyond 2**53"),
        ('{"query": "a", "filter": {"year": [1, -1e20]}}', "holds a whole number beyond 2**53"),
        ('{"query": "a", "filter": {"source": []}}', "lists 0 values"),
        (json.dumps({"query": "a" * 10_001}), "query: string should have at most 10000 characters"),
        ('{"query": "\\ud800"}', "half of a surrogate pair"),
        ('{"query": "a", "filter": {"source": "\\udfff"}}', "half of a surrogate pair"),
        (b'{"query": "\xff"}', "UTF-8"),
        (b'{"query": "\xed\xa0\x80"}', "UTF-8"),
        ('{"query": "a"', "send one JSON object"),
        ("", "send one JSON object"),
        ("null", "send one JSON object"),
        ("[]", "send one JSON object"),
        ("[" * 100_000, "recursion limit"),
        ('{"query": "a", "filter": ' + '{"a":' * 5000, "recursion limit"),
        ('{"query": "a", "k": 1' + "0" * 5000 + "}", "number out of range"),
        ('{"query": "a"} {"query": "b"}', "trailing characters"),
        ('{"query": "a", "' + "x" * 5000 + '": 1}', "there is no such field"),
        ('{"query": null}', "query: input should be a valid string"),
        ('{"query": "a", "query": "b"}', '"query" stands twice in one object'),
        ('{"query": "a", "k": 1, "k": 1}', '"k" stands twice in one object'),
        ('{"query": "a", "filter": {"year": {"lt": 1, "lt": 2}}}', '"lt" stands twice in one object'),
        ('{"query": "a", "filter": {"year": {"gte": null}}}', 'the range of "year"'),
        ('{"query": "a", "filter": {"year": null}}', 'the field "year" is a number'),
        ('{"query": "a", "filter": {"year": NaN}}', "NaN is no JSON value"),
    ],
)
def test_bodies_that_are_wrong(client: httpx.Client, body: str | bytes, says: str) -> None:
    status, kind, message = post(client, "/search", body)
    assert (status, kind) == (422, "invalid_request")
    assert says in message


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/search/batch", {"queries": []}, "queries: list should have at least 1 item"),
        ("/search/batch", {"queries": ["a"] * 257}, "queries: list should have at most 256 items"),
        ("/search/batch", {"queries": ["a", 1]}, "queries.1: input should be a valid string"),
        ("/search/batch", {"queries": ["a"], "k": 101}, "k: input should be less than or equal to 100"),
        ("/similar", {"id": ""}, 'id: "id" is blank, which is no id'),
        ("/explain", {"query": "a"}, "id: field required"),
        ("/search", {"query": "a", "user": None}, "user: there is no such field"),
        ("/explain", {"query": "a", "id": 1.5}, 'id: "id" holds the number 1.5, not an id (text or a whole number)'),
        ("/explain", {"query": "a", "id": True}, "id: "),
        ("/explain", {"query": "a", "id": None}, "id: "),
        ("/v1/embeddings", {"input": []}, "input: list should have at least 1 item"),
        ("/v1/embeddings", {"input": None}, "input: input should be a text or a list of texts"),
        ("/v1/embeddings", {"input": 3}, "input: input should be a text or a list of texts"),
        ("/v1/embeddings", {"input": [1, 2]}, "input: send texts, not token ids"),
        ("/v1/embeddings", {"input": [[1, 2], [3]]}, "(LangChain: check_embedding_ctx_length=False)"),
        ("/v1/embeddings", {"input": ["a", 2]}, "input.1: input should be a valid string"),
        ("/v1/embeddings", {"input": ["a", None]}, "input.1: input should be a valid string"),
        ("/v1/embeddings", {"input": [[]]}, "input.0: input should be a valid string"),
        ("/v1/embeddings", {"input": ["a"] * 2049}, "input: list should have at most 2048 items"),
        (
            "/v1/embeddings",
            {"input": "a", "dimensions": 32},
            "dimensions is 32, but vectors of this model have 48",
        ),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}, "dimensions: input should be greater than or equal to 1"),
        ("/v1/embeddings", {"input": "a", "truncate": True}, "truncate: there is no such field; leave it out"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ("/documents", {"documents": []}, "documents: list should have at least 1 item"),
        ("/documents", {"documents": [{"id": "a"}]}, "documents.0.text: field required"),
        ("/documents", {"documents": [{"id": "a", "text": "b", "metadata": []}]}, "documents.0.metadata"),
        ("/documents", {"documents": [{"id": "a", "text": None}]}, "documents.0.text: input should be a valid string"),
        ("/documents", {"documents": [{"id": 1.5, "text": "b"}]}, "documents.0.id"),
        ("/documents", {"documents": [{"id": "a", "text": "b", "title": 1}]}, "documents.0.title"),
    ],
)
def test_bodies_of_other_routes(client: httpx.Client, path: str, body: Any, says: str) -> None:
    status, kind, message = refused(client.post(path, json=body))
    assert (status, kind) == (422, "invalid_request")
    assert says in message


def test_odd_but_sound_text_is_searched(client: httpx.Client) -> None:
    for query in ("", " ", "\x00", "a\x00b", "\U0001f600", "‮", "😀" * 5000, "\ufdd0\uffff", "<script>", 'a" OR 1=1 --'):
        answer = client.post("/search", json={"query": query})
        assert answer.status_code == 200
        assert answer.json()["query"] == query


def test_a_mark_at_the_beginning_of_utf_8_is_no_part_of_the_body(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/search", content=b'\xef\xbb\xbf{"query": "finance", "k": 1}', headers=headers)
    assert answer.json() | {"took_ms": 0} == client.post("/search", json={"query": "finance", "k": 1}).json() | {
        "took_ms": 0
    }


def test_paths_and_methods_that_are_not_there(client: httpx.Client) -> None:
    assert refused(client.get("/nothing"))[:2] == (404, "not_found")
    assert refused(client.get("/search/"))[:2] == (404, "not_found")
    assert refused(client.post("/v1/embeddings/", json={"input": "a"}))[2].endswith("ask for /v1/embeddings")
    assert refused(client.post("/embeddings", json={"input": "a"}))[2].endswith("ask for /v1/embeddings")
    assert refused(client.get("/v1/models/any"))[:2] == (404, "not_found")
    assert refused(client.get("/documents/nothing"))[:2] == (404, "not_found")
    assert refused(client.post("/similar", json={"id": "nothing"}))[:2] == (404, "not_found")
    assert refused(client.post("/explain", json={"id": "nothing", "query": "a"}))[:2] == (404, "not_found")
    response = client.put("/documents/d1")
    assert refused(response)[:2] == (405, "invalid_request")
    assert response.headers["allow"] == "DELETE, GET, HEAD, OPTIONS"
    assert refused(response)[2].endswith("use DELETE, GET")
    assert refused(client.get("/search"))[2].endswith("use POST")


def test_only_json_is_read(client: httpx.Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        status, error, _ = refused(client.post("/search", content='{"query": "a"}', headers={"Content-Type": kind}))
        assert (status, error) == (415, "invalid_request")
    packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert refused(client.post("/search", content=b"\x1f\x8b", headers=packed))[2].startswith(
        "the body is packed (gzip)"
    )
    fine = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.post("/search", content='{"query": "a"}', headers=fine).status_code == 200


def test_a_body_that_is_too_large(bundle: Path) -> None:
    with running(bundle, body_bytes=4096) as address, httpx.Client(base_url=address) as client:
        body = json.dumps({"query": "a"}) + " " * 4096
        assert post(client, "/search", body)[:2] == (413, "too_large")

        def chunks() -> Iterator[bytes]:  # no length is given beforehand
            for _ in range(100):
                yield b" " * 1000

        response = client.post("/search", content=chunks(), headers={"Content-Type": "application/json"})
        assert refused(response)[:2] == (413, "too_large")
        assert client.post("/search", content=body[:4096], headers={"Content-Type": "application/json"}).is_success


def test_documents_that_the_bundle_cannot_take(own_bundle: Path) -> None:
    with running(own_bundle) as address, httpx.Client(base_url=address) as client:

        def add(**document: Any) -> Shape:
            return refused(client.post("/documents", json={"documents": [{"id": "x", "text": "y", **document}]}))

        assert add(metadata={"year": "soon"})[:2] == (409, "invalid_request")
        assert add(id="ü" * 300)[:2] == (422, "invalid_request")  # 600 bytes
        assert add(metadata={"": 1})[:2] == (422, "invalid_request")
        assert add(metadata={"a": "b" * 70_000})[:2] == (422, "invalid_request")
        doubled = {"documents": [{"id": "x", "text": "y"}, {"id": 7, "text": "y"}, {"id": "7", "text": "z"}]}
        said = "documents.2: the document '7' stands twice, first at documents.1; keep one of them"
        assert refused(client.post("/documents", json=doubled)) == (422, "invalid_request", said)
        nan = '{"documents": [{"id": "x", "text": "y", "metadata": {"a": [NaN]}}]}'
        assert post(client, "/documents", nan)[:2] == (422, "invalid_request")
        assert client.get("/documents/x").status_code == 404


def test_a_token_for_writing(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    compare = access_module.hmac.compare_digest
    monkeypatch.setattr(access_module.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or compare(a, b))
    with running(own_bundle, token="secret") as address, httpx.Client(base_url=address) as client:
        add = {"documents": [{"id": "x", "text": "y"}]}
        wrong = ("Bearer", "Bearer secre", "Bearer secrets", "Basic secret", "secret", "bearer \xff")
        for header in wrong:
            response = client.post("/documents", json=add, headers={"Authorization": header.encode("latin-1")})
            assert refused(response)[:2] == (401, "unauthorized")
            assert response.headers["www-authenticate"].startswith("Bearer")
        assert len(compared) == len(wrong)  # in constant time, whatever was given
        assert refused(client.post("/documents", content=b"\xff"))[0] == 401  # before the body is looked at
        assert refused(client.delete("/documents/d1"))[0] == 401
        assert client.post("/search", json={"query": "a"}).is_success
        assert client.get("/documents/d1").is_success
        right = {"Authorization": "Bearer secret"}
        assert client.post("/documents", json=add, headers=right).is_success
        assert client.delete("/documents/x", headers=right).is_success


def test_a_token_for_reading_too(bundle: Path) -> None:
    with running(bundle, token="secret", protect_reads=True) as address, httpx.Client(base_url=address) as client:
        for path in ("/info", "/documents/d1", "/metrics", "/openapi.json", "/docs", "/v1/models"):
            assert refused(client.get(path))[0] == 401
            assert client.get(path, headers={"Authorization": "bearer secret"}).is_success
        assert refused(client.post("/search", json={"query": "a"}))[0] == 401
        assert client.get("/health").is_success
        assert client.get("/ready").is_success
        assert client.get("/").is_success


def test_a_server_that_only_reads(client: httpx.Client) -> None:
    assert refused(client.delete("/documents/d1"))[:2] == (403, "read_only")
    add = {"documents": [{"id": "x", "text": "y"}]}
    assert refused(client.post("/documents", json=add))[:2] == (403, "read_only")
    assert client.get("/info").json()["writable"] is False


def test_names_that_are_not_the_servers_own(bundle: Path, address: str, client: httpx.Client) -> None:
    port = address.rpartition(":")[2]
    for host in ("evil.example", "evil.example:80", f"localhost.evil.example:{port}", "", "127.0.0.2", "[::1"):
        assert refused(client.get("/info", headers={"Host": host}))[:2] == (421, "invalid_request")
    for host in (f"localhost:{port}", "LOCALHOST", "127.0.0.1", f"[::1]:{port}", "[::1]"):
        assert client.get("/info", headers={"Host": host}).is_success
    with running(bundle, allowed_hosts=("search.example",)) as named, httpx.Client(base_url=named) as client:
        assert client.get("/info", headers={"Host": "Search.Example:443"}).is_success
        assert client.get("/info", headers={"Host": "evil.example"}).status_code == 421
        for path in ("/health", "/ready", "/metrics"):  # probes and Prometheus call by the address of the moment
            assert client.get(path, headers={"Host": "10.244.0.5:8000"}).is_success
            assert client.head(path, headers={"Host": ""}).is_success
        for path in ("/", "/docs", "/healthy", "/health/", "/documents/d1"):
            assert refused(client.get(path, headers={"Host": "10.244.0.5:8000"}))[0] == 421


def test_pages_of_another_origin_cannot_write(own_bundle: Path) -> None:
    with running(own_bundle) as address, httpx.Client(base_url=address) as client:
        for origin in ("http://evil.example", "null", "http://localhost:1"):
            response = client.delete("/documents/d1", headers={"Origin": origin})
            assert refused(response)[0] == 403
        asked = client.options("/documents", headers={"Origin": "http://x", "Access-Control-Request-Method": "POST"})
        assert (asked.status_code, asked.headers["allow"]) == (204, "OPTIONS, POST")
        assert not [name for name in asked.headers if name.startswith("access-control")]
        assert client.delete("/documents/d1", headers={"Origin": address}).is_success


def test_the_id_of_a_request(client: httpx.Client) -> None:
    given = client.get("/health", headers={"X-Request-Id": "abc-1.2_3"})
    assert given.headers["x-request-id"] == "abc-1.2_3"
    for odd in ("", "a b", "a" * 65, '"><script>', "a\tb"):
        made = client.get("/health", headers={"X-Request-Id": odd}).headers["x-request-id"]
        assert made != odd
        assert len(made) == 16
    ids = {client.get("/nothing").headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


def test_headers_that_keep_a_browser_safe(client: httpx.Client) -> None:
    for path in ("/", "/info", "/docs", "/nothing", "/metrics"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "server" not in headers


def test_the_page_and_nothing_beside_it(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    assert page.text.lstrip().lower().startswith("<!doctype html>")
    same = client.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    for name, kind in (("app.js", "text/javascript"), ("style.css", "text/css")):
        assert client.get(f"/page/{name}").headers["content-type"].startswith(kind)
    for name in ("../app.py", "..%2fapp.py", "%2e%2e/app.py", "app.py", "", ".", "index.html%00", "nothing.js"):
        assert client.get(f"/page/{name}").status_code == 404
