"""Hybrid search of many queries at once: both sides, their fusion and the ids, beside bm25s and FAISS alone added up.

    uv run two-towers index MODEL corpus.jsonl --output BUNDLE --no-cut        (corpus.jsonl: see passages.py)
    uv run python benchmarks/hybrid_search.py BUNDLE --data FOLDER

Ours twice: in memory (exact vectors, and BM25 as bundles have it) and from the bundle, as it is served.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import record
from passages import indexed, training_questions
from rounds import in_turns, summary

from freemvmt.search.index.bm25 import Anserini
from freemvmt.search.index.fusion import DEPTH
from freemvmt.search.retriever import Retriever

PROTOCOL = (
    "query texts to the ids and fused scores of the best 10, both sides {depth} deep; FAISS (flat) gets the vectors "
    "ready-made and bm25s (its own tokenizer, the same stemmer) the texts, both with all cores; in turns on {part:,} "
    "queries, ratios within a round, their median; then once on all {every:,}; documents whole"
)


def main() -> int:
    """Measure, print, write results/hybrid_search.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--queries", type=int, default=10_000)
    arguments.add_argument("--part", type=int, default=2_000)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    record.require_quiet()
    served = Retriever.load(given.bundle)
    model = served.model
    assert model is not None
    ids, texts, vectors = indexed(served)
    asked = training_questions(given.data, given.queries)
    queries = model.encode_queries(asked)
    memory = Retriever(model, texts, ids, cut=False)
    memory.scores(asked[:1], 10)  # both indexes are made when they are first needed
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    words = Anserini(texts)

    def alone(size: int) -> None:
        flat.search(queries[:size], DEPTH)
        words.rank(asked[:size], DEPTH)

    def ways(size: int) -> dict[str, Callable[[], object]]:
        return {
            "two-towers, in memory": lambda: memory.scores(asked[:size], 10),
            "two-towers, bundle": lambda: served.scores(asked[:size], 10),
            "bm25s + FAISS": lambda: alone(size),
        }

    times = in_turns(ways(given.part), given.rounds)
    figures: dict[str, Any] = {
        "documents": len(served),
        "index": served.about["index"],
        "ours_times_the_sum": {
            name: _ratio(times[name], times["bm25s + FAISS"]) for name in times if name != "bm25s + FAISS"
        },
        "ways": summary(times, "bm25s + FAISS"),
        "all_queries": {},
    }
    for name, way in ways(given.queries).items():
        started = time.perf_counter()
        way()
        figures["all_queries"][name] = round(time.perf_counter() - started, 2)
    for name, figure in figures.items():
        sys.stdout.write(f"{name:<20} {figure}\n")
    protocol = PROTOCOL.format(depth=DEPTH, part=given.part, every=given.queries)
    path = record.write("hybrid_search", protocol, [0], figures, ("faiss-cpu", "tantivy"))
    sys.stdout.write(f"wrote {path}\n")
    return 0


def _ratio(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    ratios = sorted(mine / other for mine, other in zip(ours, theirs, strict=True))
    return {"median": round(float(np.median(ratios)), 3), "range": [round(ratios[0], 3), round(ratios[-1], 3)]}


if __name__ == "__main__":
    sys.exit(main())
