"""One field of many documents as an array: which documents meet a condition on it.

Text is kept as the number of each value among those that there are; numbers as whole ones, as floats, or, where no
float holds all of them, as both: each in a column of its own. Where a field holds lists, the column is of all members.
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
from freemvmt.search.stores.filters import BEYOND, Kind, kind_of, members_of

Mask = NDArray[np.bool_]
_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq, "gte": operator.ge, "gt": operator.gt, "lte": operator.le, "lt": operator.lt,
}  # fmt: skip


class Column(ABC):
    """The values of one field, one a document; a document without one meets no condition."""

    @abstractmethod
    def among(self, values: Sequence[Any]) -> Mask:
        """Which are one of ``values``."""

    @abstractmethod
    def within(self, bounds: Mapping[str, Any]) -> Mask:
        """Which are within all of ``bounds``: gte, gt, lte, lt."""

    def counts(self, among: Mask) -> dict[str, int]:
        """How often each text stands in the documents of ``among``, as it is written; nothing of other kinds."""
        return {}


class Lists(Column):
    """A list a document, perhaps an empty one: document i has the ``members`` from ``offsets`` (documents + 1,) [i] to
    [i + 1]. It meets a condition where one of its members does."""

    def __init__(self, members: Column, offsets: NDArray[np.int64]) -> None:
        self.members, self.offsets = members, offsets

    def among(self, values: Sequence[Any]) -> Mask:
        return self._any(self.members.among(values))

    def within(self, bounds: Mapping[str, Any]) -> Mask:
        return self._any(self.members.within(bounds))

    def counts(self, among: Mask) -> dict[str, int]:
        return self.members.counts(np.repeat(among, np.diff(self.offsets)))

    def _any(self, met: Mask) -> Mask:
        before = np.zeros(len(met) + 1, np.int64)  # so many members before each one meet it
        np.cumsum(met, out=before[1:])
        found: Mask = before[self.offsets[1:]] > before[self.offsets[:-1]]
        return found


class Strings(Column):
    """Text: the number of each document's value, -1 for none, among those that there are.

    Numbers are given when they are first needed: for a million documents that takes a third of a second.
    """

    def __init__(self, read: Callable[[], Sequence[str | None]]) -> None:
        self._read = read

    @functools.cached_property
    def _spelled(self) -> tuple[NDArray[np.int32], list[str]]:
        return _numbered(self._read())

    @functools.cached_property
    def _folded(self) -> tuple[NDArray[np.int32], list[str]]:
        """By the form in which texts compare."""
        codes, spellings = self._spelled
        numbers, forms = _numbered([normalized(text) for text in spellings])
        return _renumbered(codes, numbers), forms

    @functools.cached_property
    def _known(self) -> dict[str, int]:
        return {form: number for number, form in enumerate(self._folded[1])}

    @functools.cached_property
    def _ordered(self) -> tuple[NDArray[np.int32], list[str]]:
        """The same, in the order of these forms."""
        codes, forms = self._folded
        order = sorted(range(len(forms)), key=forms.__getitem__)
        places = np.empty(len(forms), np.int32)
        places[order] = np.arange(len(forms), dtype=np.int32)
        return _renumbered(codes, places), [forms[number] for number in order]

    @property
    def codes(self) -> NDArray[np.int32]:
        """(documents,)"""
        return self._spelled[0]

    @property
    def values(self) -> list[str]:
        """Those that there are, as they are written, by number."""
        return self._spelled[1]

    @classmethod
    def of(cls, values: Sequence[str | None]) -> "Strings":
        """A column of ``values``."""
        return cls(lambda: values)

    @classmethod
    def stored(cls, array: Array) -> "Strings":
        """A column of a file; ``ValueError`` where it is not sound."""
        offsets, text = array.offsets, array.values
        if offsets[0] < 0 or offsets[-1] > len(text) or (np.diff(offsets) < 0).any():
            raise ValueError("text that lies outside of its column")
        text.tobytes().decode()
        starts = offsets[offsets < len(text)]
        if ((text[starts] & 0xC0) == 0x80).any():  # UTF-8 goes on here
            raise ValueError("text that begins within a character")
        return cls(lambda: _texts(array))

    def among(self, values: Sequence[Any]) -> Mask:
        codes, forms = self._folded
        chosen = np.zeros(len(forms) + 1, np.bool_)  # the last one, which -1 names, is no value
        chosen[[number for value in values if (number := self._known.get(normalized(value))) is not None]] = True
        found: Mask = chosen[codes]
        return found

    def within(self, bounds: Mapping[str, Any]) -> Mask:
        codes, forms = self._ordered
        first, last = 0, len(forms)
        for sign, bound in bounds.items():
            place = (bisect_left if sign in ("gte", "lt") else bisect_right)(forms, normalized(bound))
            first, last = (max(first, place), last) if sign in ("gte", "gt") else (first, min(last, place))
        return (codes >= first) & (codes < last)

    def counts(self, among: Mask) -> dict[str, int]:
        codes = self.codes[among]
        counts = np.bincount(codes[codes >= 0], minlength=len(self.values)).tolist()
        return {value: count for value, count in zip(self.values, counts, strict=True) if count}


def _numbered(values: Sequence[str | None]) -> tuple[NDArray[np.int32], list[str]]:
    """The number of each of ``values`` among the distinct ones, -1 for None; and these."""
    known: dict[str, int] = {}
    codes = [-1 if value is None else known.setdefault(value, len(known)) for value in values]
    return np.array(codes, np.int32), list(known)


def _renumbered(codes: NDArray[np.int32], numbers: NDArray[np.int32]) -> NDArray[np.int32]:
    """``numbers`` of ``codes``; -1 stays."""
    found: NDArray[np.int32] = np.append(numbers, np.int32(-1))[codes]
    return found


def _texts(array: Array) -> list[str | None]:
    whole, ends = array.values.tobytes(), array.offsets.tolist()
    texts: list[str | None] = [whole[start:stop].decode() for start, stop in itertools.pairwise(ends)]
    if array.valid is None:
        return texts
    return [text if there else None for text, there in zip(texts, array.valid.tolist(), strict=True)]


@dataclass(frozen=True, eq=False)
class Part:
    """Numbers of one kind, or booleans, (documents,), and which of them are there."""

    values: NDArray[Any]
    there: Mask


class Numbers(Column):
    """Numbers, which compare exactly: whole ones, floats, or a part of each."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Numbers":
        """A column of ``values``."""
        whole = [None if isinstance(value, float) else value for value in values]
        if not any(isinstance(value, float) for value in values):
            return cls([_part(whole, np.int64)])
        if all(value is None or float(value) == value for value in values):
            return cls([_part(values, np.float64)])
        fractions = [value if isinstance(value, float) else None for value in values]
        return cls([_part(whole, np.int64), _part(fractions, np.float64)])

    def among(self, values: Sequence[Any]) -> Mask:
        return functools.reduce(operator.or_, (self.within({"eq": value}) for value in values))

    def within(self, bounds: Mapping[str, Any]) -> Mask:
        return functools.reduce(operator.or_, (self._within(part, bounds) for part in self.parts))

    def _within(self, part: Part, bounds: Mapping[str, Any]) -> Mask:
        return functools.reduce(operator.and_, (_holds(part.values, *bound) for bound in bounds.items()), part.there)


class Booleans(Column):
    """True or false."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def among(self, values: Sequence[Any]) -> Mask:
        found: Mask = np.isin(self.part.values, values) & self.part.there
        return found

    def within(self, bounds: Mapping[str, Any]) -> Mask:
        raise AssertionError("booleans have no order")


def column_of(values: Sequence[Any], kind: Kind) -> Column:
    """The column of metadata values; one of another kind than ``kind`` is none."""
    if not any(isinstance(value, list | tuple) for value in values):
        return _plain([value if kind_of(value) == kind else None for value in values], kind)
    lists = [members if kind_of((members := members_of(value) or [None])[0]) == kind else [] for value in values]
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(members) for members in lists], out=offsets[1:])
    return Lists(_plain(list(itertools.chain.from_iterable(lists)), kind), offsets)


def _plain(sound: Sequence[Any], kind: Kind) -> Column:
    if kind == "string":
        return Strings.of(sound)
    return Booleans(_part(sound, np.bool_)) if kind == "boolean" else Numbers.of(sound)


def _part(values: Sequence[Any], type: Any) -> Part:
    there = np.array([value is not None for value in values], np.bool_)
    return Part(np.array([0 if value is None else value for value in values], type), there)


def stored_column(array: Array, kind: Kind, rows: int) -> Column | None:
    """A column of a file; None where it is not one that ``of`` makes of ``kind``."""
    if array.type == "list":
        offsets = array.offsets
        if len(offsets) != rows + 1 or offsets[0] != 0 or (np.diff(offsets) < 0).any():
            raise ValueError("lists that lie outside of their column")
        members = None if array.parts[0].type == "list" else stored_column(array.parts[0], kind, int(offsets[-1]))
        return None if members is None else Lists(members, offsets)
    if kind == "string" and array.type == "text":
        return Strings.stored(array) if len(array.offsets) == rows + 1 else None
    if kind == "boolean" and array.type == "boolean":
        return Booleans(_part_of(array, rows))
    if kind != "number":
        return None
    if array.type == "struct" and [part.type for part in array.parts] == ["int64", "float64"]:
        return Numbers([_part_of(part, rows) for part in array.parts])
    return Numbers([_part_of(array, rows)]) if array.type in ("int64", "float64") else None


def _part_of(array: Array, rows: int) -> Part:
    if len(array.values) != rows:
        raise ValueError("columns of different lengths")
    return Part(array.values, np.ones(rows, np.bool_) if array.valid is None else array.valid)


def _holds(values: NDArray[Any], sign: str, bound: Any) -> Mask:
    """Whether each of ``values`` compares so with ``bound``: exactly, whatever the kinds of both."""
    if values.dtype == np.int64 and isinstance(bound, float):
        sign, bound = _among_whole(sign, bound)
    elif values.dtype == np.float64 and isinstance(bound, int):
        sign, bound = _among_floats(sign, bound)
    if bound is None:
        return np.zeros(len(values), np.bool_)
    found: Mask = _SIGNS[sign](values, bound)
    return found


def _among_whole(sign: str, bound: float) -> tuple[str, int | None]:
    """A comparison with a float as one with a whole number of 64 bits; None where nothing is equal to it."""
    if sign == "eq":
        return sign, int(bound) if bound.is_integer() and -BEYOND <= bound < BEYOND else None
    number = math.ceil(bound) if sign in ("gte", "lt") else math.floor(bound)
    if number >= BEYOND:
        return ("gt" if sign in ("gte", "gt") else "lte"), BEYOND - 1
    if number < -BEYOND:
        return ("gte" if sign in ("gte", "gt") else "lt"), -BEYOND
    return sign, number


def _among_floats(sign: str, bound: int) -> tuple[str, float | None]:
    """A comparison with a whole number as one with the float nearest to it; None where nothing is equal to it."""
    nearest = float(bound)
    if nearest == bound:
        return sign, nearest
    if sign == "eq":
        return sign, None
    if sign in ("gte", "gt"):
        return ("gte" if nearest > bound else "gt"), nearest
    return ("lte" if nearest < bound else "lt"), nearest
