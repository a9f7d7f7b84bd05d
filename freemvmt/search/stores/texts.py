"""The documents of a bundle, read by row from a memory-mapped file."""

import bisect
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from freemvmt.data.documents import Document, unchecked_document
from freemvmt.errors import UserError
from freemvmt.search.stores.arrow import Array, Batch, read_arrow

TEXTS = ("id", "title", "text", "metadata")  # the columns of documents.arrow
_ARGUMENTS = ("id", "text", "title", "metadata")  # in the order of ``unchecked_document``


class Texts:
    """The documents in documents.arrow, whose columns are id, title, text and metadata (as JSON)."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = [[_Strings(batch.columns[name]) for name in _ARGUMENTS] for batch in batches]
        self._starts = list(itertools.accumulate((batch.rows for batch in batches), initial=0))

    @classmethod
    def read(cls, path: Path) -> "Texts":
        """Open the file at ``path``; ``UserError`` when it is not documents.arrow of a bundle."""
        try:
            batches = read_arrow(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}); index the corpus again") from error
        for batch in batches:
            if [(name, array.type) for name, array in batch.columns.items()] != [(name, "text") for name in TEXTS]:
                raise UserError(f"{path} has other columns than a bundle's; index the corpus again")
        return cls(batches)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: int) -> Document:
        columns, offset = self._place(row)
        name, text, title, metadata = (column[offset] for column in columns)
        return unchecked_document(name, text, title, {} if metadata == "{}" else json.loads(metadata))

    def id_of(self, row: int) -> str:
        """The id of the document in ``row``, without reading the rest."""
        columns, offset = self._place(row)
        return columns[0][offset]

    def _place(self, row: int) -> "tuple[list[_Strings], int]":
        batch = bisect.bisect_right(self._starts, row) - 1
        return self._batches[batch], row - self._starts[batch]


class _Strings:
    """A column of text, decoded row by row."""

    def __init__(self, array: Array) -> None:
        self._offsets = array.offsets
        self._data = memoryview(array.values.data)

    def __getitem__(self, row: int) -> str:
        return str(self._data[self._offsets[row] : self._offsets[row + 1]], "utf-8")
