"""Exact nearest documents by inner product, in blocks: memory stays flat however many documents there are."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

QUERY_BLOCK = 512
DOCUMENT_BLOCK = 32_768


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


@torch.no_grad()
def top_k(queries: Tensor, documents: Tensor, k: int) -> Ranking:
    """The ``k`` documents (documents, dim) with the largest inner product with each of ``queries`` (queries, dim)."""
    k = min(k, len(documents))
    numbers = torch.empty(len(queries), k, dtype=torch.int64)
    scores = torch.empty(len(queries), k)
    for start in range(0, len(queries), QUERY_BLOCK):
        block = queries[start : start + QUERY_BLOCK]
        best_scores = torch.empty(len(block), 0, device=queries.device)
        best = torch.empty(len(block), 0, dtype=torch.int64, device=queries.device)
        for first in range(0, len(documents), DOCUMENT_BLOCK):
            products = block @ documents[first : first + DOCUMENT_BLOCK].T
            found_scores, found = products.topk(min(k, products.shape[1]))
            # What was best so far stands in front, so of equal scores the earlier document stays ahead.
            joined_scores = torch.cat([best_scores, found_scores], 1)
            joined = torch.cat([best, found + first], 1)
            best_scores, order = joined_scores.sort(dim=1, descending=True, stable=True)
            best_scores, best = best_scores[:, :k], joined.gather(1, order)[:, :k]
        numbers[start : start + len(block)] = best
        scores[start : start + len(block)] = best_scores
    return Ranking(numbers.numpy(), scores.numpy())
