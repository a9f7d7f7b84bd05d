"""Losses on the softmaxes of a batch: InfoNCE against the own partner, distillation against a teacher's softmaxes.

Vectors have length 1. Row i of ``documents`` answers row i of ``queries``. Both directions count: each query against
the documents, each document against the queries. Documents after the first ``len(queries)`` have no query of their
own: they count in the first direction only.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from freemvmt.losses.similarity import PositivePairs, blocks, similarities

_MIN_TEMPERATURE = 0.01  # of a learned temperature
_KEPT = 4096  # up to this batch size the matrix is kept, because it is needed twice: 64 MB


class Temperature:
    """The divisor of the cosines. ``weight``, the logarithm of its inverse, may be learned (Radford et al. 2021)."""

    def __init__(self, first: float, device: torch.device, learned: bool = False) -> None:
        self.weight = torch.nn.Parameter(torch.tensor(-math.log(first), device=device), requires_grad=learned)

    def __float__(self) -> float:
        return max(math.exp(-self.weight.item()), _MIN_TEMPERATURE)


class InfoNCE:
    """Cross entropy of the own partner within the batch, in both directions, with cosines divided by a temperature
    (van den Oord et al. 2018, Representation Learning with Contrastive Predictive Coding)."""

    def __init__(self, temperature: Temperature, precision: torch.dtype) -> None:
        self.temperature, self.precision = temperature, precision

    def __call__(self, queries: Tensor, documents: Tensor, positives: PositivePairs) -> Tensor:
        """The loss, a scalar."""
        return _softmaxes(queries, documents, None, positives.others(), self.temperature, self.precision)


class Distillation:
    """Kullback-Leibler divergence of the batch's softmaxes from a teacher's, in both directions, with the cosines of
    both divided by a temperature (Hinton et al. 2015, Distilling the Knowledge in a Neural Network)."""

    def __init__(self, temperature: Temperature, precision: torch.dtype) -> None:
        self.temperature, self.precision = temperature, precision

    def __call__(self, queries: Tensor, documents: Tensor, teacher: tuple[Tensor, Tensor]) -> Tensor:
        """The loss, a scalar. ``teacher``: the teacher's vectors of the same queries and documents, of length 1."""
        empty = torch.empty(0, dtype=torch.int64, device=queries.device)
        return _softmaxes(queries, documents, teacher, PositivePairs(empty, empty), self.temperature, self.precision)


def _softmaxes(
    queries: Tensor,
    documents: Tensor,
    teacher: tuple[Tensor, Tensor] | None,
    excluded: PositivePairs,
    temperature: Temperature,
    precision: torch.dtype,
) -> Tensor:
    loss: Tensor = _Softmaxes.apply(
        queries, documents, temperature.weight, teacher, excluded, float(temperature), precision
    )
    return loss


class _Softmaxes(torch.autograd.Function):
    """The mean over rows and columns of the divergence of a softmax from its target, with its gradient.

    The target is 1 at the own partner (cross entropy), or the softmax of ``teacher``. Computed by blocks of rows: first
    the sum of each row and column, then the value and the gradients. A large batch computes each block twice, a small
    one keeps the blocks (Gao et al. 2021, GradCache). ``excluded`` are pairs that do not count.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        documents: Tensor,
        scale: Tensor,
        teacher: tuple[Tensor, Tensor] | None,
        excluded: PositivePairs,
        temperature: float,
        precision: torch.dtype,
    ) -> Tensor:
        size = len(queries)
        row_blocks = list(blocks(size, excluded))
        logits_of = _logits(queries, documents, row_blocks, temperature, precision)
        row_total, column_total = _totals(logits_of, row_blocks, queries, documents, temperature)
        if teacher is not None:
            target_logits_of = _logits(*teacher, row_blocks, temperature, precision)
            target_row_total, target_column_total = _totals(
                target_logits_of, row_blocks, queries, documents, temperature
            )

        value = queries.new_zeros((), dtype=torch.float64)
        queries_grad, documents_grad = torch.empty_like(queries), torch.zeros_like(documents)
        for number, (start, stop, _) in enumerate(row_blocks):
            logits = logits_of(number)
            by_row = logits - row_total[start:stop].unsqueeze(1)  # log softmax, (rows, documents)
            by_column = logits[:, :size] - column_total[:size]
            if teacher is None:
                value -= by_row.diagonal(start).sum() + by_column.diagonal(start).sum()
                slopes = by_row.exp_()
                slopes[:, :size] += by_column.exp_()
                slopes.diagonal(start).sub_(2)
            else:
                target_logits = target_logits_of(number)
                slopes = torch.zeros_like(logits)
                for log_softmax, log_target in (
                    (by_row, target_logits - target_row_total[start:stop].unsqueeze(1)),
                    (by_column, target_logits[:, :size] - target_column_total[:size]),
                ):
                    target = log_target.exp()
                    value += log_target.sub_(log_softmax).mul_(target).sum()
                    slopes[:, : log_softmax.shape[1]] += log_softmax.exp_().sub_(target)
            slopes = slopes.mul_(1 / (2 * size * temperature)).to(precision)
            queries_grad[start:stop] = slopes @ documents.to(precision)
            documents_grad += slopes.T @ queries[start:stop].to(precision)
        # Logits are cosines times the exponential of ``scale``, so its gradient follows from that of the queries.
        ctx.save_for_backward(queries_grad, documents_grad, (queries_grad * queries).sum().to(scale))
        return (value / (2 * size)).float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        queries_grad, documents_grad, scale_grad = ctx.saved_tensors
        return gradient * queries_grad, gradient * documents_grad, gradient * scale_grad, None, None, None, None


def _logits(
    queries: Tensor,
    documents: Tensor,
    row_blocks: list[tuple[int, int, PositivePairs]],
    temperature: float,
    precision: torch.dtype,
) -> Callable[[int], Tensor]:
    """A function of a block's number: its logits, (rows, documents), -inf where a pair does not count."""

    def logits_of(number: int) -> Tensor:
        start, stop, masked = row_blocks[number]
        logits = similarities(queries[start:stop], documents, precision).float().div_(temperature)
        logits[masked.rows - start, masked.columns] = -torch.inf
        return logits

    return functools.cache(logits_of) if len(queries) <= _KEPT else logits_of


def _totals(
    logits_of: Callable[[int], Tensor],
    row_blocks: list[tuple[int, int, PositivePairs]],
    queries: Tensor,
    documents: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """The log-sum-exp of each row, (batch,), and of each column, (documents,)."""
    row_total = queries.new_empty(len(queries))
    # The largest logit of each column so far; at first the smallest possible one.
    shift = queries.new_full((len(documents),), -1 / temperature)
    column_sum = queries.new_zeros(len(documents))
    for number, (start, stop, _) in enumerate(row_blocks):
        logits = logits_of(number)
        row_total[start:stop] = logits.logsumexp(1)
        before, shift = shift, torch.maximum(shift, logits.amax(0))
        column_sum = column_sum * (before - shift).exp() + (logits - shift).exp_().sum(0)
    return row_total, shift + column_sum.log()
