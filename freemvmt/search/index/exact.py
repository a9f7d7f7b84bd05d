"""Exact nearest documents by inner product, in blocks: memory stays flat however many documents there are."""

import torch
from torch import Tensor

from freemvmt.search.index.ranking import Ranking

QUERY_BLOCK = 512
DOCUMENT_BLOCK = 8192
_GROUP = 64  # documents of which only the best is looked at first


@torch.no_grad()
def top_k(queries: Tensor, documents: Tensor, k: int) -> Ranking:
    """The ``k`` documents (documents, dim) with the largest inner product with each of ``queries`` (queries, dim)."""
    k = min(k, len(documents))
    numbers = torch.empty(len(queries), k, dtype=torch.int64)
    scores = torch.empty(len(queries), k)
    room = queries.new_empty(DOCUMENT_BLOCK, min(QUERY_BLOCK, len(queries)))
    for start in range(0, len(queries), QUERY_BLOCK):
        block = queries[start : start + QUERY_BLOCK]
        best_scores = torch.empty(len(block), 0, device=queries.device)
        best = torch.empty(len(block), 0, dtype=torch.int64, device=queries.device)
        for first in range(0, len(documents), DOCUMENT_BLOCK):
            part = documents[first : first + DOCUMENT_BLOCK]
            products = torch.mm(part, block.T, out=room[: len(part), : len(block)])
            if best.shape[1] < k or len(part) % _GROUP:
                found_scores, found = products.T.topk(min(k, len(part)))
            else:
                found_scores, found = _above(products, best_scores[:, -1])
            # What was best so far stands in front, so of equal scores the earlier document stays ahead.
            joined_scores = torch.cat([best_scores, found_scores], 1)
            joined = torch.cat([best, found + first], 1)
            best_scores, order = joined_scores.sort(dim=1, descending=True, stable=True)
            best_scores, best = best_scores[:, :k], joined.gather(1, order)[:, :k]
        numbers[start : start + len(block)] = best
        scores[start : start + len(block)] = best_scores
    return Ranking(numbers.numpy(), scores.numpy())


def _above(products: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """(scores, documents) of each query that are above ``least`` (queries,), filled up with -inf, in the documents'
    order; ``products`` is (documents, queries).

    Few are, once some blocks have gone by: a look at the largest of each group passes over nearly all of the rest.
    """
    groups = products.view(-1, _GROUP, len(least))
    group, query = (groups.amax(1) > least).nonzero(as_tuple=True)
    inside = groups[group, :, query]  # (groups that hold some, _GROUP)
    hit, place = (inside > least[query].unsqueeze(1)).nonzero(as_tuple=True)
    owners, found, values = query[hit], group[hit] * _GROUP + place, inside[hit, place]
    order = owners.argsort(stable=True)
    owners, found, values = owners[order], found[order], values[order]
    counts = torch.bincount(owners, minlength=len(least))
    column = torch.arange(len(owners), device=owners.device) - (counts.cumsum(0) - counts)[owners]
    width = int(counts.max())
    scores = products.new_full((len(least), width), -torch.inf)
    documents = owners.new_full((len(least), width), -1)
    scores[owners, column] = values
    documents[owners, column] = found
    return scores, documents
