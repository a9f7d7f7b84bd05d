"""The matrix of all cosines of a batch, only ever seen a few rows at a time.

What a loss needs of it is small, and so is its gradient: losses write theirs out instead of leaving it to autograd,
which would keep the matrix, twice or more.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from freemvmt.learning.negatives import Known

_CELLS = 2**22  # of the matrix that are looked at together: 16 MB


def similarities(queries: Tensor, documents: Tensor, precision: torch.dtype) -> Tensor:
    """Cosines of all pairs, multiplied in ``precision``."""
    return queries.to(precision) @ documents.to(precision).T


def blocks(size: int, known: Known) -> Iterator[tuple[int, int, Known]]:
    """(first row, one beyond the last, the known pairs of these rows) of each block of the matrix of all pairs."""
    rows = max(1, _CELLS // max(size, 1))
    starts = torch.arange(0, size + rows, rows, device=known.rows.device)
    bounds = torch.searchsorted(known.rows, starts).tolist()
    for block, start in enumerate(range(0, size, rows)):
        inside = slice(bounds[block], bounds[block + 1])
        yield start, min(start + rows, size), Known(known.rows[inside], known.columns[inside])
