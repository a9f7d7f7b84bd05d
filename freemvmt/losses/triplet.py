"""Losses over triplets: a query, a passage that answers it, one that does not. Vectors come in at length 1, so a cosine
is a dot product and the distance is 1 - cosine.

Row i of ``queries`` belongs with row i of ``documents``; ``known`` names every pair that is known to belong together,
which is never a negative. Documents beyond the batch are negatives that the data gave: ``given[i]`` is the row of the
one that query i got, -1 where it got none. Both directions count: a query against passages, a passage against queries.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from freemvmt.config import Negatives
from freemvmt.losses.negatives import InBatchNegatives
from freemvmt.losses.similarity import PositivePairs, similarities


class _OverTriplets:
    """What both losses share: which triplets there are.

    ``hardest``, ``semi-hard``, ``random``: of the batch, see ``InBatchNegatives``; ``given``: the row's own, the
    hardest of the batch where it has none, and the direction from query to passage alone.
    """

    def __init__(self, negatives: Negatives, precision: torch.dtype, seed: int) -> None:
        self.negatives, self.precision = negatives, precision
        self._chooser = InBatchNegatives(negatives, precision, seed)
        self.generator = self._chooser.generator

    def _triplets(
        self, queries: Tensor, documents: Tensor, known: PositivePairs, given: Tensor | None
    ) -> list[tuple[Tensor, Tensor]]:
        """For each direction (query, document) of the negative pair to each positive pair, (batch,); -1: none."""
        size = len(queries)
        own = torch.arange(size, device=queries.device)
        document_of_query, query_of_document = self._chooser.choose(queries, documents[:size], known.within(size))
        if self.negatives != "given":
            return [(own, document_of_query), (query_of_document, own)]
        if given is None:
            raise ValueError("negatives='given' needs the given negatives")
        return [(own, torch.where(given < 0, document_of_query, given))]


class TripletLoss(_OverTriplets):
    """max(0, margin + distance to the positive - distance to a negative), over the triplets that ``negatives`` names;
    ``all``: the mean over all of the batch that lie within the margin."""

    def __init__(self, margin: float, negatives: Negatives, precision: torch.dtype, seed: int) -> None:
        super().__init__(negatives, precision, seed)
        self.margin = margin

    def __call__(self, queries: Tensor, documents: Tensor, known: PositivePairs, given: Tensor | None = None) -> Tensor:
        """The loss, a scalar."""
        if self.negatives == "all":
            cosines = similarities(queries, documents, self.precision).float()
            positive = (queries * documents).sum(1)  # cosine of each pair, (batch,)
            cosines[known.rows, known.columns] = -torch.inf
            forwards = self._hinge(positive.unsqueeze(1), cosines)
            backwards = self._hinge(positive.unsqueeze(0), cosines)
            return (_mean_of_open(forwards) + _mean_of_open(backwards)) / 2
        triplets = self._triplets(queries, documents, known, given)
        terms = [self._hinge(near, far) for near, far in _cosines(queries, documents, triplets)]
        return _of_triplets(queries, documents, triplets, terms, [(term > 0).float() for term in terms])

    def _hinge(self, positive: Tensor, negative: Tensor) -> Tensor:
        # margin + (1 - positive) - (1 - negative), not below zero
        return (self.margin + negative - positive).clamp(min=0)


class MarginMSE(_OverTriplets):
    """The squared difference of margins (the positive's cosine less the negative's) as the towers and as a teacher see
    them, over the triplets that ``negatives`` names; ``all``: over all pairs of the batch (Hofstätter et al. 2020,
    Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation)."""

    def __call__(
        self,
        queries: Tensor,
        documents: Tensor,
        known: PositivePairs,
        teacher: tuple[Tensor, Tensor],
        given: Tensor | None = None,
    ) -> Tensor:
        """The loss, a scalar. ``teacher``: the teacher's vectors of the same queries and documents, of length 1."""
        if self.negatives == "all":
            return self._over_all(queries, documents, known, teacher)
        triplets = self._triplets(queries, documents, known, given)
        errors = [
            (near - far) - (right_near - right_far)
            for (near, far), (right_near, right_far) in zip(
                _cosines(queries, documents, triplets), _cosines(*teacher, triplets), strict=True
            )
        ]
        # The slope is in the negative's cosine: the farther it is beyond what the teacher says, the nearer it may come.
        terms, slopes = [error.square() for error in errors], [-2 * error for error in errors]
        return _of_triplets(queries, documents, triplets, terms, slopes)

    def _over_all(
        self, queries: Tensor, documents: Tensor, known: PositivePairs, teacher: tuple[Tensor, Tensor]
    ) -> Tensor:
        cosines, wanted = (similarities(*sides, self.precision).float() for sides in ((queries, documents), teacher))
        counted = torch.ones_like(cosines)
        counted[known.rows, known.columns] = 0
        value = cosines.new_zeros(())
        for side in (0, 1):
            near, right = cosines.diagonal().unsqueeze(side), wanted.diagonal().unsqueeze(side)
            value = value + ((near - cosines - right + wanted).square() * counted).sum()
        return value / (2 * counted.sum().clamp(min=1))


@torch.no_grad()
def _cosines(queries: Tensor, documents: Tensor, triplets: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """(cosine of the positive, of the negative) of the triplets of each direction, (batch,)."""
    near = (queries * documents[: len(queries)]).sum(1)
    return [(near, (queries[row.clamp(min=0)] * documents[column.clamp(min=0)]).sum(1)) for row, column in triplets]


def _of_triplets(
    queries: Tensor,
    documents: Tensor,
    triplets: list[tuple[Tensor, Tensor]],
    terms: list[Tensor],
    slopes: list[Tensor],
) -> Tensor:
    """The mean of the ``terms`` of all triplets, each of which changes by its slope times the cosine of the negative,
    and by as much the other way times that of the positive."""
    value = queries.new_zeros(())
    own = torch.arange(len(queries), device=queries.device)
    rows, columns, weights = [], [], []
    for (row, column), term, slope in zip(triplets, terms, slopes, strict=True):
        there = (row >= 0) & (column >= 0)
        value = value + torch.where(there, term, 0.0).mean() / len(triplets)
        (active,) = (there & (slope != 0)).nonzero(as_tuple=True)
        rows += [row[active], own[active]]
        columns += [column[active], own[active]]
        weights += [slope[active], -slope[active]]
    share = torch.cat(weights) / (len(queries) * len(triplets))
    loss: Tensor = _LinearInCosines.apply(queries, documents, value, torch.cat(rows), torch.cat(columns), share)
    return loss


class _LinearInCosines(torch.autograd.Function):
    """A loss of that ``value`` which changes by ``weights[k]`` times the cosine of query ``rows[k]`` and document
    ``columns[k]``: its gradient is a sparse matrix times the other side's vectors, summed in a fixed order."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, documents: Tensor, value: Tensor, rows: Tensor, columns: Tensor, weights: Tensor
    ) -> Tensor:
        ctx.save_for_backward(queries, documents, rows, columns, weights)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        queries, documents, rows, columns, weights = ctx.saved_tensors
        weights = weights * gradient
        of_queries = _weighted_sums(rows, columns, weights, documents, len(queries))
        of_documents = _weighted_sums(columns, rows, weights, queries, len(documents))
        return of_queries, of_documents, None, None, None, None


def _weighted_sums(owners: Tensor, members: Tensor, weights: Tensor, vectors: Tensor, size: int) -> Tensor:
    """(size, dim): for each owner the sum of ``weights[k] * vectors[members[k]]`` over its k, in their order."""
    if not len(owners):
        return vectors.new_zeros(size, vectors.shape[1])
    order = torch.argsort(owners, stable=True)
    offsets = F.pad(torch.bincount(owners, minlength=size).cumsum(0), (1, 0))
    return F.embedding_bag(
        members[order], vectors, offsets, mode="sum", per_sample_weights=weights[order], include_last_offset=True
    )


def _mean_of_open(terms: Tensor) -> Tensor:
    return terms.sum() / (terms > 0).sum().clamp(min=1)
