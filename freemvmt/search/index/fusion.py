"""Fusion of two rankings: the weighted sum of their scores, each scaled to 0..1."""

import numpy as np
from numpy.typing import NDArray

from freemvmt.search.index.ranking import Ranking

DEPTH = 1000  # candidates that a fusion takes from each ranking


def fuse(dense: Ranking, lexical: Ranking, weight: float | NDArray[np.float32], k: int) -> Ranking:
    """The ``k`` best documents by ``weight * dense + (1 - weight) * lexical``, best first.

    The scores of each query are first scaled to 0..1, separately in each ranking. ``weight`` is a number for all
    queries, or an array (queries, 1). A document that is missing from a ranking scores 0 there (Bruch et al. 2023, An
    Analysis of Fusion Functions). Of two equal sums, the lower document number comes first.
    """
    dense_scores, lexical_scores = weight * _scaled(dense), (1 - weight) * _scaled(lexical)
    width = min(k, dense_scores.shape[1] + lexical_scores.shape[1])
    numbers = np.full((len(dense_scores), width), -1, np.int64)
    scores = np.full((len(dense_scores), width), -1, np.float32)
    for row, (left, right) in enumerate(zip(dense.documents, lexical.documents, strict=True)):
        best, sums = _merge(left, dense_scores[row], right, lexical_scores[row], k)
        numbers[row, : len(best)], scores[row, : len(best)] = best, sums
    return Ranking(numbers, scores)


def _merge(
    left: NDArray[np.int64],
    left_scores: NDArray[np.float32],
    right: NDArray[np.int64],
    right_scores: NDArray[np.float32],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ``k`` best documents of two lists and the sums of their scores, best first; -1 means no document."""
    numbers, sums = np.concatenate([left, right]), np.concatenate([left_scores, right_scores])
    order = np.argsort(numbers)
    order = order[np.count_nonzero(numbers < 0) :]
    numbers, sums = numbers[order], sums[order]
    twice = np.flatnonzero(numbers[1:] == numbers[:-1])  # a document of both lists stands here, and at the next place
    sums[twice] += sums[twice + 1]
    sums[twice + 1] = -np.inf
    k = min(k, len(sums) - len(twice))
    if len(sums) > k:
        candidates = sums >= np.partition(sums, len(sums) - k)[len(sums) - k]
        numbers, sums = numbers[candidates], sums[candidates]
    order = np.lexsort((numbers, -sums))[:k]
    return numbers[order], sums[order]


def _scaled(ranking: Ranking) -> NDArray[np.float32]:
    """The scores of each query, scaled to 0 for its lowest and 1 for its highest."""
    if not ranking.scores.shape[1]:
        return ranking.scores
    low, high = ranking.scores.min(1, keepdims=True), ranking.scores.max(1, keepdims=True)
    span = high - low
    # Where all scores of a query are equal, each becomes 1.
    scaled: NDArray[np.float32] = np.where(span > 0, (ranking.scores - low) / np.where(span > 0, span, 1), 1)
    return scaled.astype(np.float32, copy=False)
