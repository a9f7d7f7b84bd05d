"""One metadata field of many documents as an array, which decides which documents meet a condition.

Strings are stored as codes, which number the distinct values, and numbers as 64-bit floats. A field of lists is one
column of all list members. A column is saved as .npy files with a common stem.
"""

import functools
import itertools
import operator
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freemvmt.search.index.analysis import normalized
from freemvmt.search.stores.arrays import StoredStrings, damaged, read_array, write_array, write_strings
from freemvmt.search.stores.filters import FieldKind, kind_of, members_of

Mask = NDArray[np.bool_]
_DTYPES: dict[FieldKind, np.dtype[Any]] = {
    "string": np.dtype("<i4"), "number": np.dtype("<f8"), "boolean": np.dtype("i1"),
}  # fmt: skip
_OFFSET = np.dtype("<i8")
_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "gte": operator.ge, "gt": operator.gt, "lte": operator.le, "lt": operator.lt,
}  # fmt: skip


class Column(ABC):
    """The values of one field, one for each document; a document without a value meets no condition."""

    @abstractmethod
    def equals_any(self, values: Sequence[Any]) -> Mask:
        """Whether each document has one of ``values``."""

    @abstractmethod
    def within(self, bounds: Mapping[str, Any]) -> Mask:
        """Whether each document meets all of ``bounds``, whose keys are gte, gt, lte and lt."""

    @abstractmethod
    def write(self, stem: Path) -> None:
        """Save the column in files that begin with ``stem``, for ``read_column``."""

    def counts(self, mask: Mask) -> dict[str, int]:
        """How often each string occurs in the documents where ``mask`` is true; empty for other kinds."""
        return {}


class Lists(Column):
    """A list for each document, which may be empty. A document meets a condition if one member of its list does.

    Document i has ``members[offsets[i] : offsets[i + 1]]``; ``offsets`` is (documents + 1,).
    """

    def __init__(self, members: Column, offsets: NDArray[np.int64]) -> None:
        self.members, self.offsets = members, offsets

    def equals_any(self, values: Sequence[Any]) -> Mask:
        return self._any(self.members.equals_any(values))

    def within(self, bounds: Mapping[str, Any]) -> Mask:
        return self._any(self.members.within(bounds))

    def write(self, stem: Path) -> None:
        write_array(_file(stem), self.offsets)
        self.members.write(_members(stem))

    def counts(self, mask: Mask) -> dict[str, int]:
        return self.members.counts(np.repeat(mask, np.diff(self.offsets)))

    def _any(self, member_mask: Mask) -> Mask:
        totals = np.zeros(len(member_mask) + 1, np.int64)  # the number of matching members before each
        np.cumsum(member_mask, out=totals[1:])
        mask: Mask = totals[self.offsets[1:]] > totals[self.offsets[:-1]]
        return mask


class Strings(Column):
    """Strings as codes: each document has the number of its value among the distinct values, or -1 for no value.

    ``read`` returns the distinct values, and is called at the first use of the column.
    """

    def __init__(self, codes: NDArray[np.int32], read: Callable[[], list[str]]) -> None:
        self.codes, self._read = codes, read

    @classmethod
    def of(cls, values: Sequence[str | None]) -> "Strings":
        """A column of ``values``."""
        distinct: dict[str, int] = {}
        codes = [-1 if value is None else distinct.setdefault(value, len(distinct)) for value in values]
        return cls(np.array(codes, _DTYPES["string"]), lambda: list(distinct))

    @functools.cached_property
    def values(self) -> list[str]:
        """The distinct values as they are spelled, by code."""
        return self._read()

    @functools.cached_property
    def _forms(self) -> tuple[NDArray[np.int32], list[str]]:
        """The rank of each value's normalised form, by code, with -1 for code -1; and these forms in sorted order."""
        forms = [normalized(value) for value in self.values]
        ordered = sorted(set(forms))
        ranks = {form: rank for rank, form in enumerate(ordered)}
        return np.array([*(ranks[form] for form in forms), -1], np.int32), ordered

    def equals_any(self, values: Sequence[Any]) -> Mask:
        ranks, forms = self._forms
        matches = np.zeros(len(forms) + 1, np.bool_)  # rank -1 (no value) reads the last, which stays false
        for form in map(normalized, values):
            rank = bisect_left(forms, form)
            if rank < len(forms) and forms[rank] == form:
                matches[rank] = True
        mask: Mask = matches[ranks][self.codes]
        return mask

    def within(self, bounds: Mapping[str, Any]) -> Mask:
        ranks, forms = self._forms
        first, last = 0, len(forms)
        for sign, bound in bounds.items():
            rank = (bisect_left if sign in ("gte", "lt") else bisect_right)(forms, normalized(bound))
            first, last = (max(first, rank), last) if sign in ("gte", "gt") else (first, min(last, rank))
        mask: Mask = ((ranks >= first) & (ranks < last))[self.codes]
        return mask

    def write(self, stem: Path) -> None:
        write_array(_file(stem), self.codes)
        write_strings(_spellings(stem), self.values)

    def counts(self, mask: Mask) -> dict[str, int]:
        codes = self.codes[mask]
        counts = np.bincount(codes[codes >= 0], minlength=len(self.values)).tolist()
        return {value: count for value, count in zip(self.values, counts, strict=True) if count}


class Numbers(Column):
    """Numbers as floats (documents,); NaN, which meets no condition, means no value."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self._values = values

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Numbers":
        """A column of ``values``."""
        return cls(np.array(values, _DTYPES["number"]))  # None becomes NaN

    def equals_any(self, values: Sequence[Any]) -> Mask:
        return np.isin(self._values, np.array(values, np.float64))

    def within(self, bounds: Mapping[str, Any]) -> Mask:
        return functools.reduce(operator.and_, (_SIGNS[sign](self._values, bound) for sign, bound in bounds.items()))

    def write(self, stem: Path) -> None:
        write_array(_file(stem), self._values)


class Booleans(Column):
    """Booleans as 1 and 0 (documents,), with -1 for no value; they can be compared for equality only."""

    def __init__(self, values: NDArray[np.int8]) -> None:
        self._values = values

    @classmethod
    def of(cls, values: Sequence[bool | None]) -> "Booleans":
        """A column of ``values``."""
        return cls(np.array([-1 if value is None else value for value in values], _DTYPES["boolean"]))

    def equals_any(self, values: Sequence[Any]) -> Mask:
        return np.isin(self._values, np.array(values, np.int8))

    def within(self, bounds: Mapping[str, Any]) -> Mask:
        raise AssertionError("booleans have no order")

    def write(self, stem: Path) -> None:
        write_array(_file(stem), self._values)


def column_of(values: Sequence[Any], kind: FieldKind) -> Column:
    """A column of metadata values; a value that is not of ``kind`` counts as missing."""
    types: dict[FieldKind, type[Strings | Numbers | Booleans]] = {
        "string": Strings, "number": Numbers, "boolean": Booleans,
    }  # fmt: skip
    if not any(isinstance(value, list | tuple) for value in values):
        return types[kind].of([value if kind_of(value) == kind else None for value in values])
    lists = [members if kind_of((members := members_of(value) or [None])[0]) == kind else [] for value in values]
    offsets = np.zeros(len(lists) + 1, _OFFSET)
    np.cumsum([len(members) for members in lists], out=offsets[1:])
    return Lists(types[kind].of(list(itertools.chain.from_iterable(lists))), offsets)


def read_column(stem: Path, kind: FieldKind, rows: int) -> Column:
    """The column of ``rows`` documents in the files that begin with ``stem``; ``UserError`` when it is damaged."""
    values = read_array(_file(stem), _DTYPES[kind], _OFFSET)
    if values.dtype != _OFFSET:
        return _flat_column(stem, kind, values, rows)
    if len(values) != rows + 1 or values[0] != 0 or (np.diff(values) < 0).any():
        raise damaged(_file(stem), "lists that lie outside of their column")
    members = _members(stem)
    return Lists(_flat_column(members, kind, read_array(_file(members), _DTYPES[kind]), int(values[-1])), values)


def _flat_column(stem: Path, kind: FieldKind, values: NDArray[Any], size: int) -> Column:
    if len(values) != size:
        raise damaged(_file(stem), f"{len(values):,} values, not {size:,}")
    if kind == "number":
        return Numbers(values)
    if kind == "boolean":
        return Booleans(values)
    spellings = StoredStrings(_spellings(stem))
    spellings.check()
    if size and not -1 <= values.min() <= values.max() < len(spellings):
        raise damaged(_file(stem), "codes of no value")
    return Strings(values, spellings.all)


def _file(stem: Path) -> Path:
    """The file of the codes, numbers or booleans; of a column of lists, that of their offsets."""
    return Path(f"{stem}.npy")


def _members(stem: Path) -> Path:
    """The stem of the members of lists."""
    return Path(f"{stem}-members")


def _spellings(stem: Path) -> Path:
    """The stem of the distinct values of strings."""
    return Path(f"{stem}-spellings")
