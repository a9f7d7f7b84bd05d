"""A real server over a real, small bundle: uvicorn in a thread, on a free port of the loopback address."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from freemvmt.config import ModelConfig
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.retriever import Retriever
from freemvmt.server.http.errors import ERROR_KINDS
from freemvmt.server.http.listener import listen
from freemvmt.server.settings import ServeSettings
from freemvmt.server.uvicorn_server import make_server

from rows import ANSWERED, FILLER

Shape = tuple[int, str, str]  # of a refusal: status, type, message

SOURCES = ("debian", "reuters", "scifact")
HOSTILE_TEXT = "A text with <script>alert('here')</script> & \"quotes\" in it."


def make_documents() -> list[dict[str, Any]]:
    """60 documents d0 to d59, two for each topic; the last holds HTML, which is text."""
    documents = [
        {
            "id": f"d{number}",
            "title": f"About {ANSWERED[number % 30]}",
            "text": f"{ANSWERED[number % 30]} {FILLER[number % 20]} {ANSWERED[(number + 7) % 30]}, passage {number}.",
            "metadata": {"source": SOURCES[number % 3], "year": 1970 + number},
        }
        for number in range(60)
    ]
    documents[-1]["text"] = HOSTILE_TEXT
    return documents


def make_bundle(folder: Path, base: str) -> Path:
    """A bundle of ``make_documents`` in ``folder``; ``base`` is what the model starts from."""
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(document) + "\n" for document in make_documents()), encoding="utf-8")
    build(TwoTowersModel(ModelConfig(base=base)), str(corpus), folder / "bundle")
    return folder / "bundle"


@contextmanager
def running(bundle: Path | Retriever, **options: Any) -> Iterator[str]:
    """Serve ``bundle`` while the block runs; yield the address, ``http://127.0.0.1:PORT``.

    ``options`` are fields of ``ServeSettings``.
    """
    settings = ServeSettings(port=0, **{"token": None, "access_log": False, "threads": 2, **options})
    retriever = Retriever.load(bundle) if isinstance(bundle, Path) else bundle
    with listen(settings) as listener:
        server = make_server(retriever, settings)
        listening = threading.Event()
        server.on_listening = listening.set
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server")
        thread.start()
        try:
            assert listening.wait(30)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()
            if isinstance(bundle, Path):
                retriever.close()


def refused(response: httpx.Response) -> Shape:
    """(status, type, message) of an error, whose shape is checked."""
    assert response.headers["content-type"] == "application/json"
    body = json.loads(response.content.decode("utf-8"))
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"type", "message", "request_id"}
    assert error["type"] in ERROR_KINDS
    assert error["request_id"] == response.headers["x-request-id"]
    assert error["message"]
    assert "\n" not in error["message"]
    assert len(error["message"]) <= 300
    return response.status_code, error["type"], error["message"]
