"""What is minimised. Vectors come in at length 1, so a cosine is a dot product and the distance is 1 - cosine.

Row i of ``queries`` belongs with row i of ``documents``; ``known`` names every pair that is known to belong together,
which is never a negative. Both directions count: a query against the batch's passages, a passage against its queries.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from freemvmt.config import Negatives
from freemvmt.learning.negatives import Known

_BLOCK = 1024  # rows of the matrix of all pairs that are looked at together where no gradient needs the whole


def similarities(queries: Tensor, documents: Tensor, precision: torch.dtype) -> Tensor:
    """Cosines of all pairs, (batch, batch), multiplied in ``precision``."""
    return queries.to(precision) @ documents.to(precision).T


class TripletLoss:
    """max(0, margin + distance to the positive - distance to a negative), over the negatives that ``negatives`` names.

    ``hardest``: the nearest of the batch (Hermans et al. 2017, In Defense of the Triplet Loss); ``random``: one of the
    batch; ``all``: the mean over all of the batch that lie within the margin; ``given``: the row's own, passed as
    ``given``, with the hardest of the batch where a row has none.
    """

    def __init__(self, margin: float, negatives: Negatives, precision: torch.dtype, seed: int) -> None:
        self.margin, self.negatives, self.precision = margin, negatives, precision
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(
        self,
        queries: Tensor,
        documents: Tensor,
        known: Known,
        given: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The loss, a scalar. ``given``: vectors (batch, dim), which count where the second tensor (batch,) is true."""
        positive = (queries * documents).sum(1)  # cosine of each pair, (batch,)
        if self.negatives == "all":
            cosines = similarities(queries, documents, self.precision).float()
            cosines[known.rows, known.columns] = -torch.inf
            forwards = self._hinge(positive.unsqueeze(1), cosines)
            backwards = self._hinge(positive.unsqueeze(0), cosines)
            return (_mean_of_violating(forwards) + _mean_of_violating(backwards)) / 2
        # Only the choice looks at all pairs; the gradient needs the chosen ones alone.
        document_of_query, query_of_document = self._choose(queries.detach(), documents.detach(), known)
        forwards = self._against(positive, queries, documents, document_of_query)
        if self.negatives == "given":
            if given is None:
                raise ValueError("negatives='given' needs the given negatives")
            vectors, has_given = given
            return torch.where(has_given, self._hinge(positive, (queries * vectors).sum(1)), forwards).mean()
        backwards = self._against(positive, documents, queries, query_of_document)
        return (forwards.mean() + backwards.mean()) / 2

    def _choose(self, queries: Tensor, documents: Tensor, known: Known) -> tuple[Tensor, Tensor]:
        """(a document for each query, a query for each document), (batch,); -1 where all are known to belong."""
        size, device = len(queries), queries.device
        document_of_query = torch.empty(size, dtype=torch.int64, device=device)
        query_of_document = torch.full((size,), -1, dtype=torch.int64, device=device)
        best = torch.full((size,), -torch.inf, device=device)  # for each document, over the blocks so far
        bounds = torch.searchsorted(known.rows, torch.arange(0, size + _BLOCK, _BLOCK, device=device)).tolist()
        for block, start in enumerate(range(0, size, _BLOCK)):
            stop = min(start + _BLOCK, size)
            if self.negatives == "random":
                ranks = torch.rand((stop - start, size), generator=self._generator).to(device)
            else:
                ranks = similarities(queries[start:stop], documents, self.precision).float()
            inside = slice(bounds[block], bounds[block + 1])
            ranks[known.rows[inside] - start, known.columns[inside]] = -torch.inf
            row_best, columns = ranks.max(1)
            document_of_query[start:stop] = columns.masked_fill(row_best == -torch.inf, -1)
            column_best, rows = ranks.max(0)
            better = column_best > best
            query_of_document[better] = rows[better] + start
            best = torch.maximum(best, column_best)
        return document_of_query, query_of_document

    def _against(self, positive: Tensor, anchors: Tensor, others: Tensor, chosen: Tensor) -> Tensor:
        """The loss of each anchor against its ``chosen`` other; 0 where none was to be had."""
        # Many anchors may choose one; `embedding` adds their gradients in a fixed order, plain indexing in any.
        terms = self._hinge(positive, (anchors * F.embedding(chosen.clamp(min=0), others)).sum(1))
        return terms.masked_fill(chosen < 0, 0.0)

    def _hinge(self, positive: Tensor, negative: Tensor) -> Tensor:
        # margin + (1 - positive) - (1 - negative), not below zero
        return (self.margin + negative - positive).clamp(min=0)


def _mean_of_violating(terms: Tensor) -> Tensor:
    return terms.sum() / (terms > 0).sum().clamp(min=1)


class InfoNCE:
    """Cross entropy of the own partner among the batch, both ways, with cosines divided by ``temperature``
    (van den Oord et al. 2018, Representation Learning with Contrastive Predictive Coding)."""

    def __init__(self, temperature: float, precision: torch.dtype) -> None:
        self.temperature, self.precision = temperature, precision

    def __call__(self, queries: Tensor, documents: Tensor, known: Known) -> Tensor:
        """The loss, a scalar."""
        logits = similarities(queries, documents, self.precision).float() / self.temperature
        own = torch.arange(len(logits), device=logits.device)
        others = known.others()
        logits[others.rows, others.columns] = -torch.inf
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
