"""The triplet loss. Vectors come in at length 1, so a cosine is a dot product and the distance is 1 - cosine.

Row i of ``queries`` belongs with row i of ``documents``; ``known`` names every pair that is known to belong together,
which is never a negative. Both directions count: a query against the batch's passages, a passage against its queries.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from freemvmt.config import Negatives
from freemvmt.learning.blocks import blocks, similarities
from freemvmt.learning.negatives import Known

_GROUP = 64  # numbers among which a largest one is looked for in two steps


class TripletLoss:
    """max(0, margin + distance to the positive - distance to a negative), over the negatives that ``negatives`` names.

    ``hardest``: the nearest of the batch (Hermans et al. 2017, In Defense of the Triplet Loss); ``random``: one of the
    batch; ``all``: the mean over all of the batch that lie within the margin; ``given``: the row's own, passed as
    ``given``, with the hardest of the batch where a row has none.
    """

    def __init__(self, margin: float, negatives: Negatives, precision: torch.dtype, seed: int) -> None:
        self.margin, self.negatives, self.precision = margin, negatives, precision
        self._generator = torch.Generator().manual_seed(seed)
        self._cells = torch.empty(0, 0)  # where blocks of the matrix are written: one place for all of a training

    def __call__(
        self,
        queries: Tensor,
        documents: Tensor,
        known: Known,
        given: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The loss, a scalar. ``given``: vectors (batch, dim), which count where the second tensor (batch,) is true."""
        if self.negatives == "all":
            positive = (queries * documents).sum(1)  # cosine of each pair, (batch,)
            cosines = similarities(queries, documents, self.precision).float()
            cosines[known.rows, known.columns] = -torch.inf
            forwards = self._hinge(positive.unsqueeze(1), cosines)
            backwards = self._hinge(positive.unsqueeze(0), cosines)
            return (_mean_of_violating(forwards) + _mean_of_violating(backwards)) / 2
        own = torch.arange(len(queries), device=queries.device)
        with torch.no_grad():
            document_of_query, query_of_document = self._choose(queries, documents, known)
        triplets = [(own, document_of_query), (query_of_document, own)]  # (query, document) of each negative pair
        if self.negatives == "given":
            if given is None:
                raise ValueError("negatives='given' needs the given negatives")
            vectors, has_given = given
            documents = torch.cat([documents, vectors])
            triplets = [(own, torch.where(has_given, own + len(own), document_of_query))]
        return self._of_triplets(queries, documents, triplets)

    def _of_triplets(self, queries: Tensor, documents: Tensor, negatives: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The mean of each list's hinges. Entry i of a list is a negative pair to the positive pair i, -1: none."""
        rows, columns, weights = [], [], []
        value = queries.new_zeros(())
        own = torch.arange(len(queries), device=queries.device)
        with torch.no_grad():
            positive = (queries * documents[: len(queries)]).sum(1)
            for row, column in negatives:
                far = (queries[row.clamp(min=0)] * documents[column.clamp(min=0)]).sum(1)
                terms = self._hinge(positive, far).masked_fill((row < 0) | (column < 0), 0.0)
                value += terms.mean() / len(negatives)
                # Where a hinge is open, its slope is 1 in the negative's cosine and -1 in the positive's.
                (active,) = terms.nonzero(as_tuple=True)
                rows += [row[active], own[active]]
                columns += [column[active], own[active]]
                weights += [queries.new_ones(len(active)), -queries.new_ones(len(active))]
            share = torch.cat(weights) / (len(queries) * len(negatives))
        loss: Tensor = _LinearInCosines.apply(queries, documents, value, torch.cat(rows), torch.cat(columns), share)
        return loss

    def _choose(self, queries: Tensor, documents: Tensor, known: Known) -> tuple[Tensor, Tensor]:
        """(a document for each query, a query for each document), (batch,); -1 where all are known to belong."""
        size, device = len(queries), queries.device
        document_of_query = torch.empty(size, dtype=torch.int64, device=device)
        query_of_document = torch.full((size,), -1, dtype=torch.int64, device=device)
        best = torch.full((size,), -torch.inf, device=device)  # for each document, over the blocks so far
        for start, stop, inside in blocks(size, known):
            ranks = self._block(stop - start, size, device)  # groups are whole: what lies beyond is -inf
            if self.negatives == "random":
                drawn = torch.rand((stop - start, size), generator=self._generator)
                ranks[: stop - start, :size] = drawn.to(device)
            elif self.precision == torch.float32:
                torch.mm(queries[start:stop], documents.T, out=ranks[: stop - start, :size])
            else:
                ranks[: stop - start, :size] = similarities(queries[start:stop], documents, self.precision)
            ranks[inside.rows - start, inside.columns] = -torch.inf
            row_best, columns = _largest_of_rows(ranks)
            row_best, columns = row_best[: stop - start], columns[: stop - start]
            document_of_query[start:stop] = columns.masked_fill(row_best == -torch.inf, -1)
            column_best, rows = _largest_of_columns(ranks)
            column_best, rows = column_best[:size], rows[:size]
            better = column_best > best
            query_of_document[better] = rows[better] + start
            best = torch.maximum(best, column_best)
        return document_of_query, query_of_document

    def _block(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Room for (rows, columns), each rounded up to whole groups, with -inf in what is beyond."""
        shape = tuple(-(-length // _GROUP) * _GROUP for length in (rows, columns))
        if self._cells.shape != shape or self._cells.device != device:
            self._cells = torch.empty(shape, device=device)
        self._cells[rows:] = -torch.inf
        self._cells[:, columns:] = -torch.inf
        return self._cells

    def _hinge(self, positive: Tensor, negative: Tensor) -> Tensor:
        # margin + (1 - positive) - (1 - negative), not below zero
        return (self.margin + negative - positive).clamp(min=0)


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


def _largest_of_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(largest number of each row, its column), by groups: finding where is slow, finding how large is fast."""
    groups = matrix.view(len(matrix), -1, _GROUP)
    group = groups.amax(2).argmax(1)
    largest, place = groups[torch.arange(len(matrix), device=matrix.device), group].max(1)
    return largest, group * _GROUP + place


def _largest_of_columns(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(largest number of each column, its row)."""
    groups = matrix.view(-1, _GROUP, matrix.shape[1])
    group = groups.amax(1).argmax(0)
    largest, place = groups[group, :, torch.arange(matrix.shape[1], device=matrix.device)].max(1)
    return largest, group * _GROUP + place


def _mean_of_violating(terms: Tensor) -> Tensor:
    return terms.sum() / (terms > 0).sum().clamp(min=1)
