"""Exact search by inner product, in blocks: memory use does not grow with the number of documents."""

import torch
from torch import Tensor

from freemvmt.search.index.ranking import Ranking

QUERY_BLOCK = 512
DOCUMENT_BLOCK = 8192
_GROUP = 64  # documents whose largest score is checked first


@torch.no_grad()
def top_k(queries: Tensor, documents: Tensor, k: int) -> Ranking:
    """The ``k`` documents with the largest inner product for each query; both arguments are (n, dim)."""
    k = min(k, len(documents))
    numbers = torch.empty(len(queries), k, dtype=torch.int64)
    scores = torch.empty(len(queries), k)
    buffer = queries.new_empty(DOCUMENT_BLOCK, min(QUERY_BLOCK, len(queries)))
    for start in range(0, len(queries), QUERY_BLOCK):
        block = queries[start : start + QUERY_BLOCK]
        best_scores = torch.empty(len(block), 0, device=queries.device)
        best = torch.empty(len(block), 0, dtype=torch.int64, device=queries.device)
        for first in range(0, len(documents), DOCUMENT_BLOCK):
            chunk = documents[first : first + DOCUMENT_BLOCK]
            products = torch.mm(chunk, block.T, out=buffer[: len(chunk), : len(block)])
            if best.shape[1] < k or len(chunk) % _GROUP:
                new_scores, new = products.T.topk(min(k, len(chunk)))
            else:
                new_scores, new = _above(products, best_scores[:, -1])
            # The best documents so far stay in front: the stable sort keeps the earlier of two equal documents first.
            all_scores = torch.cat([best_scores, new_scores], 1)
            all_documents = torch.cat([best, new + first], 1)
            best_scores, order = all_scores.sort(dim=1, descending=True, stable=True)
            best_scores, best = best_scores[:, :k], all_documents.gather(1, order)[:, :k]
        numbers[start : start + len(block)] = best
        scores[start : start + len(block)] = best_scores
    return Ranking(numbers.numpy(), scores.numpy())


def _above(products: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """The scores above ``threshold`` (queries,) and their documents, both (queries, most hits of a query).

    ``products`` is (documents, queries). The hits of a query are in the order of the documents; missing ones have score
    -inf and number -1. After the first blocks few scores are above the threshold, so the maximum of each group is
    checked first, which skips nearly all groups.
    """
    groups = products.view(-1, _GROUP, len(threshold))
    group, query = (groups.amax(1) > threshold).nonzero(as_tuple=True)
    inside = groups[group, :, query]  # (groups with a hit, _GROUP)
    hit_group, place = (inside > threshold[query].unsqueeze(1)).nonzero(as_tuple=True)
    query_rows, hits, values = query[hit_group], group[hit_group] * _GROUP + place, inside[hit_group, place]
    order = query_rows.argsort(stable=True)
    query_rows, hits, values = query_rows[order], hits[order], values[order]
    counts = torch.bincount(query_rows, minlength=len(threshold))
    column = torch.arange(len(query_rows), device=query_rows.device) - (counts.cumsum(0) - counts)[query_rows]
    width = int(counts.max())
    scores = products.new_full((len(threshold), width), -torch.inf)
    documents = query_rows.new_full((len(threshold), width), -1)
    scores[query_rows, column] = values
    documents[query_rows, column] = hits
    return scores, documents
