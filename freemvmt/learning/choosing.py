"""Which negative each query and each passage of a batch is held against, looked for in blocks of the cosines."""

import torch
from torch import Tensor

from freemvmt.config import Negatives
from freemvmt.learning.blocks import blocks, similarities
from freemvmt.learning.negatives import Known

_GROUP = 64  # numbers among which a largest one is looked for in two steps


class Chooser:
    """Chooses by ``negatives``: ``hardest``, the nearest (Hermans et al. 2017, In Defense of the Triplet Loss);
    ``semi-hard``, the nearest of those farther than the positive (Schroff et al. 2015, FaceNet); ``random``, any."""

    def __init__(self, negatives: Negatives, precision: torch.dtype, seed: int) -> None:
        self._negatives, self._precision = negatives, precision
        self.generator = torch.Generator().manual_seed(seed)
        self._cells = torch.empty(0, 0)  # where blocks of the matrix are written: one place for all of a training

    @torch.no_grad()
    def choose(self, queries: Tensor, documents: Tensor, known: Known) -> tuple[Tensor, Tensor]:
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
