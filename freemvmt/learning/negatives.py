"""Which passages of a batch may serve as negatives: all but those known to answer the query."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from freemvmt.text.arrays import IdLists


@dataclass(frozen=True, eq=False)
class Known:
    """The pairs of a batch that are known to belong together, or to be one text: query ``rows[k]`` with passage
    ``columns[k]`` (int64)."""

    rows: Tensor
    columns: Tensor

    def to(self, device: torch.device) -> "Known":
        """The same on ``device``."""
        return Known(self.rows.to(device), self.columns.to(device))

    def others(self) -> "Known":
        """Those off the diagonal: all but the pairs that the batch is made of."""
        return self._where(self.rows != self.columns)

    def within(self, size: int) -> "Known":
        """Those of the first ``size`` passages."""
        return self._where(self.columns < size)

    def _where(self, kept: Tensor) -> "Known":
        return self if bool(kept.all()) else Known(self.rows[kept], self.columns[kept])


def known_positives(queries: NDArray[np.int64], passages: NDArray[np.int64], positives: IdLists) -> Known:
    """Every (i, j) such that passage ``passages[j]`` is known to answer query ``queries[i]``, by rows.

    The diagonal is in it, and so is every second copy of a pair's passage: neither is ever a negative. There may be
    more passages than queries.
    """
    order = np.argsort(passages, kind="stable")
    in_order = passages[order]
    answers = positives.take(queries)  # every passage that answers each query of the batch
    first = np.searchsorted(in_order, answers.ids, side="left")
    copies = np.searchsorted(in_order, answers.ids, side="right") - first
    rows = np.repeat(np.repeat(np.arange(len(queries)), answers.lengths), copies)
    within = np.arange(copies.sum()) - np.repeat(np.cumsum(copies) - copies, copies)
    columns = order[np.repeat(first, copies) + within]
    return Known(torch.from_numpy(rows), torch.from_numpy(columns))


def draw_given(
    queries: NDArray[np.int64], negatives: IdLists, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(a passage drawn from the given negatives of each query that has some; for each query its place among these, -1
    where it has none)."""
    lengths = negatives.lengths[queries]
    has = lengths > 0
    position = negatives.offsets[queries] + (generator.random(len(queries)) * lengths).astype(np.int64)
    place = np.where(has, np.cumsum(has) - 1, -1)
    return negatives.ids[position[has]].astype(np.int64), place
