"""The rows of any training file in one form: queries, passages, and whether a passage answers its query."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray


def numbers(column: pa.Array, dtype: DTypeLike) -> NDArray[Any]:
    """The numbers or truth values of a column without nulls; ``to_numpy`` would import pandas, which takes 0.5 s."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    return np.from_dlpack(column).astype(dtype)


def strings(texts: Sequence[str]) -> pa.LargeStringArray:
    """A column of ``texts``; ``pyarrow.array`` would import pandas."""
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.large_string(), len(encoded), buffers)


def index_column(values: NDArray[np.int64]) -> pa.Int64Array:
    """A column of ``values``; ``pyarrow.array`` would import pandas."""
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])


@dataclass(frozen=True, eq=False)
class Judgements:
    """The rows of a data set.

    ``queries``: one text for each row. ``passages``: the passages of all rows in order; the dictionary holds each
    distinct text once. ``rows``: the row of each passage. ``labels``: whether each passage answers its row's query.
    """

    queries: pa.LargeStringArray
    passages: pa.DictionaryArray
    rows: NDArray[np.int64]
    labels: NDArray[np.bool_]

    @classmethod
    def join(cls, chunks: Sequence["Judgements"]) -> "Judgements":
        """The rows of all ``chunks`` in order."""
        if len(chunks) == 1:
            return chunks[0]
        first_rows = np.cumsum([0, *(len(chunk.queries) for chunk in chunks)])
        return cls(
            pa.concat_arrays([chunk.queries for chunk in chunks]),
            pa.concat_arrays([chunk.passages for chunk in chunks]),
            np.concatenate([chunk.rows + start for chunk, start in zip(chunks, first_rows, strict=False)]),
            np.concatenate([chunk.labels for chunk in chunks]),
        )

    def cut(self, rows: int) -> tuple["Judgements", "Judgements"]:
        """(the first ``rows`` rows, the rest)."""
        head = self.rows < rows
        first = Judgements(self.queries[:rows], self._filter_passages(head), self.rows[head], self.labels[head])
        rest = Judgements(
            self.queries[rows:], self._filter_passages(~head), self.rows[~head] - rows, self.labels[~head]
        )
        return first, rest

    def _filter_passages(self, mask: NDArray[np.bool_]) -> pa.DictionaryArray:
        return self.passages.take(index_column(np.flatnonzero(mask)))


def from_pairs(pairs: Iterable[tuple[str, list[str], list[str]]]) -> Judgements:
    """Judgements from tuples (query, positives, negatives)."""
    return from_rows(
        (query, positives + negatives, [True] * len(positives) + [False] * len(negatives))
        for query, positives, negatives in pairs
    )


def from_rows(labelled_rows: Iterable[tuple[str, list[str], list[bool]]]) -> Judgements:
    """Judgements from tuples (query, passages, whether each passage answers the query)."""
    queries: list[str] = []
    passages: list[str] = []
    rows: list[int] = []
    labels: list[bool] = []
    for row, (query, texts, row_labels) in enumerate(labelled_rows):
        queries.append(query)
        passages += texts
        rows += [row] * len(texts)
        labels += row_labels
    return Judgements(
        strings(queries),
        strings(passages).dictionary_encode(),
        np.array(rows, np.int64),
        np.array(labels, np.bool_),
    )
