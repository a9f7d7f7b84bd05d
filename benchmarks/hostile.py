"""Ten thousand hostile requests against a server in a process of its own: does it fail, hang, or grow?

    uv run python benchmarks/hostile.py [--requests 10000]

Broken JSON, wrong types, 10 MB bodies, NUL bytes, half surrogate pairs, deep nesting, lying headers, floods of them,
noise, requests cut off and, meanwhile, slow clients that dribble. Writes what came of it to results/hostile.json and
ends with 1 if anything failed, hung or grew.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import record
from hostile_client import HostileClient, Seen, slow_clients

from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build

CLIENTS = 4
SLOW = 32  # connections at a time
PACKAGES = ("fastapi", "starlette", "uvicorn", "httptools", "pydantic")


def make_bundle(folder: Path) -> Path:
    """A thousand documents with a source and a year."""
    corpus = folder / "corpus.jsonl"
    words = [
        "finance",
        "velocity",
        "protein",
        "harvest",
        "opera",
        "circuit",
        "marble",
        "treaty",
        "glacier",
        "senate",
        "enzyme",
        "quarry",
    ]
    rows = [
        {
            "id": f"d{number}",
            "title": f"{words[number % 12]} {number}",
            "text": " ".join(words[(number * step) % 12] for step in range(1, 40)),
            "metadata": {"source": words[number % 5], "year": 1900 + number % 120},
        }
        for number in range(1000)
    ]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    build(TwoTowersModel(), str(corpus), folder / "bundle")
    return folder / "bundle"


def attack(port: int, seeds: list[int], count: int) -> list[Seen]:
    """``count`` requests from as many clients as there are ``seeds``, and slow ones beside them."""
    clients = [HostileClient(port, seed) for seed in seeds]
    stop = threading.Event()
    slow = threading.Thread(target=slow_clients, args=(port, SLOW, stop))
    threads = [threading.Thread(target=client.run, args=(count // len(seeds),)) for client in clients]
    for thread in [slow, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    slow.join()
    return [client.seen for client in clients]


def resident(process: int) -> float:
    """Resident memory in MB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found
    return round(int(found[1]) / 1024, 1)


def main() -> int:
    """Attack, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    count = parser.parse_args().requests
    environment = {name: value for name, value in os.environ.items() if name != "TWO_TOWERS_TOKEN"}
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder))
        command = [sys.executable, "-m", "freemvmt", "serve", str(bundle), "--port", "0", "--no-access-log"]
        log = (Path(folder) / "log").open("w+")
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        try:
            assert server.stdout
            address = next(found[1] for line in server.stdout if (found := re.search(r"127\.0\.0\.1:(\d+)", line)))
            port = int(address)
            memory = {"at the start": resident(server.pid)}
            seen: list[Seen] = []
            started = time.perf_counter()
            for part in range(5):  # the first of them fills what is kept: caches, arenas, threads
                seen += attack(port, [10 * part + client for client in range(CLIENTS)], count // 5)
                memory[f"after {sum(one.total for one in seen)} requests"] = resident(server.pid)
            seconds = time.perf_counter() - started
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
        finally:
            server.kill()
        log.seek(0)
        logged = log.read().splitlines()
        log.close()
    figures = summary(seen)
    after = list(memory.values())
    figures |= {
        "seconds": round(seconds, 1),
        "resident_mb": memory,
        "grown_mb_after_the_first_fifth": round(after[-1] - after[1], 1),
        "lines_of_log": len(logged),
        "exit_code": code,
    }
    protocol = (
        f"{CLIENTS} clients and {SLOW} slow ones on loopback, seeds 0 to 43; a bundle of 1,000 documents, writable"
    )
    path = record.write("hostile", protocol, list(range(44)), figures, PACKAGES)
    sys.stdout.write(json.dumps(figures, indent=2) + f"\nwrote {path}\n")
    bad = figures["faults"] or figures["hangs"] or logged or code or after[-1] > 1.1 * after[1]
    return 1 if bad else 0


def summary(seen: list[Seen]) -> dict[str, Any]:
    """All that the clients saw, together."""
    kinds: dict[str, Counter[str]] = {}
    for one in seen:
        for kind, counts in one.statuses.items():
            kinds.setdefault(kind, Counter()).update(counts)
    every = sum(kinds.values(), Counter())
    return {
        "requests": every.total(),
        "statuses": dict(sorted(every.items())),
        "by_kind": {kind: dict(sorted(counts.items())) for kind, counts in sorted(kinds.items())},
        "faults": [fault for one in seen for fault in one.faults],
        "hangs": [hang for one in seen for hang in one.hangs],
    }


if __name__ == "__main__":
    sys.exit(main())
