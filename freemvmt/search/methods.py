"""The search methods: by meaning (dense), by words (bm25), or by both (hybrid)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from freemvmt.config import HYBRID_WEIGHT, Method
from freemvmt.errors import UserError
from freemvmt.runtime.threads import side_by_side
from freemvmt.search.encoder import Encoder, to_numpy
from freemvmt.search.index.fusion import DEPTH, fuse
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.stores.base import Selection, View

Rows = NDArray[np.int64]  # of queries
Rank = Callable[[Rows, int, int], tuple[Ranking, dict[str, Ranking]]]


@dataclass(frozen=True)
class Search:
    """What a search looks through, and what it returns.

    ``selection`` limits it to the documents that a filter selects. ``passages``: the hits are passages, several of one
    document perhaps.
    """

    selection: Selection | None = None
    passages: bool = False


ALL = Search()


def rank_by(
    model: Encoder | None,
    view: View,
    queries: Sequence[str],
    k: int,
    method: Method,
    weight: float | None,
    search: Search = ALL,
) -> tuple[Ranking, dict[str, Ranking]]:
    """The best passage of each of the ``k`` best documents for each query, and the rankings that they were fused from.

    ``weight`` None is the model's own. ``UserError`` for a bad ``k``, ``weight`` or ``method``, and for a method that
    needs a model when there is none.
    """
    check_k(k)
    if weight is None:
        weight = HYBRID_WEIGHT if model is None else model.hybrid_weight
    if not isinstance(weight, float | int) or not 0 <= weight <= 1:
        raise UserError(f"the weight is {weight!r}; give the dense side a share between 0 and 1")
    if method not in ("dense", "bm25", "hybrid"):
        raise UserError(f"there is no method {method!r}; give dense, bm25 or hybrid")
    if method != "bm25" and model is None:
        raise UserError("dense and hybrid search need a model; give one, or search with bm25")
    vectors = None if method == "bm25" or model is None else to_numpy(model.encode_queries(queries))

    def rank(rows: Rows, depth: int, width: int) -> tuple[Ranking, dict[str, Ranking]]:
        """The ``width`` best passages of the queries in ``rows``, of ``depth`` by each side."""

        def dense() -> Ranking:
            assert vectors is not None
            return view.dense(vectors[rows], depth, search.selection)

        def lexical() -> Ranking:
            return view.lexical([queries[row] for row in rows], depth, search.selection)

        if method == "dense":
            return (ranking := dense()), {"dense": ranking}
        if method == "bm25":
            return (ranking := lexical()), {"bm25": ranking}
        left, right = side_by_side(dense, lexical)
        return fuse(left, right, weight, width), {"dense": left, "bm25": right}

    rows = np.arange(len(queries))
    depth = max(k, DEPTH) if method == "hybrid" else k
    if not view.is_cut or search.passages:
        return rank(rows, depth, k)
    return best_passages(view, rank, rows, k, max(depth, 2 * k))


def best_passages(view: View, rank: Rank, rows: Rows, k: int, depth: int) -> tuple[Ranking, dict[str, Ranking]]:
    """The best passage of each of the ``k`` best documents for the queries in ``rows``, and the rankings behind it.

    ``depth`` passages are ranked first, and twice as many for a query that has too few documents among them.
    """
    ranking, sides = rank(rows, depth, 2 * depth)
    best = first_of_each(ranking, view, k)
    found, ranked = ((each.documents >= 0).sum(axis=1) for each in (best, next(iter(sides.values()))))
    short = np.flatnonzero((found < k) & (ranked >= depth))
    if len(short):
        deeper, deeper_sides = best_passages(view, rank, rows[short], k, 2 * depth)
        best = best.with_rows(short, deeper)
        sides = {name: side.with_rows(short, deeper_sides[name]) for name, side in sides.items()}
    return best, sides


def neighbours(view: View, number: int, k: int, selection: Selection | None) -> Ranking:
    """The nearest passage of each of the ``k`` other documents that are nearest to document ``number``, (1, k)."""
    vectors = view.vectors(view.passages_of(number))

    def rank(rows: Rows, depth: int, width: int) -> tuple[Ranking, dict[str, Ranking]]:
        ranking = view.dense(vectors[rows], depth, selection)
        return ranking, {"dense": ranking}

    best, _ = best_passages(view, rank, np.arange(len(vectors)), k + 1, k + 1)
    order = np.argsort(-best.scores, axis=None, kind="stable")
    numbers, scores = best.documents.ravel()[order], best.scores.ravel()[order]
    is_other = (numbers >= 0) & (view.owners(numbers) != number)
    return first_of_each(Ranking(numbers[None, is_other], scores[None, is_other]), view, k)


def first_of_each(ranking: Ranking, view: View, k: int) -> Ranking:
    """``ranking`` without the passages of a document after its first, and with ``k`` documents at most."""
    numbers = np.full((len(ranking.documents), min(k, ranking.documents.shape[1])), -1, np.int64)
    scores = np.zeros(numbers.shape, np.float32)
    owners = view.owners(ranking.documents)
    for row, own in enumerate(owners):
        documents, firsts = np.unique(own, return_index=True)
        places = np.sort(firsts[documents >= 0])[:k]
        numbers[row, : len(places)] = ranking.documents[row, places]
        scores[row, : len(places)] = ranking.scores[row, places]
    return Ranking(numbers, scores)


def check_k(k: object) -> None:
    """Raise ``UserError`` unless ``k`` is a whole number of at least 1."""
    if not isinstance(k, Integral) or int(k) < 1:  # numpy's integers too
        raise UserError(f"k is {k!r}; ask for 1 document or more")
