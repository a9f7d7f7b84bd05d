"""Metadata as typed columns: which documents meet a filter is decided exactly, before the search.

Text is kept as the number of each value among those that there are; numbers as whole ones, as floats, or, where no
float holds all of them, as both: each in a column of its own.
"""

import functools
import itertools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freemvmt.errors import UserError
from freemvmt.search.arrow import Array, read_arrow
from freemvmt.search.fields import BEYOND, Filter, Kind, kind_of

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
    def compared(self, sign: str, bound: Any) -> Mask:
        """Which are above or below ``bound``, as ``sign`` says: gte, gt, lte or lt."""


class Strings(Column):
    """Text: the number of each document's value, -1 for none, among those that there are.

    Numbers are given when they are first needed: for a million documents that takes a third of a second.
    """

    def __init__(self, read: Callable[[], Sequence[str | None]]) -> None:
        self._read = read

    @functools.cached_property
    def _coded(self) -> tuple[NDArray[np.int32], dict[str, int]]:
        known: dict[str, int] = {}
        codes = [-1 if value is None else known.setdefault(value, len(known)) for value in self._read()]
        return np.array(codes, np.int32), known

    @property
    def codes(self) -> NDArray[np.int32]:
        """(documents,)"""
        return self._coded[0]

    @property
    def values(self) -> list[str]:
        """Those that there are, by number."""
        return list(self._coded[1])

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
        known = self._coded[1]
        return self._chosen([number for value in values if (number := known.get(value)) is not None])

    def compared(self, sign: str, bound: Any) -> Mask:
        return self._chosen([number for value, number in self._coded[1].items() if _SIGNS[sign](value, bound)])

    def _chosen(self, numbers: list[int]) -> Mask:
        chosen = np.zeros(len(self._coded[1]) + 1, np.bool_)  # the last one, which -1 names, is no value
        chosen[numbers] = True
        found: Mask = chosen[self.codes]
        return found

    def counts(self, among: Mask) -> dict[str, int]:
        """How often each value occurs in the documents of ``among``."""
        codes = self.codes[among]
        counts = np.bincount(codes[codes >= 0], minlength=len(self.values)).tolist()
        return {value: count for value, count in zip(self.values, counts, strict=True) if count}


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
        return functools.reduce(operator.or_, (self.compared("eq", value) for value in values))

    def compared(self, sign: str, bound: Any) -> Mask:
        return functools.reduce(operator.or_, (_holds(part.values, sign, bound) & part.there for part in self.parts))


class Booleans(Column):
    """True or false."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def among(self, values: Sequence[Any]) -> Mask:
        found: Mask = np.isin(self.part.values, values) & self.part.there
        return found

    def compared(self, sign: str, bound: Any) -> Mask:
        raise AssertionError("booleans have no order")


class Columns:
    """The fields of ``size`` documents, of those ``kinds``."""

    def __init__(self, size: int, columns: Mapping[str, Column], kinds: Mapping[str, Kind]) -> None:
        self.size = size
        self.columns = columns
        self.kinds = dict(kinds)

    def __len__(self) -> int:
        return self.size

    @classmethod
    def of(cls, metadata: Sequence[Mapping[str, Any]], kinds: Mapping[str, Kind]) -> "Columns":
        """Columns of ``kinds``, a row for each of ``metadata``."""
        columns = {name: _column([item.get(name) for item in metadata], kind) for name, kind in kinds.items()}
        return cls(len(metadata), columns, kinds)

    @classmethod
    def read(cls, path: Path, kinds: Mapping[str, Kind]) -> "Columns":
        """The columns in a bundle's fields.arrow; ``UserError`` unless there is a sound one for each of ``kinds``."""
        try:
            batches = read_arrow(path)
            if len(batches) != 1:
                raise ValueError(f"{len(batches)} batches, not one")
            (batch,) = batches
            if missing := [name for name in kinds if name not in batch.columns]:
                raise ValueError(f"no column {missing[0]!r}")
            columns = {name: _stored(batch.columns[name], kind, batch.rows) for name, kind in kinds.items()}
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}); index the corpus again") from error
        if wrong := [name for name, column in columns.items() if column is None]:
            raise UserError(
                f"{path} has columns of other kinds than the bundle names ({wrong[0]}); index the corpus again"
            )
        return cls(batch.rows, {name: column for name, column in columns.items() if column is not None}, kinds)

    def mask(self, conditions: Filter) -> Mask:
        """Whether each document meets ``conditions``, which ``fields.check`` has passed."""
        kept = np.ones(self.size, np.bool_)
        for name, condition in conditions.items():
            kept &= self._meets(name, condition)
        return kept

    def _meets(self, name: str, condition: Any) -> Mask:
        if name not in self.columns:
            return np.zeros(self.size, np.bool_)
        column = self.columns[name]
        if isinstance(condition, dict):
            return functools.reduce(operator.and_, (column.compared(*bound) for bound in condition.items()))
        return column.among(condition if isinstance(condition, list) else [condition])

    def counts(self, name: str, among: Mask) -> dict[str, int]:
        """How often each value of a string field occurs in the documents of ``among``."""
        column = self.columns.get(name)
        return column.counts(among) if isinstance(column, Strings) else {}


def _column(values: Sequence[Any], kind: Kind) -> Column:
    sound = [value if kind_of(value) == kind else None for value in values]
    if kind == "string":
        return Strings.of(sound)
    return Booleans(_part(sound, np.bool_)) if kind == "boolean" else Numbers.of(sound)


def _part(values: Sequence[Any], type: Any) -> Part:
    there = np.array([value is not None for value in values], np.bool_)
    return Part(np.array([0 if value is None else value for value in values], type), there)


def _stored(array: Array, kind: Kind, rows: int) -> Column | None:
    """A column of a file; None where it is not one that ``of`` makes of ``kind``."""
    if kind == "string" and array.type == "text":
        return Strings.stored(array) if len(array.offsets) == rows + 1 else None
    if kind == "boolean" and array.type == "boolean":
        return Booleans(_stored_part(array, rows))
    if kind != "number":
        return None
    if array.type == "struct" and [part.type for part in array.parts] == ["int64", "float64"]:
        return Numbers([_stored_part(part, rows) for part in array.parts])
    return Numbers([_stored_part(array, rows)]) if array.type in ("int64", "float64") else None


def _stored_part(array: Array, rows: int) -> Part:
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
