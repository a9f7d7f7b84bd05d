"""The choice of negatives for a batch. A passage that answers the query, as far as known, is never a negative."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from freemvmt.config import Negatives
from freemvmt.data.ragged import IdLists
from freemvmt.losses.similarity import PositivePairs, blocks, similarities


def known_positives(queries: NDArray[np.int64], passages: NDArray[np.int64], positives: IdLists) -> PositivePairs:
    """Every (i, j) such that passage ``passages[j]`` is known to answer query ``queries[i]``, sorted by i.

    This includes the diagonal and further copies of a pair's passage. There may be more passages than queries.
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


def draw_given_negatives(
    queries: NDArray[np.int64], negatives: IdLists, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw one of its given negatives for each query that has some.

    Returns (the drawn passages; for each query the row of its passage among them, -1 where it has none).
    """
    lengths = negatives.lengths[queries]
    has_negatives = lengths > 0
    position = negatives.offsets[queries] + (generator.random(len(queries)) * lengths).astype(np.int64)
    row = np.where(has_negatives, np.cumsum(has_negatives) - 1, -1)
    return negatives.ids[position[has_negatives]].astype(np.int64), row


_GROUP = 64  # cells: the largest of a row is searched first among groups, then within one


class InBatchNegatives:
    """The choice of one negative for each query and for each document of a batch.

    ``hardest``: the nearest (Hermans et al. 2017, In Defense of the Triplet Loss). ``semi-hard``: the nearest of those
    that are farther than the positive (Schroff et al. 2015, FaceNet). ``random``: any.
    """

    def __init__(self, negatives: Negatives, precision: torch.dtype, seed: int) -> None:
        self._negatives, self._precision = negatives, precision
        self.generator = torch.Generator().manual_seed(seed)
        self._memory = torch.empty(0, 0)  # the blocks of the matrix are written here: allocated once for a training

    @torch.no_grad()
    def choose(self, queries: Tensor, documents: Tensor, positives: PositivePairs) -> tuple[Tensor, Tensor]:
        """(a document for each query, a query for each document), (batch,); -1 where no negative is left.

        Vectors are (batch, dim) and of length 1. ``positives`` are never chosen.
        """
        size, device = len(queries), queries.device
        positive_cosine = (queries * documents).sum(1)
        document_of_query = torch.empty(size, dtype=torch.int64, device=device)
        query_of_document = torch.full((size,), -1, dtype=torch.int64, device=device)
        best = torch.full((size,), -torch.inf, device=device)  # score of each document's choice, over the blocks so far
        for start, stop, block_positives in blocks(size, positives):
            scores = self._buffer(stop - start, size, device)  # whole groups, padded with -inf
            filled = scores[: stop - start, :size]
            if self._negatives == "random":
                filled.copy_(torch.rand((stop - start, size), generator=self.generator))
            elif self._precision == torch.float32:
                torch.mm(queries[start:stop], documents.T, out=filled)
            else:
                filled.copy_(similarities(queries[start:stop], documents, self._precision))
            scores[block_positives.rows - start, block_positives.columns] = -torch.inf
            column_scores = scores
            if self._negatives == "semi-hard":
                column_scores = scores.clone()
                column_scores[: stop - start, :size].masked_fill_(filled >= positive_cosine, -torch.inf)
                filled.masked_fill_(filled >= positive_cosine[start:stop].unsqueeze(1), -torch.inf)
            row_best, columns = _largest_of_rows(scores)
            row_best, columns = row_best[: stop - start], columns[: stop - start]
            document_of_query[start:stop] = columns.masked_fill(row_best == -torch.inf, -1)
            column_best, rows = _largest_of_columns(column_scores)
            column_best, rows = column_best[:size], rows[:size]
            better = column_best > best
            query_of_document[better] = rows[better] + start
            best = torch.maximum(best, column_best)
        return document_of_query, query_of_document

    def _buffer(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Memory for (rows, columns), each rounded up to whole groups; the padding is -inf."""
        shape = tuple(-(-length // _GROUP) * _GROUP for length in (rows, columns))
        if self._memory.shape != shape or self._memory.device != device:
            self._memory = torch.empty(shape, device=device)
        self._memory[rows:] = -torch.inf
        self._memory[:, columns:] = -torch.inf
        return self._memory


def _largest_of_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(largest value of each row, its column), by groups: a maximum is fast, its position is slow."""
    groups = matrix.view(len(matrix), -1, _GROUP)
    group = groups.amax(2).argmax(1)
    largest, place = groups[torch.arange(len(matrix), device=matrix.device), group].max(1)
    return largest, group * _GROUP + place


def _largest_of_columns(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(largest value of each column, its row)."""
    groups = matrix.view(-1, _GROUP, matrix.shape[1])
    group = groups.amax(1).argmax(0)
    largest, place = groups[group, :, torch.arange(matrix.shape[1], device=matrix.device)].max(1)
    return largest, group * _GROUP + place
