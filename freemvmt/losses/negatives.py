"""Which passages of a batch serve as negatives, and which never may: those known to answer the query."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from freemvmt.config import Negatives
from freemvmt.data.ragged import IdLists
from freemvmt.losses.similarity import PositivePairs, blocks, similarities


def known_positives(queries: NDArray[np.int64], passages: NDArray[np.int64], positives: IdLists) -> PositivePairs:
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
    return PositivePairs(torch.from_numpy(rows), torch.from_numpy(columns))


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


_GROUP = 64  # numbers among which a largest one is looked for in two steps


class InBatchNegatives:
    """Chooses by ``negatives``: ``hardest``, the nearest (Hermans et al. 2017, In Defense of the Triplet Loss);
    ``semi-hard``, the nearest of those farther than the positive (Schroff et al. 2015, FaceNet); ``random``, any."""

    def __init__(self, negatives: Negatives, precision: torch.dtype, seed: int) -> None:
        self._negatives, self._precision = negatives, precision
        self.generator = torch.Generator().manual_seed(seed)
        self._cells = torch.empty(0, 0)  # where blocks of the matrix are written: one place for all of a training

    @torch.no_grad()
    def choose(self, queries: Tensor, documents: Tensor, known: PositivePairs) -> tuple[Tensor, Tensor]:
        """(a document for each query, a query for each document), (batch,); -1 where there is none to choose.

        Vectors are (batch, dim) and of length 1; what is ``known`` to belong together is not chosen.
        """
        size, device = len(queries), queries.device
        positive = (queries * documents).sum(1)
        document_of_query = torch.empty(size, dtype=torch.int64, device=device)
        query_of_document = torch.full((size,), -1, dtype=torch.int64, device=device)
        best = torch.full((size,), -torch.inf, device=device)  # for each document, over the blocks so far
        for start, stop, inside in blocks(size, known):
            ranks = self._room(stop - start, size, device)  # groups are whole: what lies beyond is -inf
            filled = ranks[: stop - start, :size]
            if self._negatives == "random":
                filled.copy_(torch.rand((stop - start, size), generator=self.generator))
            elif self._precision == torch.float32:
                torch.mm(queries[start:stop], documents.T, out=filled)
            else:
                filled.copy_(similarities(queries[start:stop], documents, self._precision))
            ranks[inside.rows - start, inside.columns] = -torch.inf
            of_columns = ranks
            if self._negatives == "semi-hard":
                of_columns = ranks.clone()
                of_columns[: stop - start, :size].masked_fill_(filled >= positive, -torch.inf)
                filled.masked_fill_(filled >= positive[start:stop].unsqueeze(1), -torch.inf)
            row_best, columns = _largest_of_rows(ranks)
            row_best, columns = row_best[: stop - start], columns[: stop - start]
            document_of_query[start:stop] = columns.masked_fill(row_best == -torch.inf, -1)
            column_best, rows = _largest_of_columns(of_columns)
            column_best, rows = column_best[:size], rows[:size]
            better = column_best > best
            query_of_document[better] = rows[better] + start
            best = torch.maximum(best, column_best)
        return document_of_query, query_of_document

    def _room(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Room for (rows, columns), each rounded up to whole groups, with -inf in what is beyond."""
        shape = tuple(-(-length // _GROUP) * _GROUP for length in (rows, columns))
        if self._cells.shape != shape or self._cells.device != device:
            self._cells = torch.empty(shape, device=device)
        self._cells[rows:] = -torch.inf
        self._cells[:, columns:] = -torch.inf
        return self._cells


def _largest_of_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(largest number of each row, its column), by groups: finding where is slow, finding how large is fast."""
    groups = matrix.view(len(matrix), -1, _GROUP)
    group = groups.amax(2).argmax(1)
    largest, place = groups[torch.arange(len(matrix), device=matrix.device), group].max(1)
    return largest, group * _GROUP + place


def _largest_of_columns(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(largest number of each column, its row)."""
    groups = matrix.view(-1, _GROUP, matrix.shape[1])
    group = groups.amax(1).argmax(0)
    largest, place = groups[group, :, torch.arange(matrix.shape[1], device=matrix.device)].max(1)
    return largest, group * _GROUP + place
