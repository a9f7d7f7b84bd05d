"""The matrix of all cosines of a batch, computed a few rows at a time.

A loss needs only small results from each block, and its gradient is small too. So the losses compute their gradients
themselves: autograd would keep the whole matrix, twice or more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_CELLS = 2**22  # of a block of the matrix: 16 MB


@dataclass(frozen=True, eq=False)
class PositivePairs:
    """The pairs of a batch that must not be negatives: passage ``columns[k]`` answers query ``rows[k]``, or is the
    same text (int64)."""

    rows: Tensor
    columns: Tensor

    def to(self, device: torch.device) -> "PositivePairs":
        """The same on ``device``."""
        return PositivePairs(self.rows.to(device), self.columns.to(device))

    def others(self) -> "PositivePairs":
        """The pairs off the diagonal. The diagonal holds the pairs of the batch itself."""
        return self._where(self.rows != self.columns)

    def within(self, size: int) -> "PositivePairs":
        """The pairs of the first ``size`` passages."""
        return self._where(self.columns < size)

    def _where(self, mask: Tensor) -> "PositivePairs":
        return self if bool(mask.all()) else PositivePairs(self.rows[mask], self.columns[mask])


def similarities(queries: Tensor, documents: Tensor, precision: torch.dtype) -> Tensor:
    """Cosines of all pairs, (queries, documents); the products are computed in ``precision``."""
    return queries.to(precision) @ documents.to(precision).T


def blocks(size: int, positives: PositivePairs) -> Iterator[tuple[int, int, PositivePairs]]:
    """(start row, stop row, the positives of these rows) of each block of the matrix of all pairs."""
    rows = max(1, _CELLS // max(size, 1))
    starts = torch.arange(0, size + rows, rows, device=positives.rows.device)
    bounds = torch.searchsorted(positives.rows, starts).tolist()
    for block, start in enumerate(range(0, size, rows)):
        of_block = slice(bounds[block], bounds[block + 1])
        yield start, min(start + rows, size), PositivePairs(positives.rows[of_block], positives.columns[of_block])
