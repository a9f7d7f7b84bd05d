"""Requests that no honest client sends, drawn from a seed, and what a server does with each."""

import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

ROUTES = ("/search", "/search/batch", "/similar", "/explain", "/documents", "/v1/embeddings")
PATHS = ("/info", "/health", "/ready", "/metrics", "/docs", "/openapi.json", "/v1/models", "/documents/d1", "/")
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "FETCH", "get"]
SOUND: dict[str, dict[str, Any]] = {
    "/search": {"query": "finance", "k": 5, "method": "hybrid", "filter": {"year": {"gte": 1980}}, "explain": True},
    "/search/batch": {"queries": ["finance", "velocity"], "k": 3},
    "/similar": {"id": "d3", "k": 3},
    "/explain": {"query": "finance", "id": "d0"},
    "/documents": {"documents": [{"id": "hostile", "text": "a text", "title": "t", "metadata": {"source": "x"}}]},
    "/v1/embeddings": {"input": ["a text"], "encoding_format": "base64"},
}
SILENT = "closed without an answer"
LARGE = 10_000_000  # bytes


@dataclass
class Seen:
    """What the server did: ``statuses`` by kind of request, and requests it did not end in time."""

    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    hangs: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # 500s, and answers that are not in the shape of errors

    @property
    def total(self) -> int:
        """Requests sent."""
        return sum(counts.total() for counts in self.statuses.values())


class HostileClient:
    """Sends requests to ``127.0.0.1:port``; an answer that takes more than ``patience`` seconds is a hang."""

    def __init__(self, port: int, seed: int, patience: float = 30.0) -> None:
        self.port, self.patience = port, patience
        self.draw = random.Random(seed)
        self.seen = Seen()
        # What is slow or large is drawn less often than what is cheap.
        self.kinds: dict[Callable[[], bytes | list[bytes]], int] = {
            self.broken_json: 20,
            self.wrong_types: 25,
            self.odd_text: 15,
            self.deep_nesting: 8,
            self.wrong_place: 12,
            self.bad_headers: 10,
            self.noise: 5,
            self.half_sent: 4,
            self.many_pieces: 3,
            self.header_flood: 2,
            self.large_body: 1,
        }

    def run(self, count: int) -> Seen:
        """Send ``count`` requests of all kinds."""
        chosen = self.draw.choices(list(self.kinds), list(self.kinds.values()), k=count)
        for make in chosen:
            made = make()
            self.send(make.__name__, [made] if isinstance(made, bytes) else made)
        return self.seen

    def send(self, kind: str, parts: list[bytes]) -> None:
        """Send ``parts``, stop writing, and read until the server closes."""
        said = b""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=self.patience) as connection:
                try:
                    for part in parts:
                        connection.sendall(part)
                    connection.shutdown(socket.SHUT_WR)
                    while part := connection.recv(1 << 20):
                        said += part
                except (ConnectionResetError, BrokenPipeError, OSError) as error:
                    if isinstance(error, TimeoutError):
                        raise
        except TimeoutError:
            self.seen.hangs.append(f"{kind}: {parts[0][:200]!r}")
        status = said[9:12].decode("ascii", "replace") if said.startswith(b"HTTP/1.1 ") else SILENT
        self.seen.statuses.setdefault(kind, Counter())[status] += 1
        self._judge(kind, parts, said, status)

    def _judge(self, kind: str, parts: list[bytes], said: bytes, status: str) -> None:
        head, _, body = said.partition(b"\r\n\r\n")
        fault = status.startswith("5") and status not in ("503", "504")
        if status[:1] == "4" and not parts[0].startswith(b"HEAD"):
            try:
                fault |= set(json.loads(body)["error"]) != {"type", "message", "request_id"}
            except ValueError:
                # Several requests in one piece have several answers.
                fault |= body.count(b"HTTP/1.1") == 0 and len(body) >= _length(head)
        if fault:
            self.seen.faults.append(f"{kind}: {status} {body[:200]!r} to {parts[0][:300]!r}")

    def request(self, path: str, body: bytes, method: str = "POST", headers: str = "") -> bytes:
        """A request that is sound around its ``body``."""
        lines = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}"
        return f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def broken_json(self) -> bytes:
        """A sound body with bytes cut, changed, doubled, or put in."""
        path = self.draw.choice(ROUTES)
        body = bytearray(json.dumps(SOUND[path]).encode())
        for _ in range(self.draw.randint(1, 4)):
            place = self.draw.randrange(len(body) + 1)
            what = self.draw.randrange(5)
            if what == 0:
                del body[place:]
            elif what == 1:
                body[place:place] = self.draw.randbytes(self.draw.randint(1, 8))
            elif what == 2:
                body[place:place] = self.draw.choice([b"\x00", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b'"'])
            elif what == 3:
                body += body[: self.draw.randint(1, 40)]
            elif body:
                body[place % len(body)] = self.draw.randrange(256)
        return self.request(path, bytes(body))

    def value(self, depth: int = 0) -> Any:
        """Any JSON value, or what only Python's writer calls JSON."""
        simple = [None, True, -1, 0, 1.5, 1e308, -1e-320, 2**63, 10**300, float("nan"), float("inf"), "", "d1", "a\x00"]
        simple += ["\ud800", "x" * self.draw.randint(1, 20_000), "\U0001f600", "🏴‍☠️" * 50]
        what = self.draw.randrange(5 if depth < 3 else 3)
        if what == 3:
            return [self.value(depth + 1) for _ in range(self.draw.randint(0, 4))]
        if what == 4:
            names = ["query", "k", "id", "gte", "", "__proto__", "\udfff", "source", "year"]
            return {self.draw.choice(names): self.value(depth + 1) for _ in range(self.draw.randint(0, 4))}
        return self.draw.choice(simple)

    def wrong_types(self) -> bytes:
        """A sound body in which some values are others."""
        path = self.draw.choice(ROUTES)
        body = dict(SOUND[path])
        for name in self.draw.sample(sorted(body), self.draw.randint(0, len(body))):
            body[name] = self.value()
        if self.draw.random() < 0.3:
            body[self.draw.choice(["filter", "weight", "metadata", "extra", "k"])] = self.value()
        return self.request(path, json.dumps(body).encode())

    def odd_text(self) -> bytes:
        """Sound JSON whose text is of any code points, or very many."""
        text = "".join(
            chr(self.draw.choice([self.draw.randrange(0x110000), self.draw.randrange(128)])) for _ in range(50)
        )
        text = self.draw.choice(
            [text, "\x00" * 100, "a" * 10_001, "word " * 2000, "\ud83d", "‮" * 99, "%s%n{0}$`'\";--"]
        )
        path = self.draw.choice(ROUTES)
        body = json.loads(json.dumps(SOUND[path]))
        if path == "/documents":
            body["documents"][0] |= {self.draw.choice(["id", "text", "title"]): text, "metadata": {text[:20]: text}}
        else:
            body[self.draw.choice([name for name in body if isinstance(body[name], str)] or ["queries"])] = text
        return self.request(
            path, json.dumps(body, ensure_ascii=self.draw.random() < 0.5).encode("utf-8", "surrogatepass")
        )

    def deep_nesting(self) -> bytes:
        """Lists in lists in lists."""
        depth = self.draw.choice([10, 100, 199, 200, 201, 1000, 100_000])
        opens, closes = self.draw.choice([("[", "]"), ('{"a":', "}")])
        inner = opens * depth + ("1" + closes * depth if self.draw.random() < 0.7 else "")
        path, field = self.draw.choice([("/search", "filter"), ("/search", "query"), ("/v1/embeddings", "input")])
        if self.draw.random() < 0.3:
            body = f'{{"documents": [{{"id": "deep", "text": "t", "metadata": {{"a": {inner}}}}}]}}'
            return self.request("/documents", body.encode())
        return self.request(path, f'{{"query": "a", "{field}": {inner}}}'.encode())

    def wrong_place(self) -> bytes:
        """A method or a path that is not there."""
        path = self.draw.choice(
            [*ROUTES, *PATHS, "/../../etc/passwd", "/page/..%2f..%2fapp.py", "/%00", "/%ff%fe", "//"]
        )
        if self.draw.random() < 0.3:
            path = "/documents/" + "".join(f"%{byte:02x}" for byte in self.draw.randbytes(self.draw.randint(0, 2000)))
        if self.draw.random() < 0.2:
            path += "?" + "a=%00&" * self.draw.randint(1, 500)
        return self.request(path, b"{}" if self.draw.random() < 0.5 else b"", self.draw.choice(METHODS))

    def bad_headers(self) -> bytes:
        """Headers that lie, contradict each other, or are none."""
        body = json.dumps(SOUND["/search"]).encode()
        length = self.draw.choice(["-1", "abc", "1e3", "0x10", "99999999999999999999", "3", "0", "", "10, 10", "２"])
        lines = [
            f"Content-Length: {length}",
            "Transfer-Encoding: "
            + self.draw.choice(["chunked", "gzip, chunked", "identity", "xchunked", "chunked, chunked"]),
            f"Host: {self.draw.choice(['evil.example', '', '[::1', 'localhost:99999999', 'a' * 3000])}",
            "Content-Type: " + self.draw.choice(["text/html", "", "application/json; charset=utf-7", "a" * 5000]),
            "Authorization: " + self.draw.choice(["Bearer", "Bearer  ", "Basic Og==", "Bearer " + "x" * 9000]),
            "X-Request-Id: " + self.draw.choice(["\x01", "a" * 9000, "<script>", "ü"]),
            "Expect: 100-continue",
            "Upgrade: websocket\r\nConnection: Upgrade",
            "Connection: " + self.draw.choice(["close", "keep-alive, upgrade", "\x7f"]),
            ": no name",
            " folded",
            "Nul: a\x00b",
        ]
        chosen = self.draw.sample(lines, self.draw.randint(1, 4))
        start = self.draw.choice(
            ["POST /search HTTP/1.1", "POST /search HTTP/1.0", "POST /search", "POST  /search HTTP/1.1"]
        )
        head = "\r\n".join([start, "Host: localhost", *chosen])
        return head.encode("latin-1", "replace") + b"\r\n\r\n" + body

    def noise(self) -> bytes:
        """Bytes."""
        return self.draw.randbytes(self.draw.randint(1, 3000)) + self.draw.choice([b"", b"\r\n\r\n"])

    def half_sent(self) -> bytes:
        """A sound request of which the end does not come."""
        path = self.draw.choice(ROUTES)
        whole = self.request(path, json.dumps(SOUND[path]).encode())
        return whole[: self.draw.randrange(1, len(whole))]

    def many_pieces(self) -> list[bytes]:
        """Sound requests byte by byte, or several in one piece."""
        path = self.draw.choice(ROUTES)
        whole = self.request(path, json.dumps(SOUND[path]).encode())
        if self.draw.random() < 0.5:
            return [whole[place : place + 1] for place in range(len(whole))]
        chunked = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        bad = self.draw.choice(
            [b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n", b"2\r\n{}{}\r\n"]
        )
        return [whole * self.draw.randint(2, 20), chunked + b"Transfer-Encoding: chunked\r\n\r\n" + bad]

    def header_flood(self) -> list[bytes]:
        """Headers without an end."""
        line = self.draw.choice([b"X: a\r\n", b"X-" + b"a" * 5000, b"Cookie: " + b"b" * 2000 + b"\r\n"])
        return [b"GET /health HTTP/1.1\r\nHost: localhost\r\n", *[line * 20] * self.draw.randint(5, 200)]

    def large_body(self) -> list[bytes]:
        """10 MB, by a length that is told or in chunks."""
        start = b"POST /documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        if self.draw.random() < 0.5:
            return [start + f"Content-Length: {LARGE}\r\n\r\n".encode(), b" " * LARGE]
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        return [start + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 10, b"0\r\n\r\n"]


def _length(head: bytes) -> int:
    for line in head.lower().splitlines():
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def slow_clients(port: int, count: int, stop: threading.Event) -> None:
    """Keep ``count`` connections open that send a byte a second, until ``stop``; those that are closed come again."""
    whole = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n" + b" " * 1000
    connections: dict[int, tuple[socket.socket, int]] = {}
    while not stop.wait(1.0):
        for number in range(count):
            if number not in connections:
                # Some begin in the middle of the body, so that both halves of a request are dribbled.
                connections[number] = (socket.create_connection(("127.0.0.1", port)), 70 if number % 2 else 1)
                connections[number][0].setblocking(False)
                connections[number][0].send(whole[: connections[number][1]])
            connection, sent = connections[number]
            try:
                connection.send(whole[sent : sent + 1])
                connections[number] = (connection, sent + 1)
            except OSError:
                connection.close()
                del connections[number]
    for connection, _ in connections.values():
        connection.close()
