"""The average tower: a text's vector is the mean of its token vectors, computed from the flat ids.

The mean is PyTorch's ``embedding_bag``; its gradient here is sparse and exact. A stable sort of the batch's ids gives
the texts of each distinct row, so the gradient of the rows is an ``embedding_bag`` too, over the gradients of the
texts. No array has the size of the table, or of tokens x dim.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from freemvmt.data.ragged import TokenArray
from freemvmt.towers.sparse_rows import sparse_rows, sums_by

# Texts. Each core takes as many of a piece; of a whole batch one would take the queries, another the longer passages.
_PIECE = 1024


class AverageTower(nn.Module):
    """The mean of the rows of ``table`` (vocabulary, width) for a text's tokens; zeros for a text without tokens."""

    def __init__(self, table: nn.Parameter) -> None:
        super().__init__()
        self.table = table

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self.table.shape[1]

    def train_in(self, precision: torch.dtype) -> None:
        """No effect: this tower has no matrix product."""

    def measure(self) -> None:
        """No effect: nothing here depends on the scale of the table."""

    def forward(self, tokens: TokenArray) -> Tensor:
        """(texts, width) float32 on the table's device."""
        device = self.table.device
        ids = torch.from_numpy(np.ascontiguousarray(tokens.ids)).to(device)
        offsets = torch.from_numpy(tokens.offsets.astype(np.int32)).to(device)
        if not torch.is_grad_enabled():
            return _mean(self.table, ids, offsets)
        vectors: Tensor = _MeanOfRows.apply(self.table, ids, offsets)
        return vectors

    def split(self, tokens: TokenArray) -> Tensor:
        """What each token adds to its text's vector, (tokens, width); the sum over a text is ``forward``."""
        lengths = torch.from_numpy(tokens.lengths).to(self.table.device)
        ids = torch.from_numpy(tokens.ids.astype(np.int64)).to(self.table.device)
        return self.table[ids] / torch.repeat_interleave(lengths, lengths).unsqueeze(1)


def _mean(table: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
    if len(ids) == 0:
        return table.new_zeros(len(offsets) - 1, table.shape[1])
    return F.embedding_bag(ids, table, offsets, mode="mean", include_last_offset=True)


class _MeanOfRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(ids, offsets)
        ctx.shape = table.shape
        means = []
        for start in range(0, max(len(offsets) - 1, 1), _PIECE):
            bounds = offsets[start : start + _PIECE + 1]
            means.append(_mean(table, ids[bounds[0] : bounds[-1]], bounds - bounds[0]))
        return torch.cat(means) if len(means) > 1 else means[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # gradient: (texts, width)
        ids, offsets = ctx.saved_tensors
        lengths = offsets.diff()
        text_of_token = torch.repeat_interleave(lengths)
        has_gradient = gradient.abs().amax(1) != 0  # the loss does not move every text
        (moved,) = has_gradient[text_of_token].nonzero(as_tuple=True)  # tokens
        # Each token has a share of 1 / length in its text's mean.
        shares = gradient / lengths.clamp(min=1).unsqueeze(1)
        rows, values = sums_by(ids.index_select(0, moved), shares, text_of_token.index_select(0, moved))
        return sparse_rows(rows, values, ctx.shape), None, None
