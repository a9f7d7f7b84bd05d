"""The recall of an approximate index: how many of the true ten best documents it finds."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.chunks import Chunks
from freemvmt.search.index.dense import VectorIndex
from freemvmt.search.index.exact import top_k
from freemvmt.search.index.ranking import Vectors, spread
from freemvmt.search.stores.texts import Texts


class Probes(NamedTuple):
    """Queries that recall is measured with, (probes, dim), and the score of each one's true tenth best document,
    (probes, 1)."""

    queries: Vectors
    tenth: Vectors


def tenths(queries: Vectors, chunks: Chunks) -> Vectors:
    """(queries, 1): the score of the true tenth best document of each query."""
    asked = torch.from_numpy(queries)
    best = torch.cat(
        [torch.from_numpy(top_k(asked, torch.from_numpy(np.array(chunk)), 10).scores) for chunk in chunks], 1
    )
    tenth: Vectors = best.topk(min(10, best.shape[1])).values[:, -1:].numpy()
    return tenth


def recall_of(index: VectorIndex, queries: Vectors, chunks: Chunks) -> float:
    """Share of the true ten best that ``index`` finds; a document as good as the true tenth counts."""
    found = index.search(queries, min(10, len(index)))
    numbers = np.maximum(found.documents, 0)
    named = _rows_of(chunks, numbers.ravel())
    scores = np.einsum("qd,qkd->qk", queries, named.reshape(*numbers.shape, -1))
    hits = (found.documents >= 0) & (scores >= tenths(queries, chunks) - 1e-6)
    return round(float(hits.mean()), 4)


def _rows_of(chunks: Chunks, numbers: NDArray[np.int64]) -> Vectors:
    """(numbers, dim): each chunk is mapped once, and let go of."""
    size, dim = chunks[0].shape
    found = np.empty((len(numbers), dim), np.float32)
    for part in np.unique(numbers // size).tolist():
        wanted = numbers // size == part
        found[wanted] = chunks[part][numbers[wanted] % size]
    return found


PROBES = 200  # queries that recall is measured with


def probe_queries(model: TwoTowersModel, texts: Texts) -> Vectors:
    """Vectors of queries like those that will be asked: the beginnings of documents from all over the corpus."""
    rows = spread(len(texts), PROBES)
    beginnings = [" ".join((texts[row].title or texts[row].text).split()[:8]) for row in rows]
    queries: Vectors = model.encode_queries(beginnings).cpu().numpy()
    return queries
