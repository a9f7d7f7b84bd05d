"""The result of every search: document numbers and their scores."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best documents of each query, best first.

    ``documents`` (queries, k) int64 are document numbers; -1 where a query has fewer hits. ``scores`` (queries, k) are
    float32.
    """

    documents: NDArray[np.int64]
    scores: NDArray[np.float32]

    def cut(self, k: int) -> "Ranking":
        """The first ``k`` of each query."""
        return Ranking(self.documents[:, :k], self.scores[:, :k])


Vectors = NDArray[np.float32]  # (n, dim)


def evenly_spaced(size: int, most: int) -> list[int]:
    """At most ``most`` row numbers below ``size``, evenly spaced from the first to the last."""
    return sorted({int(row) for row in np.linspace(0, size - 1, min(most, size))})
