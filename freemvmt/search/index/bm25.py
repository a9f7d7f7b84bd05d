"""BM25 over documents in memory: the one that bundles use, or the one of published tables (Anserini)."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from freemvmt.config import Lexical
from freemvmt.data.values import texts_of
from freemvmt.search.index.lexical import LexicalSnapshot, ranking_of
from freemvmt.search.index.ranking import Ranking


class WordSearch(Protocol):
    """A BM25 index of documents."""

    def rank(self, queries: Iterable[str], k: int) -> Ranking:
        """The ``k`` best documents of each query; only documents that share a word with it count.

        Missing hits have number -1 and score 0.
        """


def word_search(kind: Lexical, documents: Sequence[str]) -> WordSearch:
    """A BM25 index of ``documents``: that of bundles ("served"), or Anserini's."""
    return BM25(documents) if kind == "served" else Anserini(documents)


class BM25:
    """The BM25 of bundles, in memory: the same analysis, parameters and engine."""

    def __init__(self, documents: Iterable[str]) -> None:
        self._snapshot = LexicalSnapshot.of(texts_of(documents, "documents"))

    def rank(self, queries: Iterable[str], k: int) -> Ranking:
        """See ``WordSearch``."""
        queries = texts_of(queries, "queries")
        k = min(k, len(self._snapshot))
        return ranking_of([self._snapshot.rank(query, k) for query in queries], k)


class Anserini:
    """BM25 with the parameters of published tables (Anserini's Lucene baselines: k1 0.9, b 0.4), computed by bm25s.

    Words have two letters or more. The English stop words are those of bm25s, the stemmer is PyStemmer's.
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
        """See ``WordSearch``."""
        queries = texts_of(queries, "queries")
        k = min(k, self._size)
        if not queries or not self._has_words:
            return Ranking(np.full((len(queries), k), -1, np.int64), np.zeros((len(queries), k), np.float32))
        documents, scores = self._index.retrieve(self._words(queries), k=k, show_progress=False, n_threads=0)
        return Ranking(np.where(scores > 0, documents, -1).astype(np.int64), scores.astype(np.float32))
