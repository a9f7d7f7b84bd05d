"""Rows of a token table for the tokens of a batch, with a gradient that is sparse and exact.

A batch of 80,000 tokens holds a tenth as many different ones. So the rows that it needs are taken out once, whatever is
computed from a row alone is computed once a row, and only then is it handed to the tokens. Both ways back are the same
sum: one stable sort of the numbers turns "which row has this token" into "which tokens has this row", and an
``embedding_bag`` over the gradients adds them up in that order.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def used_rows(table: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """(the distinct rows of ``table`` that ``ids`` (tokens,) name, (used, width); where each token's stands in them).

    The gradient of the table is sparse, with each row once.
    """
    held = torch.zeros(len(table), dtype=torch.bool, device=table.device)
    held[ids] = True
    (numbers,) = held.nonzero(as_tuple=True)
    place = torch.empty(len(table), dtype=torch.int64, device=table.device)
    place[numbers] = torch.arange(len(numbers), device=table.device)
    rows: Tensor = _Used.apply(table, numbers)
    return rows, place[ids]


def handed_out(rows: Tensor, places: Tensor) -> Tensor:
    """``rows[places]``, (tokens, width): its gradient is summed in a fixed order, by all cores."""
    vectors: Tensor = _HandedOut.apply(rows, places)
    return vectors


def permuted(values: Tensor, places: Tensor, inverse: Tensor) -> Tensor:
    """``values[places]`` where ``places`` is a permutation and ``inverse`` undoes it."""
    vectors: Tensor = _Permuted.apply(values, places, inverse)
    return vectors


def sums_by(numbers: Tensor, values: Tensor, members: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(the distinct ``numbers`` in rising order, the sum of the ``values`` (any, width) of each, in a fixed order).

    Number ``i`` has the value ``members[i]``, or, without ``members``, the value ``i``.
    """
    ordered, order = torch.sort(numbers, stable=True)
    distinct, counts = torch.unique_consecutive(ordered, return_counts=True)
    if not len(distinct):
        return distinct, values.new_zeros(0, values.shape[1])
    starts = F.pad(counts.cumsum(0), (1, 0))
    bags = order if members is None else members[order]
    return distinct, F.embedding_bag(bags, values, starts, mode="sum", include_last_offset=True)


def sparse_rows(numbers: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    """The gradient of a table whose rows ``numbers``, rising and distinct, have the gradients ``values``."""
    return torch.sparse_coo_tensor(
        numbers.long().unsqueeze(0), values, shape, is_coalesced=True, check_invariants=False
    )


class _Used(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, numbers: Tensor) -> Tensor:
        ctx.save_for_backward(numbers)
        ctx.shape = table.shape
        return table[numbers]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (numbers,) = ctx.saved_tensors
        return sparse_rows(numbers, gradient, ctx.shape), None


class _HandedOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.count = len(rows)
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        distinct, sums = sums_by(places, gradient)
        if len(distinct) == ctx.count:
            return sums, None
        whole = gradient.new_zeros(ctx.count, gradient.shape[1])
        whole[distinct] = sums
        return whole, None


class _Permuted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return values.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return gradient.index_select(0, inverse), None, None
