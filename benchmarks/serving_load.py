"""The load generator, a process of its own: raw HTTP/1.1 on connections that stay open, each asking as it is answered.

    python benchmarks/serving_load.py < plan.json           JSON in, JSON out
    python benchmarks/serving_load.py --answer PORT         the least a server can do: the generator's own ceiling

A plan: port, path, bodies (JSON texts; none: GET), clients, seconds, and for the soak a writer (documents a second).
"""

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

import uvloop

HOST = "127.0.0.1"
ADDED_AT_ONCE = 10  # documents a request of the writer


class Client(asyncio.Protocol):
    """One connection. ``times`` gets (seconds since the start, milliseconds) of each answer."""

    def __init__(self, requests: list[bytes], first: int, load: "Load") -> None:
        self.requests, self.next, self.load = requests, first, load
        self.buffer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask at once."""
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        if time.perf_counter() >= self.load.ends:
            self.transport.close()
            return
        self.started = time.perf_counter()
        self.transport.write(self.requests[self.next % len(self.requests)])
        self.next += 1

    def data_received(self, data: bytes) -> None:
        """Once an answer is whole, note it and ask again."""
        self.buffer += data
        if (answer := whole_answer(self.buffer)) is None:
            return
        self.buffer = b""
        self.load.note(self.started, *answer)
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        """A connection that ends before its time is an error."""
        if time.perf_counter() < self.load.ends:
            self.load.errors["connection lost"] += 1
        if not self.done.done():
            self.done.set_result(None)


def whole_answer(buffer: bytes) -> tuple[int, bytes] | None:
    """Status and body of the answer in ``buffer``, None while a part is missing."""
    head_end = buffer.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head = buffer[:head_end].lower()
    at = head.find(b"content-length:")
    if at < 0:
        raise ValueError(f"no content-length in {head!r}")
    length = int(head[at + 15 :].split(b"\r\n", 1)[0])
    body = buffer[head_end + 4 :]
    return (int(head[9:12]), body) if len(body) >= length else None


class Load:
    """What came back."""

    def __init__(self, seconds: float, wanted: str) -> None:
        self.wanted, self.milliseconds = wanted.encode(), []  # type: tuple[bytes, list[float]]
        self.errors: Counter[str] = Counter()
        self.began = time.perf_counter()
        self.ends = self.began + seconds

    def note(self, started: float, status: int, body: bytes) -> None:
        """An answer: right when its status is 200 and it holds what is wanted."""
        self.milliseconds.append((time.perf_counter() - started) * 1e3)
        if status != 200:
            self.errors[f"status {status}: {body[:120].decode(errors='replace')}"] += 1
        elif self.wanted not in body:
            self.errors["an answer without what was asked for"] += 1


def request(method: str, path: str, body: str | None, port: int) -> bytes:
    """A request's bytes."""
    encoded = (body or "").encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nAccept: */*\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(encoded)}\r\n"
    return head.encode() + b"\r\n" + encoded


async def run(plan: dict[str, Any]) -> dict[str, Any]:
    """All clients of the plan, for its seconds."""
    port, path = plan["port"], plan["path"]
    bodies = plan.get("bodies")
    requests = [request("POST", path, body, port) for body in bodies] if bodies else [request("GET", path, None, port)]
    load = Load(plan["seconds"], plan.get("wanted", ""))
    loop = asyncio.get_running_loop()
    writer = asyncio.ensure_future(write(port, load, plan["writer"])) if plan.get("writer") else None
    clients = [
        (await loop.create_connection(lambda number=number: Client(requests, number * 37, load), HOST, port))[1]
        for number in range(plan["clients"])
    ]
    _, late = await asyncio.wait([client.done for client in clients], timeout=plan["seconds"] + 30)
    load.errors["no answer"] += len(late)
    taken = time.perf_counter() - load.began
    found = {"seconds": taken, "milliseconds": load.milliseconds, "errors": +load.errors}
    return found | {"written": await writer} if writer else found


async def write(port: int, load: Load, documents_a_second: float) -> dict[str, int]:
    """Add ten documents, ask for one of them, and delete those of ten rounds ago, again and again; then the rest."""
    counts = {"added": 0, "deleted": 0, "added_and_not_there": 0, "deleted_and_there": 0}
    reader, writer = await asyncio.open_connection(HOST, port)

    async def ask(method: str, path: str, body: str | None, expected: int) -> bool:
        writer.write(request(method, path, body, port))
        buffer = b""
        while (answer := whole_answer(buffer)) is None:
            if not (data := await reader.read(65536)):
                raise ConnectionError("the server closed the writer's connection")
            buffer += data
        if answer[0] not in (200, 404):
            load.errors[f"{method} {path.split('/')[1]}: status {answer[0]}"] += 1
        return answer[0] == expected

    async def delete(names: list[str]) -> None:
        for name in names:
            counts["deleted"] += await ask("DELETE", f"/documents/{name}", None, 200)
        counts["deleted_and_there"] += not await ask("GET", f"/documents/{names[-1]}", None, 404)

    kept: list[list[str]] = []
    number = 0
    while time.perf_counter() < load.ends:
        started = time.perf_counter()
        names = [f"soak-{number + at}" for at in range(ADDED_AT_ONCE)]
        number += ADDED_AT_ONCE
        documents = [{"id": name, "text": f"passage {name} was added while others searched"} for name in names]
        if await ask("POST", "/documents", json.dumps({"documents": documents}), 200):
            counts["added"] += len(names)
        counts["added_and_not_there"] += not await ask("GET", f"/documents/{names[-1]}", None, 200)
        kept.append(names)
        if len(kept) > 10:
            await delete(kept.pop(0))
        await asyncio.sleep(max(0.0, ADDED_AT_ONCE / documents_a_second - (time.perf_counter() - started)))
    for names in kept:
        await delete(names)
    writer.close()
    return counts


class Answer(asyncio.Protocol):
    """The same few bytes for whatever was asked."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep where to write to."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Each read is one request: a client waits for its answer before it asks again."""
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")


async def answer(port: int) -> None:
    """Serve ``Answer`` until killed."""
    server = await asyncio.get_running_loop().create_server(Answer, HOST, port)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--answer"]:
        uvloop.run(answer(int(sys.argv[2])))
    else:
        json.dump(uvloop.run(run(json.load(sys.stdin))), sys.stdout)
