"""Metadata as typed columns, which decide exactly which documents meet a filter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from freemvmt.errors import UserError
from freemvmt.search.stores.arrow import read_arrow
from freemvmt.search.stores.column import Column, Mask, column_from_array, column_of
from freemvmt.search.stores.filters import FieldKind, Filter


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
    def read(cls, path: Path, kinds: Mapping[str, FieldKind]) -> "Columns":
        """The columns in a bundle's fields.arrow; ``UserError`` unless there is a valid one for each of ``kinds``."""
        try:
            batches = read_arrow(path)
            if len(batches) != 1:
                raise ValueError(f"{len(batches)} batches, not one")
            (batch,) = batches
            if missing := [name for name in kinds if name not in batch.columns]:
                raise ValueError(f"no column {missing[0]!r}")
            columns = {name: column_from_array(batch.columns[name], kind, batch.rows) for name, kind in kinds.items()}
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}); index the corpus again") from error
        if mismatches := [name for name, column in columns.items() if column is None]:
            raise UserError(
                f"{path} has columns of other kinds than the bundle names ({mismatches[0]}); index the corpus again"
            )
        return cls(batch.rows, {name: column for name, column in columns.items() if column is not None}, kinds)

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
