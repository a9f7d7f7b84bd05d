"""What does it cost to encode one query? Light towers in NumPy beside MiniLM, which their token vectors come from.

    OMP_NUM_THREADS=1 scripts/alone uv run python benchmarks/query_cost.py

One process on one core, the ways in turns, from the text of a query to its vector of length 1.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import minilm
import numpy as np
import record
import torch

from freemvmt.config import DataConfig, ModelConfig
from freemvmt.data.load import load_collection
from freemvmt.data.readers import pydocs
from freemvmt.evaluation.metrics import evaluate
from freemvmt.model import TwoTowersModel
from freemvmt.search.lazy_model import LazyModel
from freemvmt.search.retriever import Retriever

WARM_UP, TURN = 100, 20  # queries that are not timed; queries that a way encodes before the next way does
PROTOCOL = (
    "microseconds from the text of a query to its vector, with tokenizing; {queries} first lines of docstrings; one "
    "process, threads: {threads}, {turn} queries by each way in turn; ndcg@10: {collection}, dense, untrained average; "
    "documents whole"
)


def main() -> int:
    """Measure, print, write results/query_cost.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--collection", default="pydocs", help="on which rows of a byte a number are compared")
    given = parser.parse_args()
    record.require_quiet()
    torch.set_num_threads(1)
    texts = [" ".join(doc.summary.split()[:12]) for doc in pydocs.sample(given.queries + WARM_UP, 0)]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        TwoTowersModel(ModelConfig()).save(work / "average")
        TwoTowersModel(ModelConfig(tower="recurrent")).save(work / "recurrent")
        small = LazyModel(work / "average", "int8")
        ways: dict[str, minilm.Encode] = {
            "average": _ours(LazyModel(work / "average")),
            "average, int8 rows": _ours(small),
            "GRU": _ours(LazyModel(work / "recurrent")),
            "MiniLM, sentence-transformers": minilm.sentence_transformers(),
            "MiniLM, ONNX Runtime": minilm.onnx(work / "minilm.onnx"),
        }
        figures: dict[str, Any] = {
            "ways": _timed(ways, texts),
            "ndcg@10": _ndcg({"fp32": LazyModel(work / "average"), "int8": small}, given.collection),
        }
    for name, figure in figures["ways"].items():
        sys.stdout.write(f"{name:<32} p50 {figure['p50']:>9,.1f} us   p99 {figure['p99']:>9,.1f} us\n")
    sys.stdout.write(f"ndcg@10 {figures['ndcg@10']}\n")
    protocol = PROTOCOL.format(
        queries=given.queries,
        collection=given.collection,
        turn=TURN,
        threads=os.environ.get("OMP_NUM_THREADS", "of each library's own choice"),
    )
    path = record.write("query_cost", protocol, [0], figures, ("sentence-transformers", "onnxruntime"))
    sys.stdout.write(f"wrote {path}\n")
    return 0


def _timed(ways: dict[str, minilm.Encode], texts: list[str]) -> dict[str, Any]:
    """The median and the 99th percentile of each way, and how many times as long as the first its median is."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for start in range(0, len(texts), TURN):
        for name, encode in ways.items():
            for text in texts[start : start + TURN]:
                started = time.perf_counter()
                encode(text)
                if start >= WARM_UP:
                    taken[name].append((time.perf_counter() - started) * 1e6)
    first = statistics.median(next(iter(taken.values())))
    return {
        name: {
            "p50": round(statistics.median(times), 1),
            "p99": round(float(np.quantile(times, 0.99)), 1),
            "times_as_long": round(statistics.median(times) / first, 1),
        }
        for name, times in taken.items()
    }


def _ours(model: LazyModel) -> minilm.Encode:
    model.tokenizer.prepare()
    return lambda text: model.encode_queries([text])


def _ndcg(models: dict[str, LazyModel], name: str) -> dict[str, float]:
    collection = load_collection(name, None, DataConfig())
    found = {}
    for rows, model in models.items():
        retriever = Retriever(model, collection.documents, collection.document_ids, cut=False)
        found[rows] = round(evaluate(retriever, collection, "dense")[0].metrics["ndcg@10"], 4)
    return found


if __name__ == "__main__":
    sys.exit(main())
