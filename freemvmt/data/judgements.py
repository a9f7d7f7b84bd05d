"""Rows of any file in one form: queries, passages, and whether a passage answers the query of its row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Judgements:
    """What the rows of one data set say.

    ``queries``: one text a row; ``passages``: all rows' passages, one behind the other, each distinct text held once;
    ``rows``: for each passage, the row it stands in (int64); ``labels``: for each passage, whether it answers that
    row's query (bool).
    """

    queries: pa.LargeStringArray
    passages: pa.DictionaryArray
    rows: NDArray[np.int64]
    labels: NDArray[np.bool_]

    @classmethod
    def join(cls, parts: Sequence["Judgements"]) -> "Judgements":
        """One behind the other."""
        if len(parts) == 1:
            return parts[0]
        first = np.cumsum([0, *(len(part.queries) for part in parts)])
        return cls(
            pa.concat_arrays([part.queries for part in parts]),
            pa.concat_arrays([part.passages for part in parts]),
            np.concatenate([part.rows + start for part, start in zip(parts, first, strict=False)]),
            np.concatenate([part.labels for part in parts]),
        )

    def cut(self, rows: int) -> tuple["Judgements", "Judgements"]:
        """(the first ``rows`` rows, the others)."""
        head = self.rows < rows
        first = Judgements(self.queries[:rows], self._passages_of(head), self.rows[head], self.labels[head])
        rest = Judgements(self.queries[rows:], self._passages_of(~head), self.rows[~head] - rows, self.labels[~head])
        return first, rest

    def _passages_of(self, kept: NDArray[np.bool_]) -> pa.DictionaryArray:
        return self.passages.filter(pa.array(kept))


def from_pairs(pairs: Iterable[tuple[str, list[str], list[str]]]) -> Judgements:
    """From (query, passages that answer it, passages that do not)."""
    return from_rows(
        (query, positives + negatives, [True] * len(positives) + [False] * len(negatives))
        for query, positives, negatives in pairs
    )


def from_rows(labelled: Iterable[tuple[str, list[str], list[bool]]]) -> Judgements:
    """From (query, passages, whether each answers it)."""
    queries: list[str] = []
    passages: list[str] = []
    rows: list[int] = []
    labels: list[bool] = []
    for row, (query, texts, marks) in enumerate(labelled):
        queries.append(query)
        passages += texts
        rows += [row] * len(texts)
        labels += marks
    return Judgements(
        pa.array(queries, pa.large_string()),
        pa.array(passages, pa.large_string()).dictionary_encode(),
        np.array(rows, np.int64),
        np.array(labels, np.bool_),
    )
