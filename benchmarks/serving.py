"""Load on loopback: our server beside the same model in sentence-transformers, and beside infinity-emb, in one run.

    uv run --group bench python benchmarks/serving.py --data FOLDER --bundles BUNDLE BUNDLE_OF_100000
        [--infinity VENV] [--batch N] [--soak 120]

Every server is a process of its own; so is the load generator, which shares the cores with them. Clients ask again as
soon as they are answered. Rounds in which every target has its turn, in a seeded order, so that noise hits all alike.
The soak searches a copy of the last bundle with 64 clients while documents come and go.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
from passages import questions
from serving_servers import Server, our_command, start

HERE = Path(__file__).parent
CLIENTS = [1, 16, 64]
SEED = 0
PROTOCOL = (
    "closed loop on loopback, keep-alive, generator on the same cores; rounds, every target a turn, in a seeded order; "
    "different real queries, k 10; answers checked for status and hits; our server with its defaults, no access log "
    "(in the soak: with it); peer: the same vectors, exact search, FastAPI and uvicorn, as many threads; p50 and p99 "
    "over all rounds, queries per second as the median round's"
)


def main() -> int:
    """Measure, print and write results/serving.json."""
    asked = _arguments()
    record.require_quiet()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # servers are not left behind
    queries = questions(asked.data, 1000)
    servers: dict[str, Server] = {}
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        try:
            targets = start(asked.bundles, asked.infinity, asked.batch, Path(place), servers, queries)
            figures["targets"] = measure(
                targets, 2 if asked.quick else asked.rounds, 1 if asked.quick else asked.seconds
            )
            figures["memory_mb_after_load"] = {
                name: round(server.memory(), 1) for name, server in servers.items() if name != "bare"
            }
        finally:
            for server in servers.values():
                server.stop()
        if asked.soak:
            figures["soak"] = soak(asked.bundles[-1], Path(place), asked.soak, queries)
            _say(f"soak: {figures['soak']}")
    figures["quick"] = asked.quick
    packages = ("fastapi", "uvicorn", "uvloop", "faiss-cpu", "tantivy", "sentence-transformers")
    _say(f"wrote {record.write('serving', PROTOCOL, [SEED], figures, packages)}")
    return 0


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--bundles", type=Path, nargs="+", required=True, help="the last one is soaked")
    arguments.add_argument("--infinity", type=Path, help="virtual environment with infinity-emb")
    arguments.add_argument("--batch", type=int, default=0, help="ours once more, searching so many at once")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=4, help="of a turn")
    arguments.add_argument("--soak", type=float, default=120, help="seconds; 0: none")
    arguments.add_argument("--quick", action="store_true", help="a look at whether all runs; no figures to quote")
    return arguments.parse_args()


def generate(plan: dict[str, Any], clients: int, seconds: float) -> dict[str, Any]:
    """What a load generator of its own process found."""
    command = [sys.executable, str(HERE / "serving_load.py")]
    asked = json.dumps({**plan, "clients": clients, "seconds": seconds})
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(targets: dict[str, Any], rounds: int, seconds: float) -> dict[str, Any]:
    """Queries a second and milliseconds by target and number of clients."""
    rng = random.Random(SEED)
    turns: dict[str, dict[int, list[Any]]] = {name: {clients: [] for clients in CLIENTS} for name in targets}
    for plan in targets.values():
        generate(plan, 4, 0.5)  # warm
    for number in range(rounds):
        _say(f"round {number + 1} of {rounds}")
        for clients in CLIENTS:
            for name in rng.sample(list(targets), len(targets)):
                turns[name][clients].append(generate(targets[name], clients, seconds))
    figures: dict[str, Any] = {}
    for name, by_clients in turns.items():
        figures[name] = {"clients": {str(clients): _summary(found) for clients, found in by_clients.items()}}
        if "documents" in targets[name]:
            figures[name]["documents"] = targets[name]["documents"]
        _say(f"{name}: {figures[name]}")
    return figures


def _summary(turns: list[Any]) -> dict[str, Any]:
    taken = np.concatenate([turn["milliseconds"] for turn in turns])
    errors: dict[str, int] = {}
    for turn in turns:
        for what, count in turn["errors"].items():
            errors[what] = errors.get(what, 0) + count
    rates = [len(turn["milliseconds"]) / turn["seconds"] for turn in turns]
    return {
        "qps": round(float(np.median(rates)), 1),
        "qps_rounds": [round(rate, 1) for rate in rates],
        **({f"p{share}_ms": round(float(np.percentile(taken, share)), 3) for share in (50, 99)} if len(taken) else {}),
        "answers": len(taken),
        "errors": errors,
    }


def soak(bundle: Path, place: Path, seconds: float, queries: list[str]) -> dict[str, Any]:
    """64 clients search while documents come and go: errors, and the server's own memory over time."""
    copy = place / "soaked"
    shutil.copytree(bundle, copy)
    server = Server(our_command(copy), "/ready", place / "soak.log")
    try:
        before = server.get("/ready")["documents"]
        bodies = [json.dumps({"query": query, "k": 10}) for query in queries]
        plan = {"port": server.port, "path": "/search", "bodies": bodies, "wanted": '"hits":[', "writer": 40}
        generate({**plan, "writer": 0}, 64, 3)  # threads and caches are there: what grows from here on is a leak
        samples, over = [], threading.Event()

        def sample() -> None:
            started = time.perf_counter()
            while not over.is_set():
                samples.append((round(time.perf_counter() - started, 1), round(server.memory(), 1)))
                over.wait(5)

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            found = generate(plan, 64, seconds)
        finally:
            over.set()
            sampler.join()
        later = [one for one in samples if one[0] >= seconds / 2] or samples
        slope = np.polyfit(*zip(*later, strict=True), 1)[0] * 60 if len(later) > 1 else 0.0
        return {
            "seconds": seconds,
            "clients": 64,
            **_summary([found]),
            "written": found["written"],
            "documents": {"before": before, "after": server.get("/ready")["documents"]},
            "memory_mb": {"start": samples[0][1], "end": samples[-1][1], "samples": samples},
            "memory_mb_a_minute_in_the_second_half": round(float(slope), 2),
        }
    finally:
        server.stop()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
