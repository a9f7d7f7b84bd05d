"""Rows of a token table for the tokens of a batch, with a gradient that is sparse and exact.

A batch of 80,000 tokens has about 8,000 distinct ones. So each row that it uses is selected once (``used_rows``),
everything that depends on a row alone is computed once for each row, and only then are the results copied to the tokens
(``gather_rows``). The gradients are summed in a fixed order: a stable sort groups the tokens of each row, and an
``embedding_bag`` adds their gradients up.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def used_rows(table: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """(the distinct rows of ``table`` for the tokens ``ids``, (used, width); the position of each token's row in them).

    The gradient of the table is sparse, with each row once.
    """
    is_used = torch.zeros(len(table), dtype=torch.bool, device=table.device)
    is_used[ids] = True
    (numbers,) = is_used.nonzero(as_tuple=True)
    position = torch.empty(len(table), dtype=torch.int64, device=table.device)
    position[numbers] = torch.arange(len(numbers), device=table.device)
    rows: Tensor = _SelectRows.apply(table, numbers)
    return rows, position[ids]


def gather_rows(rows: Tensor, places: Tensor) -> Tensor:
    """``rows[places]``, (tokens, width); the gradient is summed in a fixed order, by all cores."""
    vectors: Tensor = _GatherRows.apply(rows, places)
    return vectors


def permute_rows(values: Tensor, places: Tensor, inverse: Tensor) -> Tensor:
    """``values[places]``, where ``places`` is a permutation and ``inverse`` its inverse."""
    vectors: Tensor = _PermuteRows.apply(values, places, inverse)
    return vectors


def sums_by(numbers: Tensor, values: Tensor, members: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(the distinct ``numbers``, ascending; the sum of the ``values`` (any, width) of each, added in a fixed order).

    The value of ``numbers[i]`` is ``values[members[i]]``, or ``values[i]`` without ``members``.
    """
    ordered, order = torch.sort(numbers, stable=True)
    distinct, counts = torch.unique_consecutive(ordered, return_counts=True)
    if not len(distinct):
        return distinct, values.new_zeros(0, values.shape[1])
    starts = F.pad(counts.cumsum(0), (1, 0))
    bags = order if members is None else members[order]
    return distinct, F.embedding_bag(bags, values, starts, mode="sum", include_last_offset=True)


def sparse_rows(numbers: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    """The sparse gradient of a table: rows ``numbers``, ascending and distinct, with the gradients ``values``."""
    return torch.sparse_coo_tensor(
        numbers.long().unsqueeze(0), values, shape, is_coalesced=True, check_invariants=False
    )


class _SelectRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, numbers: Tensor) -> Tensor:
        ctx.save_for_backward(numbers)
        ctx.shape = table.shape
        return table[numbers]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (numbers,) = ctx.saved_tensors
        return sparse_rows(numbers, gradient, ctx.shape), None


class _GatherRows(torch.autograd.Function):
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
        all_sums = gradient.new_zeros(ctx.count, gradient.shape[1])
        all_sums[distinct] = sums
        return all_sums, None


class _PermuteRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return values.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return gradient.index_select(0, inverse), None, None
