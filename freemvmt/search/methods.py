"""The search methods: by meaning (dense), by words (bm25), or by both (hybrid)."""

from collections.abc import Sequence
from numbers import Integral

from freemvmt.config import HYBRID_WEIGHT, Method
from freemvmt.errors import UserError
from freemvmt.runtime.threads import side_by_side
from freemvmt.search.encoder import Encoder, to_numpy
from freemvmt.search.index.fusion import DEPTH, fuse
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.stores.base import Selection, View


def rank_by(
    model: Encoder | None,
    view: View,
    queries: Sequence[str],
    k: int,
    method: Method,
    weight: float | None,
    selection: Selection | None,
) -> tuple[Ranking, dict[str, Ranking]]:
    """The best ``k`` documents of ``view`` for each query, and the rankings that they were fused from, by method.

    ``weight`` None is the model's own. ``selection`` limits the search to the documents that a filter selects.
    ``UserError`` for a bad ``k``, ``weight`` or ``method``, and for a method that needs a model when there is none.
    """
    check_k(k)
    if weight is None:
        weight = HYBRID_WEIGHT if model is None else model.hybrid_weight
    if not isinstance(weight, float | int) or not 0 <= weight <= 1:
        raise UserError(f"the weight is {weight!r}; give the dense side a share between 0 and 1")
    if method == "bm25":
        lexical = view.lexical(queries, k, selection)
        return lexical, {"bm25": lexical}
    if method not in ("dense", "hybrid"):
        raise UserError(f"there is no method {method!r}; give dense, bm25 or hybrid")
    if model is None:
        raise UserError("dense and hybrid search need a model; give one, or search with bm25")
    vectors = to_numpy(model.encode_queries(queries))
    if method == "dense":
        return (dense := view.dense(vectors, k, selection)), {"dense": dense}
    depth = max(k, DEPTH)
    dense, lexical = side_by_side(
        lambda: view.dense(vectors, depth, selection), lambda: view.lexical(queries, depth, selection)
    )
    return fuse(dense, lexical, weight, k), {"dense": dense, "bm25": lexical}


def check_k(k: object) -> None:
    """Raise ``UserError`` unless ``k`` is a whole number of at least 1."""
    if not isinstance(k, Integral) or int(k) < 1:  # numpy's integers too
        raise UserError(f"k is {k!r}; ask for 1 document or more")
