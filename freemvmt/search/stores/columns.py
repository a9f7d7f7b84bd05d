"""Metadata as typed columns, which decide exactly which documents meet a filter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from freemvmt.search.stores.column import Column, Mask, column_of, read_column
from freemvmt.search.stores.filters import FieldKind, Filter, short_hash
from freemvmt.search.stores.layout import FIELDS_FOLDER


class Columns:
    """A column for each metadata field of ``size`` documents."""

    def __init__(self, size: int, columns: Mapping[str, Column], kinds: Mapping[str, FieldKind]) -> None:
        self.size = size
        self.columns = columns
        self.kinds = dict(kinds)

    def __len__(self) -> int:
        return self.size

    @classmethod
    def of(cls, metadata: Sequence[Mapping[str, Any]], kinds: Mapping[str, FieldKind]) -> "Columns":
        """A column for each of ``kinds``, with a row for each of ``metadata``."""
        columns = {name: column_of([item.get(name) for item in metadata], kind) for name, kind in kinds.items()}
        return cls(len(metadata), columns, kinds)

    @classmethod
    def read(cls, folder: Path, kinds: Mapping[str, FieldKind], size: int) -> "Columns":
        """The columns of the bundle in ``folder``; ``UserError`` unless there is a valid one for each of ``kinds``."""
        return cls(size, {name: read_column(_stem(folder, name), kind, size) for name, kind in kinds.items()}, kinds)

    def write(self, folder: Path) -> None:
        """Save the columns into the bundle in ``folder``."""
        (folder / FIELDS_FOLDER).mkdir()
        for name, column in self.columns.items():
            column.write(_stem(folder, name))

    def mask(self, conditions: Filter) -> Mask:
        """Whether each document meets ``conditions``, which ``filters.check`` has accepted."""
        mask = np.ones(self.size, np.bool_)
        for name, condition in conditions.items():
            mask &= self._meets(name, condition)
        return mask

    def _meets(self, name: str, condition: Any) -> Mask:
        if name not in self.columns:
            return np.zeros(self.size, np.bool_)
        column = self.columns[name]
        if isinstance(condition, dict):
            return column.within(condition)
        return column.equals_any(condition if isinstance(condition, list) else [condition])

    def counts(self, name: str, mask: Mask) -> dict[str, int]:
        """How often each spelling of a string field occurs in the documents where ``mask`` is true."""
        column = self.columns.get(name)
        return {} if column is None else column.counts(mask)


def _stem(folder: Path, name: str) -> Path:
    """How the files of the field ``name`` begin; a name may hold what no file name may."""
    return folder / FIELDS_FOLDER / short_hash(name)
