"""The result of every search: document numbers and their scores."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best documents, or passages of documents, of each query, best first.

    ``documents`` (queries, k) int64 are their numbers; -1 where a query has fewer hits. ``scores`` (queries, k) are
    float32.
    """

    documents: NDArray[np.int64]
    scores: NDArray[np.float32]

    def cut(self, k: int) -> "Ranking":
        """The first ``k`` of each query."""
        return Ranking(self.documents[:, :k], self.scores[:, :k])

    def with_rows(self, rows: NDArray[np.int64], other: "Ranking") -> "Ranking":
        """The same ranking, with those of ``other`` for the queries in ``rows``."""
        shape = len(self.documents), max(self.documents.shape[1], other.documents.shape[1])
        documents, scores = np.full(shape, -1, np.int64), np.zeros(shape, np.float32)
        for target, values, new in ((documents, self.documents, other.documents), (scores, self.scores, other.scores)):
            target[:, : values.shape[1]] = values
            target[rows] = 0 if target is scores else -1
            target[rows, : new.shape[1]] = new
        return Ranking(documents, scores)


Vectors = NDArray[np.float32]  # (n, dim)


def evenly_spaced(size: int, most: int) -> list[int]:
    """At most ``most`` row numbers below ``size``, evenly spaced from the first to the last."""
    return sorted({int(row) for row in np.linspace(0, size - 1, min(most, size))})
