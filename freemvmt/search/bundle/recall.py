"""Recall@10 of an approximate index, against exact search."""

import numpy as np
import torch
from numpy.typing import NDArray

from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.chunks import Chunks
from freemvmt.search.index.dense import VectorIndex
from freemvmt.search.index.exact import top_k
from freemvmt.search.index.ranking import Vectors, evenly_spaced
from freemvmt.search.stores.texts import Texts


def tenth_scores(queries: Vectors, chunks: Chunks) -> Vectors:
    """(queries, 1): the score of the tenth best document of each query by exact search."""
    query_tensor = torch.from_numpy(queries)
    scores = torch.cat(
        [torch.from_numpy(top_k(query_tensor, torch.from_numpy(np.array(chunk)), 10).scores) for chunk in chunks], 1
    )
    tenth: Vectors = scores.topk(min(10, scores.shape[1])).values[:, -1:].numpy()
    return tenth


def recall_of(index: VectorIndex, queries: Vectors, chunks: Chunks) -> float:
    """Recall@10: the share of hits of ``index`` that score at least as high as the tenth best by exact search."""
    ranking = index.search(queries, min(10, len(index)))
    numbers = np.maximum(ranking.documents, 0)
    documents = _vectors_of(chunks, numbers.ravel())
    scores = np.einsum("qd,qkd->qk", queries, documents.reshape(*numbers.shape, -1))
    hits = (ranking.documents >= 0) & (scores >= tenth_scores(queries, chunks) - 1e-6)
    return round(float(hits.mean()), 4)


def _vectors_of(chunks: Chunks, numbers: NDArray[np.int64]) -> Vectors:
    """The vectors of those documents, (numbers, dim); each chunk is mapped once."""
    size, dim = chunks[0].shape
    vectors = np.empty((len(numbers), dim), np.float32)
    for chunk in np.unique(numbers // size).tolist():
        in_chunk = numbers // size == chunk
        vectors[in_chunk] = chunks[chunk][numbers[in_chunk] % size]
    return vectors


PROBES = 200  # queries that recall is measured with


def probe_queries(model: TwoTowersModel, texts: Texts) -> Vectors:
    """Vectors of queries to measure recall with: the first eight words of documents, evenly spaced in the corpus."""
    rows = evenly_spaced(len(texts), PROBES)
    beginnings = [" ".join((texts[row].title or texts[row].text).split()[:8]) for row in rows]
    queries: Vectors = model.encode_queries(beginnings).cpu().numpy()
    return queries
