"""Exact search by inner product, in blocks: memory use does not grow with the number of documents.

The scores of a sample of the documents give each query a threshold that few more than ``k`` documents exceed. Only
those are collected and sorted. A query that has fewer than ``k`` of them is searched again without a threshold, so the
result is exact whatever the sample was.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from freemvmt.search.index.ranking import Ranking

QUERY_BLOCK = 512
_SCORES, _GPU_SCORES = 2**20, 2**23  # scores that are computed at once; the first lie in a core's cache
_SAMPLED_FROM, _SHARE, _MAX_SAMPLE = 1024, 50, 8192  # one document of 50 is in the sample, at most 8,192
_PENDING = 8  # times ``k`` hits of a query, on average, that are collected before the best are selected
_LAST = 2**32 - 1  # no document has a larger number

Floats = NDArray[np.float32]
Keys = NDArray[np.int64]  # the score in the upper half, the document in the lower: a better hit has a larger key


@torch.no_grad()
def top_k(queries: Tensor, documents: Tensor, k: int) -> Ranking:
    """The ``k`` documents with the largest inner product for each query; both arguments are (n, dim).

    Of two documents with equal scores, the earlier one comes first.
    """
    k = min(k, len(documents))
    keys = np.zeros((len(queries), k), np.int64)
    if k:
        for start in range(0, len(queries), QUERY_BLOCK):
            block = queries[start : start + QUERY_BLOCK]
            best, counts = _search(block, documents, k, _sampled_threshold(block, documents, k))
            short = np.flatnonzero(counts < k)
            if len(short):
                unlimited = np.full(len(short), np.nan, np.float32)
                best[short], _ = _search(block[torch.from_numpy(short).to(block.device)], documents, k, unlimited)
            keys[start : start + len(block)] = best
    return Ranking(_LAST - (keys & _LAST), _scores_of(keys))


def _sampled_threshold(queries: Tensor, documents: Tensor, k: int) -> Floats:
    """A score for each query that probably ``k`` of the documents or a few more exceed; NaN is below every score."""
    size = min(len(documents) // _SHARE, _MAX_SAMPLE)
    expected = k * size / max(len(documents), 1)  # of the ``k`` best in the sample
    rank = math.ceil(expected + 5 * math.sqrt(expected) + 3)
    if len(documents) < _SAMPLED_FROM or rank > size:
        return np.full(len(queries), np.nan, np.float32)
    scores = queries @ documents[:: len(documents) // size][:size].T
    return np.asarray(scores.topk(rank).values[:, -1].float().cpu().numpy())


def _search(queries: Tensor, documents: Tensor, k: int, threshold: Floats) -> tuple[Keys, NDArray[np.int64]]:
    """The keys of the ``k`` best documents of each query that exceed its ``threshold``, and how many there are."""
    rows = max((_SCORES if documents.device.type == "cpu" else _GPU_SCORES) // len(queries), 1)
    buffer = queries.new_empty(min(rows, len(documents)), len(queries))
    hits = _Hits(len(queries), k, threshold)
    for first in range(0, len(documents), rows):
        chunk = documents[first : first + rows]
        hits.add(torch.mm(chunk, queries.T, out=buffer[: len(chunk)]), first)
    return hits.best()


class _Hits:
    """The best hits so far of a block of queries: those selected, and those collected since."""

    def __init__(self, queries: int, k: int, threshold: Floats) -> None:
        self._k, self._threshold = k, threshold
        self._keys = np.zeros((queries, k), np.int64)
        self._counts = np.zeros(queries, np.int64)  # of valid keys
        self._new: list[tuple[NDArray[np.int16], Keys]] = []  # the query and the key of each hit
        self._pending = 0
        self._below = np.empty(0, np.bool_)  # memory that is used again

    def add(self, products: Tensor, first: int) -> None:
        """Collect what exceeds the thresholds of ``products`` (documents from ``first`` on, queries)."""
        if products.device.type == "cpu":
            scores = products.float().numpy()
            if len(self._below) < scores.size:
                self._below = np.empty(scores.size, np.bool_)
            below = self._below[: scores.size]
            np.less_equal(scores, self._threshold, out=below.reshape(scores.shape))
            places = np.flatnonzero(np.logical_not(below, out=below))
            values = scores.ravel()[places]
        else:
            above = ~(products <= torch.from_numpy(self._threshold).to(products.device))
            found = above.flatten().nonzero().flatten()
            places, values = found.cpu().numpy(), products.flatten()[found].float().cpu().numpy()
        documents = places // products.shape[1]
        queries = (places - documents * products.shape[1]).astype(np.int16)  # NumPy sorts these by radix
        self._new.append((queries, _keys_of(values, documents + first)))
        self._pending += len(places)
        if self._pending > _PENDING * self._k * len(self._counts):
            self.best()

    def best(self) -> tuple[Keys, NDArray[np.int64]]:
        """The keys of the best hits of each query, best first, and how many there are; raise the thresholds to them."""
        new_queries = np.concatenate([queries for queries, _ in self._new] or [np.empty(0, np.int16)])
        new_keys = np.concatenate([keys for _, keys in self._new] or [np.empty(0, np.int64)])
        new_keys = new_keys[np.argsort(new_queries, kind="stable")]
        ends = np.cumsum(np.bincount(new_queries, minlength=len(self._counts)))
        start = 0
        for row, end in enumerate(ends.tolist()):
            if end > start:
                own = np.concatenate([self._keys[row, : self._counts[row]], new_keys[start:end]])
                own = np.sort(own)[::-1][: self._k]
                self._keys[row, : len(own)], self._counts[row] = own, len(own)
            start = end
        full = self._counts == self._k
        self._threshold = np.where(full, _scores_of(self._keys[:, -1]), self._threshold)
        self._new, self._pending = [], 0
        return self._keys, self._counts


def _keys_of(scores: NDArray[np.floating], documents: NDArray[np.int64]) -> Keys:
    bits = (scores.astype(np.float32, copy=False) + np.float32(0)).view(np.int32)  # -0 becomes 0
    return (_in_order(bits).astype(np.int64) << 32) | (_LAST - documents)


def _scores_of(keys: Keys) -> Floats:
    return _in_order((keys >> 32).astype(np.int32)).view(np.float32)


def _in_order(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """The bits of floats as numbers in the order of the floats, and back."""
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
