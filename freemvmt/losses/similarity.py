"""The matrix of all cosines of a batch, only ever seen a few rows at a time.

What a loss needs of it is small, and so is its gradient: losses write theirs out instead of leaving it to autograd,
which would keep the matrix, twice or more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_CELLS = 2**22  # of the matrix that are looked at together: 16 MB


@dataclass(frozen=True, eq=False)
class PositivePairs:
    """The pairs of a batch that are known to belong together, or to be one text: query ``rows[k]`` with passage
    ``columns[k]`` (int64)."""

    rows: Tensor
    columns: Tensor

    def to(self, device: torch.device) -> "PositivePairs":
        """The same on ``device``."""
        return PositivePairs(self.rows.to(device), self.columns.to(device))

    def others(self) -> "PositivePairs":
        """Those off the diagonal: all but the pairs that the batch is made of."""
        return self._where(self.rows != self.columns)

    def within(self, size: int) -> "PositivePairs":
        """Those of the first ``size`` passages."""
        return self._where(self.columns < size)

    def _where(self, kept: Tensor) -> "PositivePairs":
        return self if bool(kept.all()) else PositivePairs(self.rows[kept], self.columns[kept])


def similarities(queries: Tensor, documents: Tensor, precision: torch.dtype) -> Tensor:
    """Cosines of all pairs, multiplied in ``precision``."""
    return queries.to(precision) @ documents.to(precision).T


def blocks(size: int, known: PositivePairs) -> Iterator[tuple[int, int, PositivePairs]]:
    """(first row, one beyond the last, the known pairs of these rows) of each block of the matrix of all pairs."""
    rows = max(1, _CELLS // max(size, 1))
    starts = torch.arange(0, size + rows, rows, device=known.rows.device)
    bounds = torch.searchsorted(known.rows, starts).tolist()
    for block, start in enumerate(range(0, size, rows)):
        inside = slice(bounds[block], bounds[block + 1])
        yield start, min(start + rows, size), PositivePairs(known.rows[inside], known.columns[inside])
