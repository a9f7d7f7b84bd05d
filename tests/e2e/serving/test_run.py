"""A server as a process of its own: it starts, says where, stops in order; and what it will not start with."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from freemvmt.errors import UserError
from freemvmt.runtime.console import QUIET
from freemvmt.search.retriever import Retriever
from freemvmt.server.serve import serve
from freemvmt.server.settings import TOKEN_VARIABLE, ServeSettings

from live_server import running

# Searches for "slow" take a second, and say so first.
PROGRAM = """
import sys, time
from pathlib import Path
from freemvmt.runtime.console import Console
from freemvmt.search.retriever import Retriever
from freemvmt.server.serve import serve
from freemvmt.server.settings import ServeSettings
search = Retriever.search
def slow(self, query, *arguments, **options):
    if query in ("slow", ["slow"]):
        print("slow", flush=True)
        time.sleep(1)
    return search(self, query, *arguments, **options)
Retriever.search = slow
sys.exit(serve(Path(sys.argv[1]), ServeSettings(port=0), Console()))
"""


@contextmanager
def started(bundle: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """(process, address) of a server."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(bundle)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            said = [process.stdout.readline() for _ in range(3)]
            found = re.fullmatch(r"page +(http://127\.0\.0\.1:\d+)/\n", said[1])
            assert found, (said, process.stderr and process.stderr.read())
            assert said[0] == "serving   bundle: 60 documents, writable\n"
            assert said[2] == f"API       {found[1]}/docs\n"
            yield process, found[1]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_what_is_under_way(bundle: Path, number: signal.Signals) -> None:
    with started(bundle) as (process, address):
        answers: list[httpx.Response] = []
        ask = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{address}/search", json={"query": "slow"}, timeout=60))
        )
        with httpx.Client(base_url=address) as idle:
            assert idle.get("/health", headers={"X-Request-Id": "first"}).is_success
            ask.start()
            assert process.stdout
            assert process.stdout.readline() == "slow\n"
            process.send_signal(number)
            ask.join()
            assert answers[0].status_code == 200
            assert len(answers[0].json()["hits"]) == 10
            out, log = process.communicate(timeout=60)  # the idle connection does not hold it up
        assert process.returncode == 0
        assert out == ""
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/health")
    lines = [json.loads(line) for line in log.splitlines()]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("GET", "/health", 200),
        ("POST", "/search", 200),
    ]
    assert lines[0]["request_id"] == "first"
    assert lines[0]["client"] == "127.0.0.1"
    assert lines[1]["ms"] >= 1000
    assert set(lines[0]) == {"time", "request_id", "method", "path", "status", "ms", "client"}
    assert "slow" not in log  # what is asked for stays out of it


def refusal(bundle: Path, settings: ServeSettings) -> str:
    with pytest.raises(UserError) as caught:
        serve(bundle, settings, QUIET)
    message = str(caught.value)
    assert "; " in message
    assert "\n" not in message
    return message


def test_writing_from_afar_needs_a_token(bundle: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "machine.example"):
        said = refusal(bundle, ServeSettings(host=host, token=None))
        assert TOKEN_VARIABLE in said
        assert "--read-only" in said
        ServeSettings(host=host, token="long-and-random-1").check_exposure()
        ServeSettings(host=host, token=None, read_only=True).check_exposure()
    for host in ("localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"):
        ServeSettings(host=host, token=None).check_exposure()


def test_an_address_that_cannot_be_had(bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in refusal(bundle, ServeSettings(port=port))
    assert "--host" in refusal(bundle, ServeSettings(host="no such host", token="0123456789abcdef"))


def test_a_bundle_that_is_none(tmp_path: Path) -> None:
    refusal(tmp_path / "nothing", ServeSettings(port=0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 65536},
        {"port": -1},
        {"threads": 0},
        {"queue": -1},
        {"batch": 0},
        {"timeout": 0.0},
        {"timeout": float("nan")},
        {"body_timeout": -1.0},
        {"batch_window_ms": float("nan")},
        {"body_bytes": 1},
        {"protect_reads": True},
    ],
)
def test_settings_that_are_wrong(wrong: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    flag = "--" + next(iter(wrong)).replace("_", "-")
    with pytest.raises(UserError, match=flag):
        ServeSettings(**wrong)  # type: ignore[arg-type]


def test_the_token_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    assert ServeSettings().token == "secret"
    assert "secret" not in repr(ServeSettings())
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    assert ServeSettings().token is None
    for odd in ("two words", "ümlaut", "line\nbreak"):
        monkeypatch.setenv(TOKEN_VARIABLE, odd)
        with pytest.raises(UserError, match=TOKEN_VARIABLE):
            ServeSettings()


class Sealed(Retriever):
    """One over a folder that cannot be written to."""

    @property
    def writable(self) -> bool:
        return False


def test_a_folder_that_cannot_be_written_to_is_served_read_only(bundle: Path) -> None:
    retriever = Sealed.load(bundle)
    with running(retriever) as address:
        assert httpx.get(f"{address}/info").json()["writable"] is False
        assert httpx.delete(f"{address}/documents/d1").status_code == 403
    retriever.close()


def test_single_queries_that_are_searched_together_answer_as_alone(bundle: Path) -> None:
    retriever = Retriever.load(bundle)
    sizes: list[int] = []
    search = retriever.search

    def counted(query: str | list[str], *arguments: object, **options: object) -> object:
        if isinstance(query, list):
            sizes.append(len(query))
        return search(query, *arguments, **options)  # type: ignore[call-overload]

    retriever.search = counted  # type: ignore[method-assign, assignment]
    found: dict[tuple[str, int], object] = {}

    def ask(client: httpx.Client, query: str, k: int) -> None:
        answer = client.post("/search", json={"query": query, "k": k}).json()
        assert answer["query"] == query
        found[query, k] = [(hit["id"], round(hit["score"], 4)) for hit in answer["hits"]]

    asked = [(f"finance {number}", 1 + number % 2) for number in range(40)]
    with (
        running(retriever, batch=8, batch_window_ms=50.0, threads=1) as address,
        httpx.Client(base_url=address, timeout=30) as client,
    ):
        sizes.clear()  # those of the searches before it was ready
        threads = [threading.Thread(target=ask, args=(client, *one)) for one in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.post("/search", json={"query": "a", "k": 1001}).status_code == 422
    assert sum(sizes) == 40
    assert 1 < max(sizes) <= 8
    for query, k in asked:
        hits = search(query, k=k)
        assert found[query, k] == [(hit.id, round(hit.score, 4)) for hit in hits]
    retriever.close()
