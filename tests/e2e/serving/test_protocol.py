"""What arrives over the wire before there is a request: broken, endless, slow."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from live_server import running

PATIENCE = 0.5  # seconds


@pytest.fixture(scope="module")
def hasty(bundle: Path) -> Iterator[str]:
    """A server that waits for no one."""
    with running(bundle, read_only=True, body_timeout=PATIENCE) as address:
        yield address


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    port = int(address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        yield connection


def all_of(connection: socket.socket) -> bytes:
    """What the server says until it closes, or breaks off."""
    said = b""
    try:
        while part := connection.recv(65536):
            said += part
    except ConnectionResetError:
        pass
    return said


def talk(address: str, *parts: bytes) -> bytes:
    """Send ``parts`` one by one, as far as the server takes them, and return all it says until it closes."""
    with connected(address) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except (ConnectionResetError, BrokenPipeError):
            pass
        return all_of(connection)


def error_of(said: bytes) -> tuple[int, str]:
    """(status, type) of an answer that refuses; its shape is checked."""
    head, _, body = said.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:])
    assert headers["x-request-id"] == error["request_id"]
    assert int(headers["content-length"]) == len(body)
    assert headers["content-type"] == "application/json"
    return int(head.split()[1]), error["type"]


@pytest.mark.parametrize(
    "request_",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"FETCH /info HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /info HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n",
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\r\n".join(["\x16\x03\x01\x02\x00", "", ""]).encode("latin-1"),  # TLS
    ],
)
def test_what_is_no_http(address: str, request_: bytes) -> None:
    assert error_of(talk(address, request_)) == (400, "invalid_request")


def test_headers_without_an_end(address: str) -> None:
    start = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    assert error_of(talk(address, start + b"X: " + b"a" * 500_000)) == (431, "invalid_request")
    assert error_of(talk(address, start, b"X: a\r\n" * 20_000)) == (431, "invalid_request")
    assert error_of(talk(address, b"GET /" + b"a" * 500_000)) == (431, "invalid_request")
    whole = start + b"X: a\r\n" * 20_000 + b"\r\n"  # with an end, beyond the limit
    assert error_of(talk(address, whole)) == (431, "invalid_request")
    assert httpx.get(f"{address}/health", headers=[("X", "a")] * 200).is_success


def test_a_client_that_says_nothing_is_left(hasty: str) -> None:
    started = time.monotonic()
    assert talk(hasty) == b""
    assert talk(hasty, b"GET /health HTTP/1.1\r\nHost: loc") == b""
    assert time.monotonic() - started >= 2 * PATIENCE * 0.9


def test_a_body_that_does_not_come(hasty: str) -> None:
    start = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    said = talk(hasty, start + b"Content-Length: 100\r\n\r\n", b'{"query"')
    assert error_of(said) == (408, "timeout")
    said = talk(hasty, start + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nab")
    assert error_of(said) == (408, "timeout")


def test_a_body_that_drips(hasty: str) -> None:
    start = (
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    )
    with connected(hasty) as connection:
        connection.sendall(start)
        connection.settimeout(PATIENCE / 10)
        said = b""
        deadline = time.monotonic() + 30
        while b"\r\n\r\n" not in said:
            assert time.monotonic() < deadline
            connection.sendall(b" ")
            try:
                said += connection.recv(65536)
            except TimeoutError:
                continue
        assert error_of(said) == (408, "timeout")


def test_a_body_that_nobody_reads_does_not_hold_the_connection(hasty: str) -> None:
    with connected(hasty) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n ")
        assert b" 404 " in all_of(connection)  # ends: the server closes


def test_too_large_a_body_is_refused_and_the_answer_arrives(address: str) -> None:
    start = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    size = 10_000_000
    said = talk(address, start + f"Content-Length: {size}\r\n\r\n".encode(), b" " * size)
    assert error_of(said) == (413, "too_large")
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    said = talk(address, start + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 10, b"0\r\n\r\n")
    assert error_of(said) == (413, "too_large")
    # A client that asks first is told before it sends anything.
    said = talk(address, start + b"Expect: 100-continue\r\nContent-Length: 3000000\r\n\r\n")
    assert error_of(said) == (413, "too_large")
    # Petabytes are not waited for; whoever sends on may miss the answer.
    said = talk(address, start + b"Content-Length: 9999999999999999\r\n\r\n", b" " * 20_000_000)
    assert said == b"" or error_of(said) == (413, "too_large")


BATCH = json.dumps({"queries": ["tower"] * 100, "k": 60, "method": "dense"}).encode()
LARGE = (
    b"POST /search/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    + str(len(BATCH)).encode() + b"\r\n\r\n" + BATCH
)  # fmt: skip


def test_a_client_that_does_not_read_is_left(hasty: str) -> None:
    asked = 40
    with connected(hasty) as connection:
        connection.sendall(LARGE * asked)  # no buffer of the system holds all the answers
        time.sleep(5)
        said = all_of(connection)  # what the system had taken over by then, and the end
        assert 0 < len(said) < asked * 1_000_000


def test_a_client_that_reads_slowly_is_not(hasty: str) -> None:
    with connected(hasty) as connection:
        connection.sendall(LARGE.replace(b"localhost", b"localhost\r\nConnection: close"))
        said, started = b"", time.monotonic()
        while part := connection.recv(65536):
            said += part
            time.sleep(0.05)
        assert time.monotonic() - started > PATIENCE
        head, _, body = said.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head
        assert len(json.loads(body)["results"]) == 100
        assert len(body) > 1_000_000


def test_requests_in_one_piece_and_in_many(address: str) -> None:
    body = b'{"query": "finance", "k": 1}'
    start = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    one = start + str(len(body)).encode() + b"\r\n\r\n" + body
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    said = talk(address, one + one + last)
    assert said.count(b"HTTP/1.1 200 OK") == 3
    assert said.count(b'"query":"finance"') == 2
    said = talk(address, *(bytes([byte]) for byte in one + last))
    assert said.count(b"HTTP/1.1 200 OK") == 2


def test_a_client_that_stops_writing_still_reads_its_answer(address: str) -> None:
    with connected(address) as connection:
        connection.sendall(b"GET /info HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert b'"documents":60' in all_of(connection)


def test_a_client_that_leaves_is_no_error(address: str) -> None:
    body = b'{"query": "finance", "k": 60}'
    start = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    for sent in (
        start + b"1000\r\n\r\n",
        start + b"1000\r\n\r\n{",
        start + str(len(body)).encode() + b"\r\n\r\n" + body,
    ):
        with connected(address) as connection:
            connection.sendall(sent)
    text = httpx.get(f"{address}/metrics").text
    assert 'status="500"' not in text


def test_a_client_that_asks_before_it_sends_its_body(address: str) -> None:
    body = b'{"query": "finance", "k": 1}'
    start = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    with connected(address) as connection:
        connection.sendall(start + f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert all_of(connection).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"http://localhost/info", b"localhost", 200),
        (b"HTTP://127.0.0.1:80/health?x=1", b"evil.example", 200),  # the target's host counts
        (b"http://localhost", b"localhost", 200),
        (b"http://localhost?x=/nothing", b"localhost", 200),
        (b"http://localhost/nothing", b"localhost", 404),
        (b"http://evil.example/info", b"localhost", 421),
        (b"http://evil.example/health", b"localhost", 200),
        (b"ftp://localhost/info", b"localhost", 400),
    ],
)
def test_a_target_that_is_a_whole_url(address: str, target: bytes, host: bytes, status: int) -> None:
    said = talk(address, b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    assert int(said.split()[1]) == status
    assert status == 200 or error_of(said)[0] == status


def test_options_of_the_server_itself_and_old_http(address: str) -> None:
    said = talk(address, b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 204 ")
    assert error_of(talk(address, b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n"))[0] == 400
    assert talk(address, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert error_of(talk(address, b"GET /info HTTP/1.0\r\n\r\n"))[0] == 421
