"""Words instead of vectors: BM25 (bm25s, English stemmer and stop words), and the fusion of two rankings into one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freemvmt.search.exact import Ranking

K1, B = 0.9, 0.4  # Anserini's choice for passages, and that of the scores known for our collections
DEPTH = 1000  # candidates of each side that a fusion looks at


class BM25:
    """Documents, ready to be searched by their words."""

    def __init__(self, documents: Sequence[str]) -> None:
        import bm25s
        import Stemmer

        self._stemmer = Stemmer.Stemmer("english")
        self._size = len(documents)
        words = self._words(documents)
        self._has_words = any(len(ids) for ids in words.ids)
        self._index = bm25s.BM25(k1=K1, b=B, backend="numpy")
        if self._has_words:
            self._index.index(words, show_progress=False)

    def _words(self, texts: Sequence[str]) -> Any:
        import bm25s

        return bm25s.tokenize(list(texts), stopwords="en", stemmer=self._stemmer, show_progress=False)

    def rank(self, queries: Sequence[str], k: int) -> Ranking:
        """The best ``k`` documents of each query; a document that shares no word with it is no hit (-1, score 0)."""
        k = min(k, self._size)
        if not queries or not self._has_words:
            return Ranking(np.full((len(queries), k), -1, np.int64), np.zeros((len(queries), k), np.float32))
        documents, scores = self._index.retrieve(self._words(queries), k=k, show_progress=False, n_threads=0)
        return Ranking(np.where(scores > 0, documents, -1).astype(np.int64), scores.astype(np.float32))


def fuse(dense: Ranking, lexical: Ranking, weight: float, k: int) -> Ranking:
    """The convex sum ``weight * dense + (1 - weight) * lexical`` of scores scaled to 0..1 by each list's own extremes.

    A document that only one list holds has 0 in the other (Bruch et al. 2023, An Analysis of Fusion Functions).
    """
    numbers = np.concatenate([dense.documents, lexical.documents], axis=1)
    parts = np.concatenate([weight * _scaled(dense), (1 - weight) * _scaled(lexical)], axis=1)
    order = np.argsort(numbers, axis=1, kind="stable")
    numbers = np.take_along_axis(numbers, order, 1)
    parts = np.take_along_axis(parts, order, 1)
    # A document that both lists hold now stands twice in a row: its second part joins the first.
    twice = (numbers[:, 1:] == numbers[:, :-1]) & (numbers[:, 1:] >= 0)
    parts[:, :-1] += np.where(twice, parts[:, 1:], 0)
    gone = np.zeros_like(numbers, dtype=np.bool_)
    gone[:, 1:] = twice
    gone |= numbers < 0
    parts[gone], numbers[gone] = -1, -1
    best = np.argsort(-parts, axis=1, kind="stable")[:, :k]
    return Ranking(np.take_along_axis(numbers, best, 1), np.take_along_axis(parts, best, 1).astype(np.float32))


def _scaled(ranking: Ranking) -> NDArray[np.float32]:
    """Scores of each query between 0 (its last) and 1 (its first)."""
    if not ranking.scores.shape[1]:
        return ranking.scores
    low, high = ranking.scores.min(1, keepdims=True), ranking.scores.max(1, keepdims=True)
    scaled: NDArray[np.float32] = (ranking.scores - low) / np.maximum(high - low, 1e-9)
    return scaled
