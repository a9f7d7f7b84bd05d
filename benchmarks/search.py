"""How long does one search take, in process? A bundle of 100,000 documents, beside FAISS alone and bm25s alone.

    uv run python benchmarks/passages.py --data FOLDER --documents 100000 --output corpus.jsonl
    uv run two-towers index MODEL corpus.jsonl --output BUNDLE --no-cut
    uv run python benchmarks/search.py BUNDLE --data FOLDER

The whole of a search is timed: the query is encoded, both sides are ranked 1,000 deep and fused, and the ten hits are
read with text and metadata. FAISS alone gets the vector ready-made and returns numbers; so does bm25s, with the text.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import record
import torch
from passages import questions

from freemvmt.search.index.bm25 import BM25
from freemvmt.search.index.fusion import DEPTH
from freemvmt.search.retriever import Retriever

PROTOCOL = (
    "one query at a time, k = 10, distinct real queries in one order for all; in each of {rounds} rounds every way "
    "has its turn of {queries} queries, after a warm-up round; ratios are to the hybrid search's p50; documents whole"
)


def main() -> int:
    """Measure, print a table, write results/search.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--queries", type=int, default=200)
    given = arguments.parse_args()
    record.require_quiet()
    retriever = Retriever.load(given.bundle)
    asked = questions(given.data, given.queries)
    ways = _ways(retriever, asked)
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
        sys.stdout.write(f"{name:<28}" + "  ".join(f"{key} {value:>8}" for key, value in figure.items()) + "\n")
    found = {"documents": len(retriever), "index": retriever.about["index"], "ways": figures}
    protocol = PROTOCOL.format(rounds=given.rounds, queries=given.queries)
    path = record.write("search", protocol, [0], found, ("faiss-cpu", "tantivy", "pyarrow"))
    sys.stdout.write(f"wrote {path}\n")
    return 0


def _ways(retriever: Retriever, asked: list[str]) -> dict[str, Callable[[int], object]]:
    assert retriever.model is not None
    view = retriever.store.view()
    numbers = range(len(retriever))
    vectors = np.concatenate([view.vectors(numbers[start : start + 8192]) for start in range(0, len(numbers), 8192)])
    texts = [
        document.content
        for start in range(0, len(numbers), 8192)
        for document in view.documents(numbers[start : start + 8192])
    ]
    queries = retriever.model.encode_queries(asked)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    words = BM25(texts)
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
