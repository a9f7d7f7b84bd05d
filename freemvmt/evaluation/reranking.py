"""The best documents of a run, scored again by a cross-encoder."""

import time
from dataclasses import dataclass

import numpy as np

from freemvmt.data.collection import Collection
from freemvmt.evaluation.runs import Run, in_trec_order
from freemvmt.runtime.console import QUIET, Console
from freemvmt.search.reranker import Reranker


@dataclass(frozen=True)
class RerankedRun:
    """A run whose first ``depth`` documents a cross-encoder scored, in ``median_ms`` for a query."""

    run: Run
    model: str
    depth: int
    median_ms: float

    @property
    def note(self) -> str:
        """What a protocol says of it."""
        return f"; the best {self.depth} reranked by {self.model}"


def rerank_run(
    run: Run, collection: Collection, reranker: Reranker, depth: int, console: Console = QUIET
) -> RerankedRun:
    """Score the best ``depth`` documents of each query again.

    Their scores are the reranker's, above 0. The documents after them keep their order: they have whole numbers below
    0, so that no metric and no tool of TREC puts one of them first.
    """
    contents = dict(zip(collection.document_ids, collection.documents, strict=True))
    queries = dict(zip(collection.query_ids, collection.queries, strict=True))
    reranked: Run = {}
    seconds = []
    with console.progress("reranking", len(run)) as bar:
        for query, scores in run.items():
            ids = [id for id, _ in in_trec_order(scores)]
            start = time.perf_counter()
            first = reranker.scores(queries[query], [contents[id] for id in ids[:depth]])
            seconds.append(time.perf_counter() - start)
            best = in_trec_order(dict(zip(ids, first, strict=False)))
            reranked[query] = dict(best) | {id: -float(rank) for rank, id in enumerate(ids[depth:], start=1)}
            bar.advance()
    return RerankedRun(reranked, reranker.name, depth, 1000 * float(np.median(seconds or [0.0])))
