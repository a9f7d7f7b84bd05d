"""A site for the tests of the search page: a real server over documents ordinary, hostile, long and foreign."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from freemvmt.config import ModelConfig
from freemvmt.data.documents import Document
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.retriever import Retriever

from live_server import make_documents, running

HOSTILE_ID = "a/b%2Fc?d#e&f\"g'h i+j"
HOSTILE = {
    "id": HOSTILE_ID,
    "title": "</title><svg onload=alert('title')>",
    "text": "hostile <script>alert('text')</script> and <img src=x onerror=alert('image')> and &lt;b&gt;",
    "metadata": {"source": "<b onclick=alert('field')>bold</b>", "year": 1900, "open": True, "<i>": {"<u>": ["</p>"]}},
}
FOREIGN = {
    "id": "שלום/🌍",
    "title": "مرحبا بالعالم 🌍",
    "text": "foreign שלום עולם, 你好 and 👩‍👩‍👧",
    "metadata": {"source": "עברית", "year": 1901, "open": True},
}
LONG = {
    "id": "long",
    "title": "lengthy " + "W" * 300,
    "text": "lengthy " + "unbroken" * 80 + " " + "Here is one more sentence of many. " * 60,
    "metadata": {"source": "lengthy" * 30, "year": 1902, "open": True},
}
DOTS = {"id": "..", "title": "dotted", "text": "dotted name", "metadata": {"source": "debian", "year": 1903}}


def documents() -> list[dict[str, Any]]:
    """All of them."""
    ordinary = make_documents()
    for number, document in enumerate(ordinary):
        document["metadata"]["open"] = number % 2 == 0
    return [*ordinary, HOSTILE, FOREIGN, LONG, DOTS]


@pytest.fixture(scope="session")
def site_bundle(tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of ``documents``, whole, as a site holds them; not to be changed."""
    folder = tmp_path_factory.mktemp("site")
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(document) + "\n" for document in documents()), encoding="utf-8")
    build(TwoTowersModel(ModelConfig(base=tiny_base)), str(corpus), folder / "bundle", cut=False)
    return folder / "bundle"


@pytest.fixture(scope="session")
def site(site_bundle: Path) -> Iterator[str]:
    """The address of a server over it."""
    with running(site_bundle, read_only=True) as address:
        yield address


@pytest.fixture(scope="session")
def api(site: str) -> Iterator[httpx.Client]:
    """The same server without the page: what the page must show."""
    with httpx.Client(base_url=site, timeout=60) as client:
        yield client


def hits_of(api: httpx.Client, query: str, method: str = "hybrid", **more: Any) -> list[dict[str, Any]]:
    """What the server finds."""
    answer = api.post("/search", json={"query": query, "method": method, **more})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["hits"])


def ids_of(hits: list[dict[str, Any]]) -> list[str]:
    """The ids of hits, in their order."""
    return [hit["id"] for hit in hits]


def unpacked(site: Path, name: str) -> bytes:
    """What a file of a site's data holds."""
    return gzip.decompress((site / "data" / f"{name}.bin").read_bytes())


def documents_of(retriever: Retriever) -> list[Document]:
    """All documents, in the order of their rows."""
    view = retriever.store.view()
    return view.documents(view.numbers())  # type: ignore[attr-defined]
