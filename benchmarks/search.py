"""How long does one search take, in process? A bundle of 100,000 documents, beside FAISS alone and bm25s alone.

    uv run python benchmarks/passages.py --data FOLDER --documents 100000 --output corpus.jsonl
    uv run two-towers index MODEL corpus.jsonl --output BUNDLE --no-cut
    uv run python benchmarks/search.py BUNDLE --data FOLDER

The whole of a search is timed: the query is encoded, both sides are ranked 1,000 deep and fused, and the ten hits are
read with text and metadata. FAISS alone gets the vector ready-made and returns numbers; so does bm25s, with the text.
One way searches a copy of the bundle to which another thread adds documents.
"""

import argparse
import itertools
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import record
import torch
from passages import indexed, questions

from freemvmt.data.documents import Document
from freemvmt.search.index.bm25 import Anserini
from freemvmt.search.index.fusion import DEPTH
from freemvmt.search.retriever import Retriever

ADDED, PAUSE = 10, 0.05  # documents that are added at once, and seconds until the next
PROTOCOL = (
    "one query at a time, k = 10, distinct real queries in one order for all; in each of {rounds} rounds every way "
    "has its turn of {queries} queries, after a warm-up round; ratios are to the hybrid search's p50; documents whole; "
    "while documents are added: a thread adds {added} at once, waits {pause} s, and so on as long as there are searches"
)


def main() -> int:
    """Copy the bundle and measure."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--queries", type=int, default=200)
    given = arguments.parse_args()
    record.require_quiet()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "bundle"
        shutil.copytree(given.bundle, copy)
        measure(given, copy)
    return 0


def measure(given: argparse.Namespace, copy: Path) -> None:
    """Measure, print a table, write results/search.json; ``copy`` of the bundle is changed."""
    retriever = Retriever.load(given.bundle)
    asked = questions(given.data, given.queries)
    ways = _ways(retriever, asked)
    growing = growing_search(copy)
    ways["hybrid, while documents are added"] = lambda query: growing(asked[query])
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(given.rounds + 1):
        for name, way in ways.items():
            for query in range(len(asked)):
                started = time.perf_counter()
                way(query)
                if number:  # the first round warms up
                    times[name].append((time.perf_counter() - started) * 1000)
    middle = float(np.percentile(times["hybrid"], 50))
    figures = {
        name: {
            **{f"p{point}_ms": round(float(np.percentile(taken, point)), 3) for point in (50, 95, 99)},
            "ratio": round(float(np.percentile(taken, 50)) / middle, 3),
        }
        for name, taken in times.items()
    }
    for name, figure in figures.items():
        sys.stdout.write(f"{name:<36}" + "  ".join(f"{key} {value:>8}" for key, value in figure.items()) + "\n")
    found = {"documents": len(retriever), "index": retriever.about["index"], "ways": figures}
    protocol = PROTOCOL.format(rounds=given.rounds, queries=given.queries, added=ADDED, pause=PAUSE)
    path = record.write("search", protocol, [0], found, ("faiss-cpu", "tantivy", "pyarrow"))
    sys.stdout.write(f"wrote {path}\n")


def growing_search(folder: Path) -> Callable[[str], object]:
    """The hybrid search of the bundle in ``folder``, to which a thread adds documents as long as it is searched."""
    retriever, is_searched = Retriever.load(folder), threading.Event()
    texts = [document.text for document in retriever.sample(1000)]

    def add() -> None:
        for number in itertools.count(0, ADDED):
            is_searched.wait()
            is_searched.clear()
            new = range(number, number + ADDED)
            retriever.add([Document(f"added {one}", texts[one % len(texts)]) for one in new])
            time.sleep(PAUSE)

    threading.Thread(target=add, daemon=True).start()

    def search(query: str) -> object:
        is_searched.set()
        return retriever.search(query)

    return search


def _ways(retriever: Retriever, asked: list[str]) -> dict[str, Callable[[int], object]]:
    assert retriever.model is not None
    _, texts, vectors = indexed(retriever)
    queries = retriever.model.encode_queries(asked)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    words = Anserini(texts)
    source = max(retriever.values("source"), key=len)
    faiss.omp_set_num_threads(1)

    def alone(index: faiss.Index, depth: int) -> Callable[[int], object]:
        def search(query: int) -> object:
            faiss.omp_set_num_threads(1)
            return index.search(queries[query : query + 1], depth)

        return search

    torch.set_num_threads(1)
    return {
        "hybrid": lambda query: retriever.search(asked[query]),
        "dense": lambda query: retriever.search(asked[query], method="dense"),
        "bm25": lambda query: retriever.search(asked[query], method="bm25"),
        f"hybrid, source = {source}": lambda query: retriever.search(asked[query], filter={"source": source}),
        "encode": lambda query: retriever.model.encode_queries([asked[query]]),
        "FAISS flat alone, 1000": alone(flat, DEPTH),
        "bm25s alone, 1000": lambda query: words.rank([asked[query]], DEPTH),
    }


if __name__ == "__main__":
    sys.exit(main())
