"""Losses over triplets: a query, a passage that answers it, and one that does not.

Vectors have length 1, so a cosine is a dot product, and the distance is 1 - cosine. Row i of ``documents`` answers row
i of ``queries``. ``positives`` are all pairs of the batch that may not be negatives. Documents after the first
``len(queries)`` are negatives from the data: ``given_negatives[i]`` is the row of the one for query i, or -1. Both
directions count: a query against passages, a passage against queries.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from freemvmt.config import Negatives
from freemvmt.losses.negatives import InBatchNegatives
from freemvmt.losses.similarity import PositivePairs, similarities


class _TripletSelection:
    """The choice of triplets, which both losses share.

    ``hardest``, ``semi-hard``, ``random``: negatives of the batch, see ``InBatchNegatives``. ``given``: the negative
    from the data, or the hardest of the batch where there is none, and only in the direction from query to passage.
    """

    def __init__(self, negatives: Negatives, precision: torch.dtype, seed: int) -> None:
        self.negatives, self.precision = negatives, precision
        self._in_batch = InBatchNegatives(negatives, precision, seed)
        self.generator = self._in_batch.generator

    def _triplets(
        self, queries: Tensor, documents: Tensor, positives: PositivePairs, given_negatives: Tensor | None
    ) -> list[tuple[Tensor, Tensor]]:
        """For each direction (queries, documents), (batch,): the negative pair to each positive pair; -1: none."""
        size = len(queries)
        indices = torch.arange(size, device=queries.device)
        document_of_query, query_of_document = self._in_batch.choose(queries, documents[:size], positives.within(size))
        if self.negatives != "given":
            return [(indices, document_of_query), (query_of_document, indices)]
        if given_negatives is None:
            raise ValueError("negatives='given' needs the given negatives")
        return [(indices, torch.where(given_negatives < 0, document_of_query, given_negatives))]


class TripletLoss(_TripletSelection):
    """max(0, margin + distance to the positive - distance to a negative), over the triplets that ``negatives`` names.

    ``all``: the mean over all triplets of the batch that lie within the margin.
    """

    def __init__(self, margin: float, negatives: Negatives, precision: torch.dtype, seed: int) -> None:
        super().__init__(negatives, precision, seed)
        self.margin = margin

    def __call__(
        self, queries: Tensor, documents: Tensor, positives: PositivePairs, given_negatives: Tensor | None = None
    ) -> Tensor:
        """The loss, a scalar."""
        if self.negatives == "all":
            cosines = similarities(queries, documents, self.precision).float()
            own_cosine = (queries * documents).sum(1)  # cosine of each pair, (batch,)
            cosines[positives.rows, positives.columns] = -torch.inf
            forwards = self._hinge(own_cosine.unsqueeze(1), cosines)
            backwards = self._hinge(own_cosine.unsqueeze(0), cosines)
            return (_mean_of_active(forwards) + _mean_of_active(backwards)) / 2
        triplets = self._triplets(queries, documents, positives, given_negatives)
        terms = [self._hinge(positive, negative) for positive, negative in _cosines(queries, documents, triplets)]
        return _mean_of_triplets(queries, documents, triplets, terms, [(term > 0).float() for term in terms])

    def _hinge(self, positive: Tensor, negative: Tensor) -> Tensor:
        # margin + (1 - positive) - (1 - negative), at least 0
        return (self.margin + negative - positive).clamp(min=0)


class MarginMSE(_TripletSelection):
    """The squared difference of the towers' margin and a teacher's, over the triplets that ``negatives`` names
    (Hofstätter et al. 2020, Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation).

    A margin is the cosine of the positive minus that of the negative. ``all``: over all pairs of the batch.
    """

    def __call__(
        self,
        queries: Tensor,
        documents: Tensor,
        positives: PositivePairs,
        teacher: tuple[Tensor, Tensor],
        given_negatives: Tensor | None = None,
    ) -> Tensor:
        """The loss, a scalar. ``teacher``: the teacher's vectors of the same queries and documents, of length 1."""
        if self.negatives == "all":
            return self._over_all(queries, documents, positives, teacher)
        triplets = self._triplets(queries, documents, positives, given_negatives)
        errors = [
            (positive - negative) - (teacher_positive - teacher_negative)
            for (positive, negative), (teacher_positive, teacher_negative) in zip(
                _cosines(queries, documents, triplets), _cosines(*teacher, triplets), strict=True
            )
        ]
        # The slope is the derivative by the negative's cosine: a negative comes nearer where our margin is too large.
        terms, slopes = [error.square() for error in errors], [-2 * error for error in errors]
        return _mean_of_triplets(queries, documents, triplets, terms, slopes)

    def _over_all(
        self, queries: Tensor, documents: Tensor, positives: PositivePairs, teacher: tuple[Tensor, Tensor]
    ) -> Tensor:
        cosines, teacher_cosines = (
            similarities(*sides, self.precision).float() for sides in ((queries, documents), teacher)
        )
        mask = torch.ones_like(cosines)
        mask[positives.rows, positives.columns] = 0
        value = cosines.new_zeros(())
        for side in (0, 1):
            positive, teacher_positive = cosines.diagonal().unsqueeze(side), teacher_cosines.diagonal().unsqueeze(side)
            value = value + ((positive - cosines - teacher_positive + teacher_cosines).square() * mask).sum()
        return value / (2 * mask.sum().clamp(min=1))


@torch.no_grad()
def _cosines(queries: Tensor, documents: Tensor, triplets: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """(cosines of the positives, of the negatives) for the triplets of each direction, (batch,)."""
    positive = (queries * documents[: len(queries)]).sum(1)
    return [(positive, (_rows(queries, row) * _rows(documents, column)).sum(1)) for row, column in triplets]


def _rows(vectors: Tensor, numbers: Tensor) -> Tensor:
    """``vectors[numbers]``, (batch, dim); any row for -1."""
    return vectors.index_select(0, numbers.clamp(min=0))


def _mean_of_triplets(
    queries: Tensor,
    documents: Tensor,
    triplets: list[tuple[Tensor, Tensor]],
    terms: list[Tensor],
    slopes: list[Tensor],
) -> Tensor:
    """The mean of ``terms`` over all triplets, with its gradient.

    ``slopes`` are the derivatives of the terms by the negative's cosine; those by the positive's are the opposite.
    """
    value = queries.new_zeros(())
    indices = torch.arange(len(queries), device=queries.device)
    rows, columns, weights = [], [], []
    for (row, column), term, slope in zip(triplets, terms, slopes, strict=True):
        exists = (row >= 0) & (column >= 0)
        value = value + torch.where(exists, term, 0.0).mean() / len(triplets)
        (active,) = (exists & (slope != 0)).nonzero(as_tuple=True)
        rows += [row[active], indices[active]]
        columns += [column[active], indices[active]]
        weights += [slope[active], -slope[active]]
    share = torch.cat(weights) / (len(queries) * len(triplets))
    loss: Tensor = _LinearInCosines.apply(queries, documents, value, torch.cat(rows), torch.cat(columns), share)
    return loss


class _LinearInCosines(torch.autograd.Function):
    """The loss ``value``, whose derivative by the cosine of query ``rows[k]`` and document ``columns[k]`` is
    ``weights[k]``. Each side's gradient is a sparse matrix times the other side's vectors, summed in a fixed order."""

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
        queries_grad = _weighted_sums(rows, columns, weights, documents, len(queries))
        documents_grad = _weighted_sums(columns, rows, weights, queries, len(documents))
        return queries_grad, documents_grad, None, None, None, None


def _weighted_sums(owners: Tensor, members: Tensor, weights: Tensor, vectors: Tensor, size: int) -> Tensor:
    """(size, dim): for each owner the sum of ``weights[k] * vectors[members[k]]`` over its k, in the order of k."""
    if not len(owners):
        return vectors.new_zeros(size, vectors.shape[1])
    order = torch.argsort(owners, stable=True)
    offsets = F.pad(torch.bincount(owners, minlength=size).cumsum(0), (1, 0))
    return F.embedding_bag(
        members[order], vectors, offsets, mode="sum", per_sample_weights=weights[order], include_last_offset=True
    )


def _mean_of_active(terms: Tensor) -> Tensor:
    return terms.sum() / (terms > 0).sum().clamp(min=1)
