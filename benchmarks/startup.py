"""How long until something happens? The import, the help, a search, the quickstart; each in a process of its own.

    uv run --group bench python benchmarks/startup.py

The quickstart runs cold: an empty cache folder, so that docstrings are read and tokenised.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record
from rounds import in_turns, summary

from freemvmt.data.corpus import read_corpus

ROUNDS, QUICKSTARTS = 7, 3
SIZES = {"pydocs": None, "100,000 documents": 100_000}  # of the bundles that are searched; None: as many as there are
PROTOCOL = (
    "wall time of whole processes, bytecode compiled, in turns, ratios within a round, their median; the quickstart "
    "with an empty cache folder, {quickstarts} times; search: hybrid, 10 documents, untrained averages, files in the "
    "system's cache"
)


def main() -> int:
    """Measure, print, write results/startup.json."""
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

    def start(line: list[str]) -> None:
        subprocess.run(line, stdout=subprocess.DEVNULL, check=True)

    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            bundle = _bundle(command, Path(folder) / name, size)
            lines[f"two-towers search, {name}"] = [command, "search", bundle, "shortest path between two nodes"]
        times = in_turns({name: lambda line=line: start(line) for name, line in lines.items()}, ROUNDS)
    figures: dict[str, Any] = {"ways": summary(times, "two-towers --help")}
    seconds = [_quickstart(command) for _ in range(QUICKSTARTS)]
    figures["quickstart"] = {
        "seconds": round(statistics.median(seconds), 1),
        "runs": [round(one, 1) for one in seconds],
    }
    for name, figure in {**figures["ways"], "quickstart": figures["quickstart"]}.items():
        sys.stdout.write(f"{name:<42} {figure}\n")
    protocol = PROTOCOL.format(quickstarts=QUICKSTARTS)
    path = record.write("startup", protocol, [0], figures, ("sentence-transformers", "tyro"))
    sys.stdout.write(f"wrote {path}\n")
    return 0


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
