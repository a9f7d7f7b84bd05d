"""The servers under load, each a process of its own, and what each is asked."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
Plan = dict[str, Any]  # of serving_load.py


class Server:
    """A server's process, up when this returns; its stderr goes to a file."""

    def __init__(self, command: list[str], ready: str, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        command = [part.replace("PORT", str(self.port)) for part in command]
        self.log = log
        with log.open("w") as file:
            environment = {**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
        for _ in range(600):
            try:
                self.get(ready)
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.5)
        self.stop()
        raise SystemExit(f"{' '.join(command)} did not start:\n{log.read_text()[-2000:]}")

    def get(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer's JSON."""
        data = json.dumps(body).encode() if body else None
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.loads(answer.read() or b"{}")

    def memory(self) -> float:
        """Megabytes in memory that are its own (without files that it maps)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) / 1024

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def our_command(bundle: Path, *flags: str) -> list[str]:
    """`two-towers serve`."""
    return [sys.executable, "-m", "freemvmt", "serve", str(bundle), "--port", "PORT", *flags]


def start(
    bundles: list[Path], infinity: Path | None, batch: int, place: Path, servers: dict[str, Server], queries: list[str]
) -> dict[str, Plan]:
    """Start all servers (noted in ``servers`` at once, so that they are stopped whatever happens); what to ask each."""

    def begin(name: str, command: list[str], ready: str) -> Server:
        servers[name] = Server(command, ready, place / f"{len(servers)}.log")
        return servers[name]

    def search(server: Server, documents: int, **more: str) -> Plan:
        bodies = [json.dumps({"query": query, "k": 10, **more}) for query in queries]
        # A query may share no word with any document, and then BM25 rightly finds nothing.
        wanted = {"bodies": bodies, "wanted": '"hits":[' if more.get("method") == "bm25" else '"hits":[{'}
        return {"port": server.port, "path": "/search", "documents": documents, **wanted}

    python = sys.executable
    bare = begin("bare", [python, str(HERE / "serving_load.py"), "--answer", "PORT"], "/")
    targets: dict[str, Plan] = {"the generator's ceiling": {"port": bare.port, "path": "/"}}
    for bundle in bundles:
        ours = begin(f"two-towers {bundle.name}", our_command(bundle, "--no-access-log"), "/ready")
        peer = begin(
            f"sentence-transformers {bundle.name}",
            [python, str(HERE / "serving_peer.py"), str(bundle), "PORT"],
            "/health",
        )
        count = ours.get("/ready")["documents"]
        for method in ("hybrid", "dense", "bm25"):
            targets[f"two-towers {method}, {bundle.name}"] = search(ours, count, method=method)
        targets[f"sentence-transformers dense, {bundle.name}"] = search(peer, count)
    if batch:
        flags = ("--no-access-log", "--batch", str(batch))
        server = begin(f"two-towers {bundle.name}, batch {batch}", our_command(bundle, *flags), "/ready")
        targets[f"two-towers hybrid, {bundle.name}, batch {batch}"] = search(server, count)
    targets["two-towers /health"] = {"port": ours.port, "path": "/health", "wanted": "ok"}
    bodies = [json.dumps({"input": [query], "model": "m"}) for query in queries]
    wanted = {"bodies": bodies, "wanted": '"embedding":['}
    targets["two-towers embeddings"] = {"port": ours.port, "path": "/v1/embeddings", **wanted}
    if infinity:
        folder = place / "m"
        saving = [python, str(HERE / "serving_peer.py"), str(bundle), "--save", str(folder)]
        subprocess.run(saving, check=True, capture_output=True)
        command = [str(infinity / "bin" / "python"), str(HERE / "serving_infinity.py"), "v2", "--model-id", str(folder)]
        command += ["--port", "PORT", "--host", "127.0.0.1", "--device", "cpu"]
        server = begin("infinity-emb", [*command, "--no-bettertransformer", "--log-level", "error"], "/health")
        check_same(ours, server, queries[:20])
        targets["infinity-emb embeddings"] = {"port": server.port, "path": "/embeddings", **wanted}
    return targets


def check_same(ours: Server, infinity: Server, texts: list[str]) -> None:
    """Raise unless both servers give the same vectors within 1e-4."""
    both = [
        np.array([row["embedding"] for row in server.get(path, {"input": texts, "model": "m"})["data"]])
        for server, path in ((ours, "/v1/embeddings"), (infinity, "/embeddings"))
    ]
    if (difference := float(np.abs(both[0] - both[1]).max())) > 1e-4:
        raise SystemExit(f"infinity-emb's vectors differ by {difference:g}")
