"""One metadata field of many documents as an array, which decides which documents meet a condition.

Strings are stored as codes, which number the distinct values. Numbers are stored as integers, as floats, or, where
floats cannot hold all of them exactly, as one array of each. A field of lists is one column of all list members.
"""

import functools
import itertools
import math
import operator
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freemvmt.search.index.analysis import normalized
from freemvmt.search.stores.arrow import Array
from freemvmt.search.stores.filters import BEYOND, FieldKind, kind_of, members_of

Mask = NDArray[np.bool_]
_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq, "gte": operator.ge, "gt": operator.gt, "lte": operator.le, "lt": operator.lt,
}  # fmt: skip


class Column(ABC):
    """The values of one field, one for each document; a document without a value meets no condition."""

    @abstractmethod
    def equals_any(self, values: Sequence[Any]) -> Mask:
        """Whether each document has one of ``values``."""

    @abstractmethod
    def within(self, bounds: Mapping[str, Any]) -> Mask:
        """Whether each document meets all of ``bounds``, whose keys are gte, gt, lte and lt."""

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

    def counts(self, mask: Mask) -> dict[str, int]:
        return self.members.counts(np.repeat(mask, np.diff(self.offsets)))

    def _any(self, member_mask: Mask) -> Mask:
        totals = np.zeros(len(member_mask) + 1, np.int64)  # the number of matching members before each
        np.cumsum(member_mask, out=totals[1:])
        mask: Mask = totals[self.offsets[1:]] > totals[self.offsets[:-1]]
        return mask


class Strings(Column):
    """Strings as codes: each document has the number of its value among the distinct values, or -1 for no value.

    The codes are computed at their first use, which takes a third of a second for a million documents.
    """

    def __init__(self, read: Callable[[], Sequence[str | None]]) -> None:
        self._read = read

    @functools.cached_property
    def _spellings(self) -> tuple[NDArray[np.int32], list[str]]:
        return _encoded(self._read())

    @functools.cached_property
    def _folded(self) -> tuple[NDArray[np.int32], list[str]]:
        """Codes, and the distinct normalised values."""
        codes, spellings = self._spellings
        numbers, forms = _encoded([normalized(text) for text in spellings])
        return _renumbered(codes, numbers), forms

    @functools.cached_property
    def _number_of(self) -> dict[str, int]:
        return {form: number for number, form in enumerate(self._folded[1])}

    @functools.cached_property
    def _ordered(self) -> tuple[NDArray[np.int32], list[str]]:
        """Codes, and the distinct normalised values in sorted order."""
        codes, forms = self._folded
        order = sorted(range(len(forms)), key=forms.__getitem__)
        ranks = np.empty(len(forms), np.int32)
        ranks[order] = np.arange(len(forms), dtype=np.int32)
        return _renumbered(codes, ranks), [forms[number] for number in order]

    @property
    def codes(self) -> NDArray[np.int32]:
        """The code of each document, (documents,)."""
        return self._spellings[0]

    @property
    def values(self) -> list[str]:
        """The distinct values as they are spelled, by code."""
        return self._spellings[1]

    @classmethod
    def of(cls, values: Sequence[str | None]) -> "Strings":
        """A column of ``values``."""
        return cls(lambda: values)

    @classmethod
    def from_array(cls, array: Array) -> "Strings":
        """The column that ``array`` holds; ``ValueError`` when it is damaged."""
        offsets, text = array.offsets, array.values
        if offsets[0] < 0 or offsets[-1] > len(text) or (np.diff(offsets) < 0).any():
            raise ValueError("text that lies outside of its column")
        text.tobytes().decode()
        starts = offsets[offsets < len(text)]
        if ((text[starts] & 0xC0) == 0x80).any():  # a continuation byte of UTF-8
            raise ValueError("text that begins within a character")
        return cls(lambda: _texts(array))

    def equals_any(self, values: Sequence[Any]) -> Mask:
        codes, forms = self._folded
        matches = np.zeros(len(forms) + 1, np.bool_)  # code -1 (no value) reads the last, which stays false
        matches[[number for value in values if (number := self._number_of.get(normalized(value))) is not None]] = True
        mask: Mask = matches[codes]
        return mask

    def within(self, bounds: Mapping[str, Any]) -> Mask:
        codes, forms = self._ordered
        first, last = 0, len(forms)
        for sign, bound in bounds.items():
            rank = (bisect_left if sign in ("gte", "lt") else bisect_right)(forms, normalized(bound))
            first, last = (max(first, rank), last) if sign in ("gte", "gt") else (first, min(last, rank))
        return (codes >= first) & (codes < last)

    def counts(self, mask: Mask) -> dict[str, int]:
        codes = self.codes[mask]
        counts = np.bincount(codes[codes >= 0], minlength=len(self.values)).tolist()
        return {value: count for value, count in zip(self.values, counts, strict=True) if count}


def _encoded(values: Sequence[str | None]) -> tuple[NDArray[np.int32], list[str]]:
    """The code of each of ``values`` (-1 for None), and the distinct values by code."""
    distinct: dict[str, int] = {}
    codes = [-1 if value is None else distinct.setdefault(value, len(distinct)) for value in values]
    return np.array(codes, np.int32), list(distinct)


def _renumbered(codes: NDArray[np.int32], numbers: NDArray[np.int32]) -> NDArray[np.int32]:
    """``numbers[codes]``, where -1 stays -1."""
    new_codes: NDArray[np.int32] = np.append(numbers, np.int32(-1))[codes]
    return new_codes


def _texts(array: Array) -> list[str | None]:
    content, offsets = array.values.tobytes(), array.offsets.tolist()
    texts: list[str | None] = [content[start:stop].decode() for start, stop in itertools.pairwise(offsets)]
    if array.valid is None:
        return texts
    return [text if valid else None for text, valid in zip(texts, array.valid.tolist(), strict=True)]


@dataclass(frozen=True, eq=False)
class MaskedArray:
    """Integers, floats or booleans (documents,); ``there`` says which documents have a value."""

    values: NDArray[Any]
    there: Mask


class Numbers(Column):
    """Numbers that compare exactly: ``parts`` is one of integers, one of floats, or one of each."""

    def __init__(self, parts: Sequence[MaskedArray]) -> None:
        self.parts = parts

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Numbers":
        """A column of ``values``."""
        integers = [None if isinstance(value, float) else value for value in values]
        if not any(isinstance(value, float) for value in values):
            return cls([_part(integers, np.int64)])
        if all(value is None or float(value) == value for value in values):
            return cls([_part(values, np.float64)])
        floats = [value if isinstance(value, float) else None for value in values]
        return cls([_part(integers, np.int64), _part(floats, np.float64)])

    def equals_any(self, values: Sequence[Any]) -> Mask:
        return functools.reduce(operator.or_, (self.within({"eq": value}) for value in values))

    def within(self, bounds: Mapping[str, Any]) -> Mask:
        return functools.reduce(operator.or_, (self._within(part, bounds) for part in self.parts))

    def _within(self, part: MaskedArray, bounds: Mapping[str, Any]) -> Mask:
        return functools.reduce(operator.and_, (_holds(part.values, *bound) for bound in bounds.items()), part.there)


class Booleans(Column):
    """Booleans, which can be compared for equality only."""

    def __init__(self, part: MaskedArray) -> None:
        self.part = part

    def equals_any(self, values: Sequence[Any]) -> Mask:
        mask: Mask = np.isin(self.part.values, values) & self.part.there
        return mask

    def within(self, bounds: Mapping[str, Any]) -> Mask:
        raise AssertionError("booleans have no order")


def column_of(values: Sequence[Any], kind: FieldKind) -> Column:
    """A column of metadata values; a value that is not of ``kind`` counts as missing."""
    if not any(isinstance(value, list | tuple) for value in values):
        return _flat_column([value if kind_of(value) == kind else None for value in values], kind)
    lists = [members if kind_of((members := members_of(value) or [None])[0]) == kind else [] for value in values]
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(members) for members in lists], out=offsets[1:])
    return Lists(_flat_column(list(itertools.chain.from_iterable(lists)), kind), offsets)


def _flat_column(values: Sequence[Any], kind: FieldKind) -> Column:
    if kind == "string":
        return Strings.of(values)
    return Booleans(_part(values, np.bool_)) if kind == "boolean" else Numbers.of(values)


def _part(values: Sequence[Any], type: Any) -> MaskedArray:
    valid = np.array([value is not None for value in values], np.bool_)
    return MaskedArray(np.array([0 if value is None else value for value in values], type), valid)


def column_from_array(array: Array, kind: FieldKind, rows: int) -> Column | None:
    """The column that ``array`` of a file holds; None when it is not of ``kind``, ``ValueError`` when it is damaged."""
    if array.type == "list":
        offsets = array.offsets
        if len(offsets) != rows + 1 or offsets[0] != 0 or (np.diff(offsets) < 0).any():
            raise ValueError("lists that lie outside of their column")
        members = None if array.parts[0].type == "list" else column_from_array(array.parts[0], kind, int(offsets[-1]))
        return None if members is None else Lists(members, offsets)
    if kind == "string" and array.type == "text":
        return Strings.from_array(array) if len(array.offsets) == rows + 1 else None
    if kind == "boolean" and array.type == "boolean":
        return Booleans(_part_from_array(array, rows))
    if kind != "number":
        return None
    if array.type == "struct" and [part.type for part in array.parts] == ["int64", "float64"]:
        return Numbers([_part_from_array(part, rows) for part in array.parts])
    return Numbers([_part_from_array(array, rows)]) if array.type in ("int64", "float64") else None


def _part_from_array(array: Array, rows: int) -> MaskedArray:
    if len(array.values) != rows:
        raise ValueError("columns of different lengths")
    return MaskedArray(array.values, np.ones(rows, np.bool_) if array.valid is None else array.valid)


def _holds(values: NDArray[Any], sign: str, bound: Any) -> Mask:
    """Whether each of ``values`` meets ``sign bound``; exact also between integers and floats."""
    if values.dtype == np.int64 and isinstance(bound, float):
        sign, bound = _integer_bound(sign, bound)
    elif values.dtype == np.float64 and isinstance(bound, int):
        sign, bound = _float_bound(sign, bound)
    if bound is None:
        return np.zeros(len(values), np.bool_)
    mask: Mask = _SIGNS[sign](values, bound)
    return mask


def _integer_bound(sign: str, bound: float) -> tuple[str, int | None]:
    """The comparison with a float as one with an integer of 64 bits; None when no integer equals the float."""
    if sign == "eq":
        return sign, int(bound) if bound.is_integer() and -BEYOND <= bound < BEYOND else None
    number = math.ceil(bound) if sign in ("gte", "lt") else math.floor(bound)
    if number >= BEYOND:
        return ("gt" if sign in ("gte", "gt") else "lte"), BEYOND - 1
    if number < -BEYOND:
        return ("gte" if sign in ("gte", "gt") else "lt"), -BEYOND
    return sign, number


def _float_bound(sign: str, bound: int) -> tuple[str, float | None]:
    """The comparison with an integer as one with the nearest float; None when no float equals the integer."""
    nearest = float(bound)
    if nearest == bound:
        return sign, nearest
    if sign == "eq":
        return sign, None
    if sign in ("gte", "gt"):
        return ("gte" if nearest > bound else "gt"), nearest
    return ("lte" if nearest < bound else "lt"), nearest
