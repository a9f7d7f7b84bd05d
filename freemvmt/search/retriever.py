"""Documents in memory, searched by meaning (dense), by words (bm25) or by both (hybrid).

retriever = Retriever(model, documents)
for hit in retriever.search("what is a tower", k=3):
    print(hit.score, hit.text)
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from freemvmt.config import HYBRID_WEIGHT, Method
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search.exact import Ranking, top_k
from freemvmt.search.lexical import BM25, DEPTH, fuse


@dataclass(frozen=True)
class Hit:
    """One answer: ``score`` is a cosine (dense), a BM25 score, or a fused score between 0 and 1 (hybrid)."""

    id: str
    score: float
    text: str


class Retriever:
    """Search over ``documents``; ``ids`` default to their numbers. Each index is made when it is first needed."""

    def __init__(
        self, model: TwoTowersModel | None, documents: Sequence[str], ids: Sequence[str] | None = None
    ) -> None:
        self.model = model
        self.documents = documents
        self.ids = ids if ids is not None else [str(number) for number in range(len(documents))]
        if len(self.ids) != len(documents):
            raise UserError(f"{len(documents)} documents but {len(self.ids)} ids; give one id a document")

    @functools.cached_property
    def vectors(self) -> Tensor:
        """(documents, dim), each of length 1."""
        if self.model is None:
            raise UserError("dense and hybrid search need a model; give one, or search with bm25")
        return self.model.encode_documents(self.documents)

    @functools.cached_property
    def bm25(self) -> BM25:
        """The documents by their words."""
        return BM25(self.documents)

    def rank(self, queries: Sequence[str], k: int, method: Method = "hybrid", weight: float = HYBRID_WEIGHT) -> Ranking:
        """The best ``k`` documents of each query; ``weight`` is the dense side's share in a hybrid."""
        if k < 1:
            raise UserError(f"k is {k}; ask for 1 document or more")
        if not 0 <= weight <= 1:
            raise UserError(f"the weight is {weight:g}; give the dense side a share between 0 and 1")
        if method == "bm25":
            return self.bm25.rank(queries, k)
        vectors = self.vectors
        assert self.model is not None  # `vectors` has said so
        depth = k if method == "dense" else max(k, DEPTH)
        dense = top_k(self.model.encode_queries(queries), vectors, depth)
        if method == "dense":
            return dense
        return fuse(dense, self.bm25.rank(queries, depth), weight, k)

    def search(self, query: str, k: int = 10, method: Method = "hybrid", weight: float = HYBRID_WEIGHT) -> list[Hit]:
        """The best ``k`` documents for one query, best first; fewer when fewer match."""
        ranking = self.rank([query], k, method, weight)
        return [
            Hit(self.ids[number], float(score), self.documents[number])
            for number, score in zip(ranking.documents[0], ranking.scores[0], strict=True)
            if number >= 0
        ]
