"""How long until something happens? The import, the help, a search, the quickstart; each in a process of its own.
And a server's first answer beside its hundredth, and beside one after a pause.

    uv run --group bench python benchmarks/startup.py               # --rounds 1: whether it works

The quickstart runs cold: an empty cache folder, so that docstrings are read and tokenised. The hundredth answer comes
right after others. The processor has then the vectors in its cache, which it loses in a pause: so the first answer,
which comes after a pause too, is to be compared with a later one after a pause.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import record
from rounds import in_turns, summary

from freemvmt.data.corpus import read_corpus

ROUNDS, QUICKSTARTS = 7, 3
ANSWERS = 105  # of a server, one after the other; the hundredth is the median of the last ten
PAUSES, PAUSE, ANSWERS_BETWEEN = 10, 0.3, 10  # answers after so many seconds without a request, others between them
CLIENT = urllib.request.build_opener()  # urlopen makes one at its first call: that time is not the server's
SIZES = {
    "22,000 documents": None,
    "100,000 documents": 100_000,
}  # of the bundles; None: as many as there are
PROTOCOL = (
    "wall time of whole processes, bytecode compiled, in turns, ratios within a round, their median; the quickstart "
    "with an empty cache folder, {quickstarts} times; search: hybrid, 10 documents, untrained averages, files in the "
    "system's cache; cpu: the seconds of all cores; peak: the largest resident set, that of this process at least; "
    "served: the milliseconds of a client's first and hundredth answer, of other queries each, from a server that has "
    "printed its address, and of a later one after {pause} s without a request"
)


def main() -> int:
    """Measure, print, write results/startup.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="fewer write no results")
    rounds = parser.parse_args().rounds
    python, command = sys.executable, str(Path(sys.executable).parent / "two-towers")
    lines = {
        "import freemvmt": [python, "-c", "import freemvmt"],
        "from freemvmt.model import TwoTowersModel": [python, "-c", "from freemvmt.model import TwoTowersModel"],
        "two-towers --help": [command, "--help"],
        "two-towers train --help": [command, "train", "--help"],
        "import torch": [python, "-c", "import torch"],
        "import sentence_transformers": [python, "-c", "import sentence_transformers"],
        "python": [python, "-c", ""],
    }

    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            bundle = _bundle(command, Path(folder) / name, size)
            lines[f"two-towers search, {name}"] = [command, "search", bundle, "shortest path between two nodes"]
            figures[f"served, {name}"] = _served(command, bundle, rounds)
        costs: dict[str, list[tuple[float, float]]] = {name: [] for name in lines}
        ways = {name: lambda line=line, cost=costs[name]: cost.append(_run(line)) for name, line in lines.items()}
        times = in_turns(ways, rounds)
    figures["ways"] = summary(times, "two-towers --help")
    for name, cost in costs.items():
        cpu, peak = zip(*cost[-rounds:], strict=True)
        figures["ways"][name] |= {"cpu": round(statistics.median(cpu), 3), "peak_mib": round(statistics.median(peak))}
    seconds = [_quickstart(command) for _ in range(min(rounds, QUICKSTARTS))]
    figures["quickstart"] = {
        "seconds": round(statistics.median(seconds), 1),
        "runs": [round(one, 1) for one in seconds],
    }
    for name, figure in {**figures["ways"], **figures}.items():
        if name != "ways":
            sys.stdout.write(f"{name:<42} {figure}\n")
    if rounds < ROUNDS:
        return 0
    protocol = PROTOCOL.format(quickstarts=QUICKSTARTS, pause=PAUSE)
    path = record.write("startup", protocol, [0], figures, ("sentence-transformers", "tyro"))
    sys.stdout.write(f"wrote {path}\n")
    return 0


def _run(line: list[str]) -> tuple[float, float]:
    """(seconds of the cores, largest memory in MiB) of a process."""
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(status, line)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _served(command: str, bundle: str, rounds: int) -> dict[str, Any]:
    """Milliseconds of the first answer, of the hundredth and of one after a pause, each the median of the servers."""
    answers = [_answers(command, bundle) for _ in range(rounds)]
    figures: dict[str, Any] = {}
    for place, name in enumerate(("first", "hundredth", "after_pause")):
        figures[f"{name}_ms"] = round(statistics.median(each[place] for each in answers), 2)
        figures[f"{name}_rounds"] = [round(each[place], 2) for each in answers]
    return figures


def _answers(command: str, bundle: str) -> tuple[float, float, float]:
    """Milliseconds of the first answer of a new server, of the hundredth, and of one after a pause."""
    line = [command, "serve", bundle, "--port", "0", "--no-access-log"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = next(line.split()[1] for line in server.stdout if line.startswith("page"))
            numbers = itertools.count()
            taken = [_answer(address, next(numbers)) for _ in range(ANSWERS)]
            after_pause = []
            for _ in range(PAUSES):
                time.sleep(PAUSE)
                after_pause.append(_answer(address, next(numbers)))
                for _ in range(ANSWERS_BETWEEN):
                    _answer(address, next(numbers))
            return taken[0], statistics.median(taken[-10:]), statistics.median(after_pause)
        finally:
            server.terminate()


def _answer(address: str, number: int) -> float:
    """Milliseconds until the answer to a query of its own."""
    body = json.dumps({"query": f"shortest path between {number} nodes"}).encode()
    request = urllib.request.Request(f"{address}search", body, {"Content-Type": "application/json"})
    started = time.perf_counter()
    with CLIENT.open(request) as answer:
        answer.read()
    return (time.perf_counter() - started) * 1000


def _bundle(command: str, folder: Path, size: int | None) -> str:
    """A bundle of so many documents: docstrings, and copies of them with ids of their own."""
    documents = list(read_corpus("pydocs"))
    folder.mkdir()
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for number in range(size or len(documents)):
            document = documents[number % len(documents)]
            file.write(json.dumps({"id": str(number), "title": document.title, "text": document.text}) + "\n")
    index = [command, "index", "untrained", str(folder / "corpus.jsonl"), "--output", str(folder / "bundle")]
    subprocess.run(index, stdout=subprocess.DEVNULL, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return str(folder / "bundle")


def _quickstart(command: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "XDG_CACHE_HOME": folder, "HF_HUB_OFFLINE": "1"}
        started = time.perf_counter()
        subprocess.run(
            [command, "quickstart", "--output", f"{folder}/model"],
            env=environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
