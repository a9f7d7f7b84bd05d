"""Half an hour of mixed load while workers are killed, the bundle is swapped, and clients misbehave.

    uv run python benchmarks/server_faults.py [--minutes 30] [--documents 20000]

The real command with two workers, in processes of its own; so is the load: searches of every kind, documents that come
and go, at a steady rate that does not wait for answers. Every few minutes a worker is killed with -9, and every few
others another bundle takes the place of the one that is served. Some clients do not read, some drip. Memory (PSS of
the workers), open files and p99 are noted each minute; a line is fitted through the memory after the warm-up.
"""

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import record

from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.stores.local.store import replace_bundle

SEED, WORKERS, RATE = 0, 2, 40.0  # requests a second
WARM_UP, KILLS, SWAPS = 5, 3, 7  # minutes: of warming up, between two kills, between two swaps
DRIPPING = 16  # clients that misbehave
_WORDS = ("river", "mountain", "doctor", "engine", "kitchen", "planet", "piano", "winter", "market", "soldier")
_GRACE = 2.0  # seconds around a kill in which what fails is counted apart


def main() -> int:
    """Load, kill, swap, print, write results/server_faults.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=30)
    arguments.add_argument("--documents", type=int, default=20_000)
    arguments.add_argument("--swaps", type=float, default=SWAPS, help="minutes between two")
    given = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with tempfile.TemporaryDirectory() as place:
        figures = _measured(Path(place), given.documents, given.minutes, given.swaps)
    protocol = (
        f"{given.minutes:g} minutes, {WORKERS} workers, {RATE:g} requests a second on loopback, sent by a schedule: "
        "60 % hybrid, 12 % dense with a filter, 12 % BM25, 6 % embeddings, 6 % documents by id, 4 % added or deleted; "
        f"{given.documents:,} documents; kill -9 every {KILLS} minutes, another bundle every {given.swaps:g}, "
        f"{DRIPPING} clients that do not read or drip; memory fitted after {WARM_UP} minutes"
    )
    packages = ("fastapi", "uvicorn", "uvloop", "faiss-cpu", "tantivy")
    sys.stdout.write(f"{json.dumps(figures, indent=1)}\n")
    sys.stdout.write(f"wrote {record.write('server_faults', protocol, [SEED], figures, packages)}\n")
    return 1 if figures["failed_apart_from_kills"] else 0


def _measured(place: Path, documents: int, minutes: float, swaps: float) -> dict[str, Any]:
    draw = random.Random(SEED)
    with (place / "corpus.jsonl").open("w") as file:
        for number in range(documents):
            text = f"{' '.join(draw.choices(_WORDS, k=50))} {number}"
            file.write(json.dumps({"id": f"d{number}", "text": text, "metadata": {"year": number % 50}}) + "\n")
    build(TwoTowersModel.load("untrained"), str(place / "corpus.jsonl"), place / "spare")
    shutil.copytree(place / "spare", place / "served")
    serve = ["serve", str(place / "served"), "--port", "0", "--workers", str(WORKERS)]
    command, pipe = [sys.executable, "-m", "freemvmt", *serve], subprocess.PIPE
    log = (place / "log").open("w+")
    with log, subprocess.Popen(command, stdout=pipe, stderr=log, text=True) as parent:
        try:
            assert parent.stdout
            said = "".join(parent.stdout.readline() for _ in range(3))
            found = re.search(r"http://127\.0\.0\.1:(\d+)/\n", said)
            assert found, said
            run = Run(parent.pid, int(found[1]), place, minutes, swaps)
            asyncio.run(run.all())
            return run.summary()
        finally:
            parent.terminate()
            parent.wait(60)
            log.seek(0)
            sys.stdout.writelines(line for line in log if not line.startswith("{"))  # all but what was asked


class Run:
    """One run of the load, and what was seen."""

    def __init__(self, parent: int, port: int, place: Path, minutes: float, swaps: float) -> None:
        self.parent, self.port, self.place, self.seconds = parent, port, place, minutes * 60
        self.between_swaps = swaps * 60
        self.started = time.monotonic()
        self.times: list[list[float]] = []  # milliseconds, by minute
        self.answered = 0
        self.failed: Counter[str] = Counter()
        self.at_kills: list[int] = []  # requests that failed around each kill
        self.in_flight = 0
        self.in_flight_at_kills: list[int] = []
        self.memory: list[float] = []  # MB, by minute
        self.files: list[int] = []
        self.last_kill = -1e9
        self.left = 0  # misbehaving clients that were cut off
        self.swaps = 0

    async def all(self) -> None:
        """The load and the faults, side by side."""
        faults = [self._watch(), self._kill(), self._swap(), *map(self._misbehave, range(DRIPPING))]
        await asyncio.gather(self._load(), *faults)

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    async def _load(self) -> None:
        draw, waiting = random.Random(SEED), set()
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=64)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=20, limits=limits) as client:
            due = 0.0
            while self.now < self.seconds:
                due += draw.expovariate(RATE)
                await asyncio.sleep(max(0.0, due - self.now))
                task = asyncio.create_task(self._ask(client, draw.random(), draw))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
            await asyncio.gather(*waiting)

    async def _ask(self, client: httpx.AsyncClient, share: float, draw: random.Random) -> None:
        query = " ".join(draw.choices(_WORDS, k=draw.randint(1, 4)))
        number = draw.randrange(1000)
        if share < 0.84:
            kind = "hybrid" if share < 0.6 else "dense" if share < 0.72 else "bm25"
            body: dict[str, Any] = {"query": query, "method": kind}
            if kind == "dense":
                body["filter"] = {"year": {"gte": 25}}
            path, method = "/search", "POST"
        elif share < 0.90:
            path, method, body = "/v1/embeddings", "POST", {"input": query}
        elif share < 0.96:
            path, method, body = f"/documents/d{number}", "GET", {}
        else:
            path, method = "/documents", "POST"
            body = {"documents": [{"id": f"new{number}", "text": query}]}
        began, sent = time.perf_counter(), self.now
        self.in_flight += 1
        try:
            answer = await client.request(method, path, json=body or None)
            good = answer.status_code == 200
            what = "" if good else f"{path}: {answer.status_code} {answer.text[:120]}"
            if good and share > 0.98:
                await client.request("DELETE", f"/documents/new{number}")
        except httpx.HTTPError as error:
            good, what = False, f"{path}: {type(error).__name__}"
        finally:
            self.in_flight -= 1
        minute = int(sent // 60)
        while len(self.times) <= minute:
            self.times.append([])
        if good:
            self.answered += 1
            self.times[minute].append((time.perf_counter() - began) * 1000)
        elif min(abs(sent - self.last_kill), abs(self.now - self.last_kill)) < _GRACE:
            self.at_kills[-1] += 1
        else:
            self.failed[what] += 1

    async def _watch(self) -> None:
        for minute in range(1, int(self.seconds // 60) + 1):
            await asyncio.sleep(max(0.0, minute * 60 - self.now - 0.5))
            workers = self._workers()
            self.memory.append(sum(map(_memory_of, workers)))
            self.files.append(sum(len(list(Path(f"/proc/{worker}/fd").iterdir())) for worker in workers))
            p99 = np.percentile(self.times[minute - 1], 99)
            seen = f"{self.memory[-1]:.0f} MB, {self.files[-1]} files, p99 {p99:.0f} ms, {dict(self.failed)}"
            sys.stdout.write(f"minute {minute}: {seen}\n")
            sys.stdout.flush()

    async def _kill(self) -> None:
        while (due := (len(self.at_kills) + 1) * KILLS * 60 - 30) < self.seconds:
            await asyncio.sleep(max(0.0, due - self.now))
            self.in_flight_at_kills.append(self.in_flight)
            self.at_kills.append(0)
            self.last_kill = self.now
            os.kill(self._workers()[0], signal.SIGKILL)

    async def _swap(self) -> None:
        while (due := (self.swaps + 1) * self.between_swaps) < self.seconds:
            await asyncio.sleep(max(0.0, due - self.now))
            part = self.place / "part"
            await asyncio.to_thread(shutil.copytree, self.place / "spare", part)
            await asyncio.to_thread(replace_bundle, part, self.place / "served")
            self.swaps += 1

    async def _misbehave(self, number: int) -> None:
        """Ask for much and read nothing, or send a header that has no end, again and again."""
        batch = json.dumps({"queries": ["river"] * 100, "k": 100}).encode()
        much = b"POST /search/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        much += str(len(batch)).encode() + b"\r\n\r\n" + batch
        await asyncio.sleep(number * 7)
        while self.now < self.seconds:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1024)
                if number % 2:
                    writer.write(much * 3)
                    await asyncio.sleep(45)
                else:
                    for _ in range(45):
                        writer.write(b"POST /search HTTP/1.1\r\n" if _ == 0 else b"X: y\r\n")
                        await writer.drain()
                        await asyncio.sleep(1)
                writer.close()
            except (ConnectionError, OSError):
                self.left += 1
            await asyncio.sleep(60)

    def _workers(self) -> list[int]:
        children = Path(f"/proc/{self.parent}/task/{self.parent}/children").read_text().split()
        return sorted(map(int, children))

    def summary(self) -> dict[str, Any]:
        """The figures."""
        warm = self.memory[WARM_UP:] or self.memory
        p99 = [round(float(np.percentile(times, 99)), 1) for times in self.times if times]
        slope = float(np.polyfit(range(len(warm)), warm, 1)[0]) if len(warm) > 2 else 0.0
        return {
            "answered": self.answered,
            "kills": len(self.at_kills),
            "in_flight_at_kills": self.in_flight_at_kills,
            "failed_at_kills": self.at_kills,
            "swaps": self.swaps,
            "failed_apart_from_kills": dict(self.failed),
            "cut_off": self.left,
            "memory_mb_by_minute": [round(one, 1) for one in self.memory],
            "memory_mb_a_minute_after_warm_up": round(slope, 2),
            "open_files_by_minute": self.files,
            "p99_ms_by_minute": p99,
        }


def _memory_of(process: int) -> float:
    """Megabytes, what is shared counted once (PSS)."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^Pss: +(\d+) kB", text, re.M)
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    sys.exit(main())
