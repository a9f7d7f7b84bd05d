"""Two rankings become one: the weighted sum of their scores, each scaled from 0 to 1."""

import numpy as np
from numpy.typing import NDArray

from freemvmt.search.index.ranking import Ranking

DEPTH = 1000  # candidates of each side that a fusion looks at


def fuse(dense: Ranking, lexical: Ranking, weight: float | NDArray[np.float32], k: int) -> Ranking:
    """The convex sum ``weight * dense + (1 - weight) * lexical`` of scores scaled to 0..1 by each list's own extremes.

    ``weight`` is one for all queries or (queries, 1). A document that only one list holds has 0 in the other (Bruch et
    al. 2023, An Analysis of Fusion Functions); of equal sums the document with the lower number comes first.
    """
    one, other = weight * _scaled(dense), (1 - weight) * _scaled(lexical)
    width = min(k, one.shape[1] + other.shape[1])
    numbers = np.full((len(one), width), -1, np.int64)
    scores = np.full((len(one), width), -1, np.float32)
    for row, (left, right) in enumerate(zip(dense.documents, lexical.documents, strict=True)):
        best, sums = _sum(left, one[row], right, other[row], k)
        numbers[row, : len(best)], scores[row, : len(best)] = best, sums
    return Ranking(numbers, scores)


def _sum(
    left: NDArray[np.int64], one: NDArray[np.float32], right: NDArray[np.int64], other: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ``k`` best documents of two lists with the sums of their scores, best first; -1 is no document."""
    kept = right >= 0
    if not kept.all():
        right, other = right[kept], other[kept]
    kept = left >= 0
    if not kept.all():
        left, one = left[kept], one[kept]
    order = np.argsort(right)
    ordered = right[order]
    places = np.minimum(np.searchsorted(ordered, left), max(len(right) - 1, 0))
    alone = np.ones(len(right), np.bool_)
    sums = one
    if len(right):
        both = ordered[places] == left
        met = order[places[both]]
        sums = one.copy()
        sums[both] += other[met]
        alone[met] = False
    numbers, sums = np.concatenate([left, right[alone]]), np.concatenate([sums, other[alone]])
    if len(sums) > k:
        worth = sums >= np.partition(sums, len(sums) - k)[len(sums) - k]
        numbers, sums = numbers[worth], sums[worth]
    order = np.lexsort((numbers, -sums))[:k]
    return numbers[order], sums[order]


def _scaled(ranking: Ranking) -> NDArray[np.float32]:
    """Scores of each query between 0 (its last) and 1 (its first)."""
    if not ranking.scores.shape[1]:
        return ranking.scores
    low, high = ranking.scores.min(1, keepdims=True), ranking.scores.max(1, keepdims=True)
    span = high - low
    # A list of equals, or of one, is all first.
    scaled: NDArray[np.float32] = np.where(span > 0, (ranking.scores - low) / np.where(span > 0, span, 1), 1)
    return scaled.astype(np.float32, copy=False)
