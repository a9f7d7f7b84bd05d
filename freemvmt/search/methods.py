"""The ways to search: by meaning (dense), by words (bm25), or by both at once (hybrid)."""

from collections.abc import Sequence
from numbers import Integral

from freemvmt.config import Method
from freemvmt.errors import UserError
from freemvmt.runtime.threads import at_once
from freemvmt.search.encoder import Encoder, plain
from freemvmt.search.index.fusion import DEPTH, fuse
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.stores.base import Among, View


def rank_by(
    model: Encoder | None,
    view: View,
    queries: Sequence[str],
    k: int,
    method: Method,
    weight: float,
    among: Among | None,
) -> tuple[Ranking, dict[str, Ranking]]:
    """The best ``k`` documents of ``view`` for each query, and the rankings by side that they were made from.

    ``UserError`` where what is asked is not sound.
    """
    check_k(k)
    if not isinstance(weight, float | int) or not 0 <= weight <= 1:
        raise UserError(f"the weight is {weight!r}; give the dense side a share between 0 and 1")
    if method == "bm25":
        lexical = view.lexical(queries, k, among)
        return lexical, {"bm25": lexical}
    if method not in ("dense", "hybrid"):
        raise UserError(f"there is no method {method!r}; give dense, bm25 or hybrid")
    if model is None:
        raise UserError("dense and hybrid search need a model; give one, or search with bm25")
    vectors = plain(model.encode_queries(queries))
    if method == "dense":
        return (dense := view.dense(vectors, k, among)), {"dense": dense}
    depth = max(k, DEPTH)
    dense, lexical = at_once(lambda: view.dense(vectors, depth, among), lambda: view.lexical(queries, depth, among))
    return fuse(dense, lexical, weight, k), {"dense": dense, "bm25": lexical}


def check_k(k: object) -> None:
    """Raise ``UserError`` unless so many documents can be asked for."""
    if not isinstance(k, Integral) or int(k) < 1:  # numpy's too
        raise UserError(f"k is {k!r}; ask for 1 document or more")
