"""What every search gives: numbers of documents and their scores."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Ranking:
    """For each query its best documents, best first.

    ``documents`` (queries, k): int64 numbers into the corpus, -1 where a query has fewer; ``scores`` (queries, k):
    float32.
    """

    documents: NDArray[np.int64]
    scores: NDArray[np.float32]

    def cut(self, k: int) -> "Ranking":
        """The first ``k`` of each query."""
        return Ranking(self.documents[:, :k], self.scores[:, :k])


Vectors = NDArray[np.float32]  # (n, dim)


def spread(size: int, most: int) -> list[int]:
    """At most ``most`` of ``size`` rows, evenly from the first to the last."""
    return sorted({int(row) for row in np.linspace(0, size - 1, min(most, size))})
