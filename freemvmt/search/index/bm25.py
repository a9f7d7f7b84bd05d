"""BM25 over documents in memory: as bundles serve it, or with the parameters of papers (Anserini)."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from freemvmt.config import Lexical
from freemvmt.data.values import texts_of
from freemvmt.search.index.lexical import Snapshot, ranking_of
from freemvmt.search.index.ranking import Ranking


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
