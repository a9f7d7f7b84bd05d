"""The best documents of a run, scored again by a cross-encoder."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from freemvmt.data.collection import Collection
from freemvmt.evaluation.runs import Run, in_trec_order
from freemvmt.runtime.console import QUIET, Console
from freemvmt.search.reranker import Reranker

Read = Callable[[str, Sequence[str]], list[str]]  # what is read, for a query, of the documents with these ids


@dataclass(frozen=True)
class RerankedRun:
    """A run whose first ``depth`` documents a cross-encoder scored, in ``median_ms`` for a query.

    ``by_passages``: it read the best passage of each.
    """

    run: Run
    model: str
    depth: int
    median_ms: float
    by_passages: bool = False

    @property
    def note(self) -> str:
        """What a protocol says of it."""
        return f"; the best {self.depth} reranked by {self.model}" + ", by their passages" * self.by_passages


def rerank_run(
    run: Run,
    collection: Collection,
    reranker: Reranker,
    depth: int,
    read: Read | None = None,
    console: Console = QUIET,
) -> RerankedRun:
    """Score the best ``depth`` documents of each query again.

    ``read`` gives the passages that the reranker reads of them, as in a search; None: it reads whole documents. Their
    scores are the reranker's, above 0. The documents after them keep their order: they have whole numbers below 0, so
    that no metric and no tool of TREC puts one of them first.
    """
    documents = dict(zip(collection.document_ids, collection.documents, strict=True))
    queries = dict(zip(collection.query_ids, collection.queries, strict=True))
    reranked: Run = {}
    seconds = []
    with console.progress("reranking", len(run)) as bar:
        for query, scores in run.items():
            ids = [id for id, _ in in_trec_order(scores)]
            best = ids[:depth]
            contents = [documents[id] for id in best] if read is None else read(queries[query], best)
            start = time.perf_counter()
            first = reranker.scores(queries[query], contents)
            seconds.append(time.perf_counter() - start)
            reranked[query] = dict(in_trec_order(dict(zip(best, first, strict=True)))) | {
                id: -float(rank) for rank, id in enumerate(ids[depth:], start=1)
            }
            bar.advance()
    return RerankedRun(reranked, reranker.name, depth, 1000 * float(np.median(seconds or [0.0])), read is not None)
