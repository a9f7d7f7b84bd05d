"""What does a thousand queries cost in CPU seconds, end to end, as the corpus grows? Two towers beside their peers.

    OMP_NUM_THREADS=1 uv run python benchmarks/cpu_cost.py --data FOLDER --work FOLDER [--sizes 10000 100000]

CPU seconds are what a fleet pays for, and near to what it draws from the wall. From the text of a query to the ids of
the best ten, one query at a time, one thread. Passages are those of scaling.py. A light query tower over the vectors of
a transformer costs what the same tower costs over any vectors of that width; so both towers here are untrained.

The last way is reckoned, not run: what a search engine with a neural encoder inside must do for a hybrid query at
least. It is the sum of three measured parts: MiniLM by ONNX Runtime, FAISS HNSW, and BM25 by tantivy. HTTP, the JVM,
shards and the merging of their hits would come on top.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import minilm
import numpy as np
import record
import torch
from passages import indexed, questions, recombined
from rounds import in_turns
from scaling import COMMAND

from freemvmt.config import ModelConfig
from freemvmt.model import TwoTowersModel
from freemvmt.search.index.bm25 import Anserini
from freemvmt.search.retriever import Retriever

SIZES = (10_000, 100_000, 1_000_000)
HNSW_AT_MOST = 100_000  # documents; a graph of more takes too long to build here
LINKS, EXPLORE = 16, 100  # of HNSW: the defaults of search engines
OURS = "two-towers, hybrid, average query"
PAPER = "engine with MiniLM inside, hybrid, reckoned"
PROTOCOL = (
    "CPU seconds (user and system) of a process for 1,000 queries, from their text to the ids of the best 10, one "
    "query at a time, one thread; {queries} queries in {rounds} rounds, the ways in turns; ratio to the hybrid with an "
    "average query tower: median over the rounds and its range; bundles as `two-towers index` makes them; FAISS flat; "
    "HNSW with {links} links, {explore} explored; the vectors of FAISS are those of the bundle"
)


def main() -> int:
    """Measure, print, write results/cpu_cost.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="for models, corpora and bundles; made anew")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--queries", type=int, default=40, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("threads that wait burn CPU seconds: run it with OMP_NUM_THREADS=1")
    record.require_quiet()
    torch.set_num_threads(1)
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    TwoTowersModel(ModelConfig()).save(given.work / "average")
    TwoTowersModel(ModelConfig(query_tower="recurrent", document_tower="average")).save(given.work / "gru")
    encode = minilm.onnx(given.work / "minilm.onnx")
    asked = questions(given.data, given.queries * (given.rounds + 1))
    texts = recombined(given.data, max(given.sizes))
    sizes = {}
    for size in given.sizes:
        ways = _ways(texts[:size], given.work, encode)
        sizes[str(size)] = _costs(ways, asked, given.queries, given.rounds)
        for name, figure in sizes[str(size)].items():
            sys.stdout.write(f"{size:>9,}  {name:<46} {figure}\n")
        sys.stdout.flush()
    protocol = PROTOCOL.format(queries=given.queries, rounds=given.rounds, links=LINKS, explore=EXPLORE)
    path = record.write("cpu_cost", protocol, [0], {"sizes": sizes}, ("faiss-cpu", "tantivy", "onnxruntime"))
    sys.stdout.write(f"wrote {path}\n")
    return 0


def _ways(texts: list[str], work: Path, encode: minilm.Encode) -> dict[str, Callable[[str], object]]:
    """By name, what answers one query over ``texts``."""
    corpus = work / "corpus.jsonl"
    with corpus.open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"id": str(number), "text": text}) + "\n")
    average, recurrent = (_bundle(work / name, corpus, work / f"{name}-{len(texts)}") for name in ("average", "gru"))
    _, _, vectors = indexed(average)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    words = Anserini(texts)
    ways: dict[str, Callable[[str], object]] = {
        OURS: lambda query: average.search(query, 10),
        "two-towers, hybrid, GRU query": lambda query: recurrent.search(query, 10),
        "two-towers, dense, average query": lambda query: average.search(query, 10, "dense"),
        "two-towers, BM25": lambda query: average.search(query, 10, "bm25"),
        "bm25s": lambda query: words.rank([query], 10),
        "MiniLM by ONNX Runtime": encode,
        "MiniLM by ONNX Runtime, FAISS flat": lambda query: flat.search(encode(query), 10),
        "bm25s, MiniLM by ONNX Runtime, FAISS flat": lambda query: (
            words.rank([query], 100),
            flat.search(encode(query), 100),
        ),
    }
    if len(texts) <= HNSW_AT_MOST:
        near = average.model
        assert near is not None
        graph = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = graph.hnsw.efSearch = EXPLORE
        graph.add(vectors)
        # A query of the space that the graph's vectors lie in: a stranger's path through the graph would be longer.
        ways["average query, FAISS HNSW"] = lambda query: graph.search(near.encode_queries([query]), 100)
        ways["average query"] = lambda query: near.encode_queries([query])
    return ways


def _bundle(model: Path, corpus: Path, bundle: Path) -> Retriever:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    line = [COMMAND, "index", str(model), str(corpus), "--output", str(bundle), "--no-cut"]
    subprocess.run(line, env=environment, check=True, stdout=subprocess.DEVNULL)
    return Retriever.load(bundle, verify=False)


def _costs(ways: dict[str, Callable[[str], object]], asked: list[str], queries: int, rounds: int) -> dict[str, Any]:
    """CPU seconds of each way for a thousand queries, and how many times those of ``OURS``."""
    parts = [asked[start : start + queries] for start in range(0, len(asked), queries)]
    turns = {name: iter(parts) for name in ways}  # of each way, so that every way answers the same queries in a round

    def answered(name: str, way: Callable[[str], object]) -> Callable[[], None]:
        def answer() -> None:
            for query in next(turns[name]):
                way(query)

        return answer

    seconds = in_turns(
        {name: answered(name, way) for name, way in ways.items()}, rounds, warm_up=1, clock=time.process_time
    )
    if "average query" in seconds:
        parts_of_engine = zip(
            seconds["MiniLM by ONNX Runtime"], seconds["average query, FAISS HNSW"], seconds["average query"],
            seconds["two-towers, BM25"], strict=True,
        )  # fmt: skip
        seconds[PAPER] = [encode + near - query + words for encode, near, query, words in parts_of_engine]
    found: dict[str, Any] = {}
    for name, taken in seconds.items():
        ratios = [theirs / mine for theirs, mine in zip(taken, seconds[OURS], strict=True)]
        found[name] = {
            "cpu_seconds": round(1000 * float(np.median(taken)) / queries, 3),
            "times_ours": round(float(np.median(ratios)), 2),
            "range": [round(min(ratios), 2), round(max(ratios), 2)],
        }
    return found


if __name__ == "__main__":
    sys.exit(main())
