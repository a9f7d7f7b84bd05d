"""Losses that compare softmaxes over a batch: with the own partner (InfoNCE), or with what a teacher sees.

Vectors come in at length 1; row i of ``queries`` belongs with row i of ``documents``; both directions count. Documents
beyond the batch have no query of their own: each query is held against them too, and they against none.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from freemvmt.losses.similarity import PositivePairs, blocks, similarities

_COLDEST = 0.01  # that a learned temperature becomes
_KEPT = 4096  # up to this batch the matrix is kept, which is needed twice: 64 MB


class Temperature:
    """What cosines are divided by; ``weight``, the logarithm of its inverse, may be learned (Radford et al. 2021)."""

    def __init__(self, first: float, device: torch.device, learned: bool = False) -> None:
        self.weight = torch.nn.Parameter(torch.tensor(-math.log(first), device=device), requires_grad=learned)

    def __float__(self) -> float:
        return max(math.exp(-self.weight.item()), _COLDEST)


class InfoNCE:
    """Cross entropy of the own partner among the batch, both ways, with cosines divided by a temperature
    (van den Oord et al. 2018, Representation Learning with Contrastive Predictive Coding)."""

    def __init__(self, temperature: Temperature, precision: torch.dtype) -> None:
        self.temperature, self.precision = temperature, precision

    def __call__(self, queries: Tensor, documents: Tensor, known: PositivePairs) -> Tensor:
        """The loss, a scalar."""
        return _softmaxes(queries, documents, None, known.others(), self.temperature, self.precision)


class Distillation:
    """Kullback-Leibler divergence of the batch's softmaxes from a teacher's, both ways, cosines of both divided by
    a temperature (Hinton et al. 2015, Distilling the Knowledge in a Neural Network)."""

    def __init__(self, temperature: Temperature, precision: torch.dtype) -> None:
        self.temperature, self.precision = temperature, precision

    def __call__(self, queries: Tensor, documents: Tensor, teacher: tuple[Tensor, Tensor]) -> Tensor:
        """The loss, a scalar. ``teacher``: the teacher's vectors of the same queries and documents, of length 1."""
        nothing = torch.empty(0, dtype=torch.int64, device=queries.device)
        return _softmaxes(
            queries, documents, teacher, PositivePairs(nothing, nothing), self.temperature, self.precision
        )


def _softmaxes(
    queries: Tensor,
    documents: Tensor,
    teacher: tuple[Tensor, Tensor] | None,
    others: PositivePairs,
    temperature: Temperature,
    precision: torch.dtype,
) -> Tensor:
    loss: Tensor = _Softmaxes.apply(
        queries, documents, temperature.weight, teacher, others, float(temperature), precision
    )
    return loss


class _Softmaxes(torch.autograd.Function):
    """How far the softmaxes of the rows and of the columns are from what they should be, the mean of both, and its
    gradient. They should be 1 at the own partner (cross entropy), or the softmaxes of ``teacher`` (divergence).

    By blocks of rows: first what each row and column sums up to, then value and gradients. A large batch makes each
    block twice, a small one keeps them (Gao et al. 2021, GradCache).
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        documents: Tensor,
        scale: Tensor,
        teacher: tuple[Tensor, Tensor] | None,
        others: PositivePairs,
        temperature: float,
        precision: torch.dtype,
    ) -> Tensor:
        size = len(queries)
        pieces = list(blocks(size, others))
        logits_of = _logits(queries, documents, pieces, temperature, precision)
        row_total, column_total = _totals(logits_of, pieces, queries, documents, temperature)
        if teacher is not None:
            wanted_of = _logits(*teacher, pieces, temperature, precision)
            wanted_rows, wanted_columns = _totals(wanted_of, pieces, queries, documents, temperature)

        value = queries.new_zeros((), dtype=torch.float64)
        of_queries, of_documents = torch.empty_like(queries), torch.zeros_like(documents)
        for number, (start, stop, _) in enumerate(pieces):
            logits = logits_of(number)
            by_row = logits - row_total[start:stop].unsqueeze(1)  # logarithms of the softmaxes, (rows, documents)
            by_column = logits[:, :size] - column_total[:size]
            if teacher is None:
                value -= by_row.diagonal(start).sum() + by_column.diagonal(start).sum()
                slopes = by_row.exp_()
                slopes[:, :size] += by_column.exp_()
                slopes.diagonal(start).sub_(2)
            else:
                wanted = wanted_of(number)
                slopes = torch.zeros_like(logits)
                for found, right in (
                    (by_row, wanted - wanted_rows[start:stop].unsqueeze(1)),
                    (by_column, wanted[:, :size] - wanted_columns[:size]),
                ):
                    share = right.exp()
                    value += right.sub_(found).mul_(share).sum()
                    slopes[:, : found.shape[1]] += found.exp_().sub_(share)
            slopes = slopes.mul_(1 / (2 * size * temperature)).to(precision)
            of_queries[start:stop] = slopes @ documents.to(precision)
            of_documents += slopes.T @ queries[start:stop].to(precision)
        # A cosine that grows and a scale that grows come to the same: the slope in the one gives that in the other.
        ctx.save_for_backward(of_queries, of_documents, (of_queries * queries).sum().to(scale))
        return (value / (2 * size)).float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_queries, of_documents, of_scale = ctx.saved_tensors
        return gradient * of_queries, gradient * of_documents, gradient * of_scale, None, None, None, None


def _logits(
    queries: Tensor,
    documents: Tensor,
    pieces: list[tuple[int, int, PositivePairs]],
    temperature: float,
    precision: torch.dtype,
) -> Callable[[int], Tensor]:
    """Cosines of a block divided by ``temperature``, (rows, documents), -inf where a pair does not count."""

    def logits_of(number: int) -> Tensor:
        start, stop, inside = pieces[number]
        logits = similarities(queries[start:stop], documents, precision).float().div_(temperature)
        logits[inside.rows - start, inside.columns] = -torch.inf
        return logits

    return functools.cache(logits_of) if len(queries) <= _KEPT else logits_of


def _totals(
    logits_of: Callable[[int], Tensor],
    pieces: list[tuple[int, int, PositivePairs]],
    queries: Tensor,
    documents: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Logarithms of the sums of exponentials of each row and of each column, (batch,) and (documents,)."""
    row_total = queries.new_empty(len(queries))
    # The largest of a column so far, or the least there can be.
    shift = queries.new_full((len(documents),), -1 / temperature)
    column_sum = queries.new_zeros(len(documents))
    for number, (start, stop, _) in enumerate(pieces):
        logits = logits_of(number)
        row_total[start:stop] = logits.logsumexp(1)
        before, shift = shift, torch.maximum(shift, logits.amax(0))
        column_sum = column_sum * (before - shift).exp() + (logits - shift).exp_().sum(0)
    return row_total, shift + column_sum.log()
