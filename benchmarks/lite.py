"""Serving without PyTorch: how large the environment is, how long until the first answer, and whether it is the same.

    scripts/lite                # makes the environment and measures
    uv run python benchmarks/lite.py --environment .venv-lite

The rivals are the same server in the environment that runs this, and ONNX graphs there, over one bundle of `pydocs`.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import record
from rounds import summary

ROUNDS, QUERIES = 9, 200
OURS = "serve-lite"
PROTOCOL = (
    "seconds from a process's start to its answer to a first search (hybrid, 10 documents), files in the system's "
    "cache, bytecode compiled, in turns, ratios within a round, their median; cpu: what the server took of the cores "
    "until then, which other work on the machine disturbs less; memory: largest resident set until then; size: the "
    "bytes of all files of the environment, bytecode that serving compiles among them; answers: {queries} "
    "queries, dense, beside PyTorch's; documents whole"
)


def main() -> int:
    """Measure, print, write results/lite.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, required=True, help="what scripts/lite made")
    lite = parser.parse_args().environment.resolve()
    record.require_quiet()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        ours = [sys.executable, "-m", "freemvmt"]
        _run([*ours, "index", "untrained", "pydocs", "--output", f"{work}/bundle", "--no-cut"])
        _run([*ours, "export", f"{work}/bundle/model", "--format", "onnx", "--output", f"{work}/onnx"])
        alone, whole = ([*command, "serve", f"{work}/bundle"] for command in ([str(lite / "bin" / "two-towers")], ours))
        ways = {
            OURS: alone,
            "serve-lite, --query-rows int8": [*alone, "--query-rows", "int8"],
            "two-towers whole": whole,
            "two-towers whole, --backend onnx": [*whole, "--backend", "onnx", "--model", f"{work}/onnx"],
        }
        queries = _queries(work)
        times: dict[str, list[float]] = {name: [] for name in ways}
        cores: dict[str, list[float]] = {name: [] for name in ways}
        memory: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(-1, ROUNDS):
            for name, way in ways.items():
                seconds, cpu, mebibytes = _cold(way, queries[0])
                if number >= 0:
                    times[name].append(seconds)
                    cores[name].append(cpu)
                    memory[name].append(mebibytes)
        size = _bytes(lite)
        cold = summary(times, OURS)
        for name in ways:
            cold[name]["cpu"] = round(statistics.median(cores[name]), 2)
            cold[name]["peak_mib"] = round(statistics.median(memory[name]))
        figures: dict[str, Any] = {
            "documents": json.loads((work / "bundle" / "manifest.json").read_text())["documents"],
            "environment": {"bytes": size, "packages": _packages(lite)},
            "cold_start": cold,
            "answers": _compared(work / "bundle", ways, queries),
        }
    sys.stdout.write(f"environment  {size / 1e6:.0f} MB\n")
    for name, figure in figures["cold_start"].items():
        sys.stdout.write(
            f"cold start   {name:<12}{figure['seconds']:.2f} s, cpu {figure['cpu']:.2f} s, {figure['peak_mib']} MiB\n"
        )
    for name, figure in figures["answers"].items():
        sys.stdout.write(f"answers      {name:<12}{figure}\n")
    path = record.write("lite", PROTOCOL.format(queries=QUERIES), [0], figures, ("onnxruntime", "faiss-cpu", "tantivy"))
    sys.stdout.write(f"wrote {path}\n")
    return 0


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})


def _queries(work: Path) -> list[str]:
    """The first words of documents from all over the bundle."""
    from freemvmt.search.index.ranking import evenly_spaced
    from freemvmt.search.stores.texts import Texts

    texts = Texts(work / "bundle")
    return [" ".join(texts[row].text.split()[:8]) for row in evenly_spaced(len(texts), QUERIES)]


@contextmanager
def _serving(way: Sequence[str]) -> Iterator[tuple[str, int]]:
    """The address and the process of a server that has only been started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" or way[0] == sys.executable}
    command = [*way, "--port", str(port), "--no-access-log"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    try:
        yield f"http://127.0.0.1:{port}", server.pid
    finally:
        server.terminate()
        server.wait()


def _search(address: str, query: str, method: str) -> list[dict[str, Any]]:
    body = json.dumps({"query": query, "k": 10, "method": method}).encode()
    request = urllib.request.Request(f"{address}/search", body, {"Content-Type": "application/json"})
    for _ in range(30_000):
        try:
            with urllib.request.urlopen(request) as answer:
                hits: list[dict[str, Any]] = json.load(answer)["hits"]
                return hits
        except ConnectionError:
            time.sleep(0.001)  # it does not listen yet
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError):
                raise
            time.sleep(0.001)
    raise TimeoutError("the server does not answer")


def _cold(way: Sequence[str], query: str) -> tuple[float, float, float]:
    """(seconds until the first answer, those of the cores, the largest memory in MiB until then)."""
    started = time.perf_counter()
    with _serving(way) as (address, process):
        _search(address, query, "hybrid")
        seconds = time.perf_counter() - started
        status, times = (Path(f"/proc/{process}/{name}").read_text() for name in ("status", "stat"))
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    ticks = sum(map(int, times.rpartition(")")[2].split()[11:13]))
    return seconds, ticks / os.sysconf("SC_CLK_TCK"), int(peak) / 1024


def _compared(bundle: Path, ways: dict[str, list[str]], queries: Sequence[str]) -> dict[str, Any]:
    """For each way the share of PyTorch's best ten that it finds, and how far scores are apart."""
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.retriever import Retriever
    from freemvmt.search.stores.texts import Texts

    texts = Texts(bundle)
    documents = [texts[row] for row in range(len(texts))]
    contents, ids = [document.content for document in documents], [document.id for document in documents]
    expected = Retriever(TwoTowersModel.load(bundle / "model"), contents, ids, cut=False).scores(queries, 10, "dense")
    answers = {}
    for name, way in ways.items():
        with _serving(way) as (address, _):
            hits = [_search(address, query, "dense") for query in queries]
        found = [{hit["id"]: hit["score"] for hit in one} for one in hits]
        pairs = list(zip(found, expected, strict=True))
        common = [(one[id], other[id]) for one, other in pairs for id in one.keys() & other.keys()]
        answers[name] = {
            "same_top_10": sum(list(one) == list(other) for one, other in pairs),
            "of_top_10": round(len(common) / sum(len(other) for _, other in pairs), 4),
            "largest_difference": float(f"{max(abs(one - other) for one, other in common):.1e}"),
        }
    return answers


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _packages(folder: Path) -> dict[str, float]:
    """The largest folders of packages, MB."""
    (packages,) = folder.glob("lib/python*/site-packages")
    sizes = {path.name: _bytes(path) / 1e6 for path in packages.iterdir() if path.is_dir()}
    return {name: round(sizes[name], 1) for name in sorted(sizes, key=lambda name: -sizes[name])[:8]}


if __name__ == "__main__":
    sys.exit(main())
