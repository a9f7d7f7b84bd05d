"""Words instead of vectors: BM25 over documents in memory, and the fusion of two rankings into one."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from freemvmt.config import Lexical
from freemvmt.search.ranking import Ranking
from freemvmt.search.words import Snapshot, ranking_of
from freemvmt.text.values import texts_of

DEPTH = 1000  # candidates of each side that a fusion looks at


class ByWords(Protocol):
    """Documents, ready to be searched by their words."""

    def rank(self, queries: Iterable[str], k: int) -> Ranking:
        """The best ``k`` documents of each query; a document that shares no word with it is no hit (-1, score 0)."""


def by_words(kind: Lexical, documents: Sequence[str]) -> ByWords:
    """The BM25 that bundles are served with, or Anserini's."""
    return BM25(documents) if kind == "served" else Anserini(documents)


class BM25:
    """The BM25 of a bundle: the same words, parameters and engine, in memory."""

    def __init__(self, documents: Iterable[str]) -> None:
        self._snapshot = Snapshot.of(texts_of(documents, "documents"))

    def rank(self, queries: Iterable[str], k: int) -> Ranking:
        """See ``ByWords``."""
        queries = texts_of(queries, "queries")
        k = min(k, len(self._snapshot))
        return ranking_of([self._snapshot.rank(query, k) for query in queries], k)


class Anserini:
    """BM25 with the parameters of published tables (Lucene's baselines by Anserini: k1 0.9, b 0.4), by bm25s.

    Words have two letters or more; English stop words and stems are those of bm25s and of PyStemmer.
    """

    K1, B = 0.9, 0.4

    def __init__(self, documents: Iterable[str]) -> None:
        import bm25s
        import Stemmer

        documents = texts_of(documents, "documents")
        self._stemmer = Stemmer.Stemmer("english")
        self._size = len(documents)
        words = self._words(documents)
        self._has_words = any(len(ids) for ids in words.ids)
        self._index = bm25s.BM25(k1=self.K1, b=self.B, backend="numpy")
        if self._has_words:
            self._index.index(words, show_progress=False)

    def _words(self, texts: Sequence[str]) -> Any:
        import bm25s

        return bm25s.tokenize(list(texts), stopwords="en", stemmer=self._stemmer, show_progress=False)

    def rank(self, queries: Iterable[str], k: int) -> Ranking:
        """See ``ByWords``."""
        queries = texts_of(queries, "queries")
        k = min(k, self._size)
        if not queries or not self._has_words:
            return Ranking(np.full((len(queries), k), -1, np.int64), np.zeros((len(queries), k), np.float32))
        documents, scores = self._index.retrieve(self._words(queries), k=k, show_progress=False, n_threads=0)
        return Ranking(np.where(scores > 0, documents, -1).astype(np.int64), scores.astype(np.float32))


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
