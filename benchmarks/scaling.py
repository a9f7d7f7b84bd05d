"""How do time and memory grow? 10,000, 100,000 and 1,000,000 passages, from encoding to search.

    uv run python benchmarks/scaling.py --data FOLDER --model MODEL

Passages are real sentences, recombined in a seeded order to the lengths of real passages; a training pair is a
passage's first five words and the rest. Every stage is a process of its own, started as a user would start it, and its
start-up is in the time. A transformer encodes the documents of the first size only: it takes minutes there, and its
time grows with the words. A query over its vectors costs what one over any vectors of that width costs.

The index is the one that `two-towers index` chooses for the size, which another row compares with `--kind pq`. A sketch
of a million vectors is larger than the cache, so each search reads it from memory.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
from passages import questions, recombined

from freemvmt.config import ModelConfig
from freemvmt.model import TwoTowersModel

SIZES = (10_000, 100_000, 1_000_000)
HEAVY_AT_MOST = 10_000  # documents for a transformer
COMMAND = str(Path(sys.executable).parent / "two-towers")
ENCODE = """
import json, sys
from freemvmt.model import TwoTowersModel
with open(sys.argv[2], encoding="utf-8") as file:
    texts = [json.loads(line)["text"] for line in file]
TwoTowersModel.load(sys.argv[1]).encode_documents(texts)
"""
SEARCH = """
import json, sys, time
from freemvmt.search.retriever import Retriever
retriever, asked, times = Retriever.load(sys.argv[1]), json.loads(sys.argv[2]), []
for query in asked:
    started = time.perf_counter()
    retriever.search(query)
    times.append(time.perf_counter() - started)
print(json.dumps(sorted(times)[len(times) // 2]))
"""
# A process begins with the peak of the one that starts it: so it is started by a small one, which says what it took.
LAUNCH = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
sys.stderr.write(f"\\n{usage.ru_maxrss}\\n")
sys.exit(os.waitstatus_to_exitcode(status))
"""
PROTOCOL = (
    "seconds and largest resident memory of a whole process, start-up and reading included; search: median of "
    "{queries} hybrid searches one at a time, the process's memory with the bundle open; training: one epoch, batch "
    "2,048, no cache; index: of the kind that is chosen for the size, documents whole; pq: `--kind pq`; light: an "
    "average query tower over a transformer's documents. The slope is the exponent of growth between the two larger "
    "sizes: 1 is linear"
)


def run(line: list[str], folder: Path) -> tuple[float, float, str]:
    """(seconds, peak MiB, what it printed) of a process."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    started = time.perf_counter()
    launched = [sys.executable, "-c", LAUNCH, *line]
    done = subprocess.run(launched, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{line[:4]} ended with {done.returncode}: {done.stderr[-1000:]}")
    # ru_maxrss is in KiB on Linux.
    return time.perf_counter() - started, int(done.stderr.splitlines()[-1]) / 1024, done.stdout


def measured(texts: list[str], models: tuple[str, str], folder: Path, asked: list[str]) -> dict[str, dict[str, float]]:
    """All stages on these texts with the first of ``models``; on few texts also those of the second, the heavy one."""
    folder.mkdir()
    corpus, pairs = folder / "corpus.jsonl", folder / "pairs.jsonl"
    with corpus.open("w", encoding="utf-8") as documents, pairs.open("w", encoding="utf-8") as examples:
        for number, text in enumerate(texts):
            words = text.split()
            documents.write(json.dumps({"id": str(number), "text": text}) + "\n")
            pair = {"query": " ".join(words[:5]), "passage": " ".join(words[5:]) or text}
            examples.write(json.dumps(pair) + "\n")
    train = ["train", "--dataset", str(pairs), "--epochs", "1", "--batch-size", "2048", "--no-wandb"]
    bundle, pq, light = folder / "bundle", folder / "pq", folder / "light"
    lines = {
        "encode": [sys.executable, "-c", ENCODE, models[0], str(corpus)],
        "train": [COMMAND, *train, "--output", str(folder / "model")],
        "index": _index(models[0], corpus, bundle),
        "search": [sys.executable, "-c", SEARCH, str(bundle), json.dumps(asked)],
        "index, pq": [*_index(models[0], corpus, pq), "--kind", "pq"],
        "search, pq": [sys.executable, "-c", SEARCH, str(pq), json.dumps(asked)],
    }
    if len(texts) <= HEAVY_AT_MOST:
        lines |= {
            "index, light": _index(models[1], corpus, light),
            "search, light": [sys.executable, "-c", SEARCH, str(light), json.dumps(asked)],
        }
    found = {}
    for stage, line in lines.items():
        seconds, peak, printed = run(line, folder)
        seconds = json.loads(printed) if stage.startswith("search") else seconds
        found[stage] = {"seconds": round(seconds, 5), "mib": round(peak)}
        sys.stdout.write(f"{len(texts):>9,}  {stage:<13} {found[stage]}\n")
        sys.stdout.flush()
    return found


def _index(model: str, corpus: Path, bundle: Path) -> list[str]:
    return [COMMAND, "index", model, str(corpus), "--output", str(bundle), "--no-cut"]


def _kind_of(bundle: Path) -> str:
    """The kind of index that was chosen for ``bundle``."""
    kind: str = json.loads((bundle / "manifest.json").read_text())["index"]["kind"]
    return kind


def main() -> int:
    """Measure, print, write results/scaling.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--queries", type=int, default=200)
    given = arguments.parse_args()
    record.require_quiet()
    texts = recombined(given.data, max(SIZES))
    asked = questions(given.data, given.queries)
    with tempfile.TemporaryDirectory() as folder:
        heavy = Path(folder) / "heavy"
        TwoTowersModel(ModelConfig(query_tower="average", document_tower="transformer")).save(heavy)
        models = str(Path(given.model).resolve()), str(heavy)
        stages = {size: measured(texts[:size], models, Path(folder) / str(size), asked) for size in SIZES}
        kinds = {size: _kind_of(Path(folder) / str(size) / "bundle") for size in SIZES}
    small, large = SIZES[-2:]
    slopes: dict[str, Any] = {
        stage: {
            key: round(math.log(stages[large][stage][key] / stages[small][stage][key]) / math.log(large / small), 2)
            for key in ("seconds", "mib")
        }
        for stage in stages[large]
    }
    sys.stdout.write(f"slopes {slopes}\n")
    figures = {
        "sizes": list(SIZES),
        "words_per_passage": round(float(np.mean([len(text.split()) for text in texts])), 1),
        "kinds": {str(size): kind for size, kind in kinds.items()},
        "stages": {str(size): found for size, found in stages.items()},
        "slopes": slopes,
    }
    packages = ("faiss-cpu", "tantivy")
    path = record.write("scaling", PROTOCOL.format(queries=given.queries), [0], figures, packages)
    sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
