"""Losses that compare softmaxes over a batch: with the own partner (InfoNCE), or with what a teacher sees.

Vectors come in at length 1; row i of ``queries`` belongs with row i of ``documents``; both directions count.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from freemvmt.learning.blocks import blocks, similarities
from freemvmt.learning.negatives import Known

_KEPT = 4096  # up to this batch the matrix is kept, which is needed twice: 64 MB


class InfoNCE:
    """Cross entropy of the own partner among the batch, both ways, with cosines divided by ``temperature``
    (van den Oord et al. 2018, Representation Learning with Contrastive Predictive Coding)."""

    def __init__(self, temperature: float, precision: torch.dtype) -> None:
        self.temperature, self.precision = temperature, precision

    def __call__(self, queries: Tensor, documents: Tensor, known: Known) -> Tensor:
        """The loss, a scalar."""
        loss: Tensor = _Softmaxes.apply(queries, documents, None, known.others(), self.temperature, self.precision)
        return loss


class Distillation:
    """Kullback-Leibler divergence of the batch's softmaxes from a teacher's, both ways, cosines of both divided by
    ``temperature`` (Hinton et al. 2015, Distilling the Knowledge in a Neural Network)."""

    def __init__(self, temperature: float, precision: torch.dtype) -> None:
        self.temperature, self.precision = temperature, precision

    def __call__(self, queries: Tensor, documents: Tensor, taught: tuple[Tensor, Tensor]) -> Tensor:
        """The loss, a scalar. ``taught``: the teacher's vectors of the same queries and documents, of length 1."""
        nothing = torch.empty(0, dtype=torch.int64, device=queries.device)
        unmasked = Known(nothing, nothing)
        loss: Tensor = _Softmaxes.apply(queries, documents, taught, unmasked, self.temperature, self.precision)
        return loss


class _Softmaxes(torch.autograd.Function):
    """How far the softmaxes of the rows and of the columns are from what they should be, the mean of both, and its
    gradient. They should be 1 at the own partner (cross entropy), or the softmaxes of ``taught`` (divergence).

    By blocks of rows: first what each row and column sums up to, then value and gradients. A large batch makes each
    block twice, a small one keeps them (Gao et al. 2021, GradCache).
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        documents: Tensor,
        taught: tuple[Tensor, Tensor] | None,
        others: Known,
        temperature: float,
        precision: torch.dtype,
    ) -> Tensor:
        size = len(queries)
        pieces = list(blocks(size, others))
        logits_of = _logits(queries, documents, pieces, temperature, precision)
        row_total, column_total = _totals(logits_of, pieces, queries, temperature)
        if taught is not None:
            wanted_of = _logits(*taught, pieces, temperature, precision)
            wanted_rows, wanted_columns = _totals(wanted_of, pieces, queries, temperature)

        value = queries.new_zeros((), dtype=torch.float64)
        of_queries, of_documents = torch.empty_like(queries), torch.zeros_like(documents)
        for number, (start, stop, _) in enumerate(pieces):
            logits = logits_of(number)
            by_row = logits - row_total[start:stop].unsqueeze(1)  # logarithms of the softmaxes, (rows, batch)
            by_column = logits - column_total
            if taught is None:
                value -= by_row.diagonal(start).sum() + by_column.diagonal(start).sum()
                slopes = by_row.exp_().add_(by_column.exp_())
                slopes.diagonal(start).sub_(2)
            else:
                wanted = wanted_of(number)
                slopes = torch.zeros_like(logits)
                for found, right in (
                    (by_row, wanted - wanted_rows[start:stop].unsqueeze(1)),
                    (by_column, wanted - wanted_columns),
                ):
                    share = right.exp()
                    value += right.sub_(found).mul_(share).sum()
                    slopes += found.exp_().sub_(share)
            slopes = slopes.mul_(1 / (2 * size * temperature)).to(precision)
            of_queries[start:stop] = slopes @ documents.to(precision)
            of_documents += slopes.T @ queries[start:stop].to(precision)
        ctx.save_for_backward(of_queries, of_documents)
        return (value / (2 * size)).float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_queries, of_documents = ctx.saved_tensors
        return gradient * of_queries, gradient * of_documents, None, None, None, None


def _logits(
    queries: Tensor,
    documents: Tensor,
    pieces: list[tuple[int, int, Known]],
    temperature: float,
    precision: torch.dtype,
) -> Callable[[int], Tensor]:
    """Cosines of a block divided by ``temperature``, (rows, batch), -inf where a pair does not count."""

    def logits_of(number: int) -> Tensor:
        start, stop, inside = pieces[number]
        logits = similarities(queries[start:stop], documents, precision).float().div_(temperature)
        logits[inside.rows - start, inside.columns] = -torch.inf
        return logits

    return functools.cache(logits_of) if len(queries) <= _KEPT else logits_of


def _totals(
    logits_of: Callable[[int], Tensor], pieces: list[tuple[int, int, Known]], like: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Logarithms of the sums of exponentials of each row and of each column, (batch,)."""
    size = len(like)
    row_total = like.new_empty(size)
    shift = like.new_full((size,), -1 / temperature)  # the largest of a column so far, or the least there can be
    column_sum = like.new_zeros(size)
    for number, (start, stop, _) in enumerate(pieces):
        logits = logits_of(number)
        row_total[start:stop] = logits.logsumexp(1)
        before, shift = shift, torch.maximum(shift, logits.amax(0))
        column_sum = column_sum * (before - shift).exp() + (logits - shift).exp_().sum(0)
    return row_total, shift + column_sum.log()
