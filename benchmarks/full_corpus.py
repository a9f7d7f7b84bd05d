"""Many queries against a whole corpus, exactly: the search beside FAISS, the evaluation beside sentence-transformers'.

    uv run --group bench python benchmarks/full_corpus.py --data FOLDER --model MODEL

A million passages (real sentences, recombined) against real queries, the best 100 of each. In turns on a part of the
queries, as often as it needs for a ratio; then ours and FAISS once on all of them, with the memory that it took.
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import record
import torch
from machine import matrix_speed
from passages import recombined, training_questions
from rounds import in_turns, summary
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.util import dot_score
from serving_peer import static_model

from freemvmt.data.collection import Collection
from freemvmt.evaluation.metrics import measure
from freemvmt.model import TwoTowersModel
from freemvmt.search.index.exact import top_k
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.retriever import Retriever

K = 100
PROTOCOL = (
    "exact inner product, the best 100 of each query, vectors ready-made; in turns on {part:,} queries, ratios within "
    "a round, their median; then once on all queries. The evaluation is search and metrics, from query text to "
    "NDCG@10; the third best passage of each query counts as its answer, as only the time is measured; documents whole"
)


class Memory:
    """The largest resident memory while it is open, above that at the start; bytes."""

    def __enter__(self) -> "Memory":
        self._over, self._start = threading.Event(), _resident()
        self.above = 0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.above = max(self.above, _resident() - self._start)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> int:
    """Measure, print, write results/full_corpus.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--documents", type=int, default=1_000_000)
    arguments.add_argument("--queries", type=int, default=20_000)
    arguments.add_argument("--part", type=int, default=2_000)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    record.require_quiet()
    model = TwoTowersModel.load(given.model)
    texts = recombined(given.data, given.documents)
    documents = model.encode_documents(texts)
    asked = training_questions(given.data, given.queries)
    queries = model.encode_queries(asked)
    flat = faiss.IndexFlatIP(documents.shape[1])
    flat.add(documents.numpy())

    part = queries[: given.part]
    ours, theirs = top_k(part, documents, K), Ranking(*reversed(flat.search(part.numpy(), K)))
    same = _agreement(ours, theirs)
    searches: dict[str, Callable[[], object]] = {
        "two-towers": lambda: top_k(part, documents, K),
        "FAISS flat": lambda: flat.search(part.numpy(), K),
    }
    searched = summary(in_turns(searches, given.rounds, warm_up=0), "two-towers")

    collection = _collection(texts, asked[: given.part], ours)
    retriever = Retriever(model, collection.documents, collection.document_ids, cut=False)
    retriever.store.all_vectors = documents
    evaluator = InformationRetrievalEvaluator(
        dict(zip(collection.query_ids, collection.queries, strict=True)),
        dict(zip(collection.document_ids, collection.documents, strict=True)),
        {query: set(found) for query, found in collection.qrels.items()},
        score_functions={"dot": dot_score},
        write_csv=False,
    )
    peer = static_model(model)

    def evaluate_ours() -> float:
        scores = retriever.scores(collection.queries, K, "dense")
        run = dict(zip(collection.query_ids, scores, strict=True))
        return measure(run, collection, "dense").metrics["ndcg@10"]

    def evaluate_theirs() -> float:
        found: float = evaluator.compute_all_metrics(peer, corpus_embeddings=documents)["dot"]["ndcg@k"][10]
        return found

    evaluations: dict[str, Callable[[], object]] = {
        "two-towers": evaluate_ours,
        "sentence-transformers": evaluate_theirs,
    }
    both = evaluate_ours(), evaluate_theirs()
    if abs(both[0] - both[1]) > 0.02:  # equal passages are ranked in another order
        raise SystemExit(f"the two evaluations differ: {both}")
    evaluated = summary(in_turns(evaluations, given.rounds, warm_up=0), "two-towers")

    with Memory() as memory:
        started = time.perf_counter()
        top_k(queries, documents, K)
        whole = time.perf_counter() - started
    started = time.perf_counter()
    flat.search(queries.numpy(), K)
    whole_faiss = time.perf_counter() - started

    speed = matrix_speed(torch.float32, 4096, documents.shape[1])
    operations = 2 * len(queries) * documents.shape[0] * documents.shape[1]
    figures: dict[str, Any] = {
        "documents": len(documents),
        "k": K,
        "same_documents_as_faiss": same,
        "search": {"queries": given.part, **searched},
        "evaluation": {"queries": given.part, **evaluated},
        "all_queries": {
            "queries": len(queries),
            "two-towers_seconds": round(whole, 1),
            "FAISS flat_seconds": round(whole_faiss, 1),
            "ratio": round(whole_faiss / whole, 2),
            "gib_above_the_vectors": round(memory.above / 2**30, 2),
        },
        "roofline": {
            "matrix_gflops": round(speed / 1e9, 1),
            "seconds_of_the_whole_product_at_that_speed": round(operations / speed, 1),
        },
    }
    for name, figure in figures.items():
        sys.stdout.write(f"{name:<24} {figure}\n")
    protocol = PROTOCOL.format(part=given.part)
    packages = ("faiss-cpu", "sentence-transformers")
    sys.stdout.write(f"wrote {record.write('full_corpus', protocol, [0], figures, packages)}\n")
    return 0


def _agreement(ours: Ranking, theirs: Ranking) -> float:
    """Share of the best K that both name, counting as named what lies within rounding of the last score."""
    named = 0
    for mine, others, score, limit in zip(
        ours.documents, theirs.documents, theirs.scores, ours.scores[:, -1], strict=True
    ):
        named += int((np.isin(others, mine) | (score <= limit + 1e-6)).sum())
    return named / ours.documents.size


def _collection(texts: list[str], queries: list[str], ranking: Ranking) -> Collection:
    ids = [str(number) for number in range(len(texts))]
    names = [f"q{number}" for number in range(len(queries))]
    # The third best is the one that answers: neither perfect nor hopeless.
    qrels = {name: {ids[row[2]]: 1} for name, row in zip(names, ranking.documents, strict=True)}
    return Collection("recombined", ids, texts, names, queries, qrels)


if __name__ == "__main__":
    sys.exit(main())
