"""Metadata as typed columns, and filters on them: which documents match is decided exactly, before the search.

``{"source": "debian"}`` is equality, ``{"source": ["debian", "reuters"]}`` any of them, ``{"year": {"gte": 1990,
"lt": 2000}}`` a range; of several fields all must hold. A field has one kind in a bundle: string, number or boolean.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from freemvmt.errors import UserError

Kind = Literal["string", "number", "boolean"]
Filter = Mapping[str, Any]

_RANGES = ("gte", "gt", "lte", "lt")
_SIGNS = {"eq": pc.equal, "gte": pc.greater_equal, "gt": pc.greater, "lte": pc.less_equal, "lt": pc.less}
_BEYOND = 2**63  # whole numbers have 64 bits
_MOST_CHOICES = 1000  # of one "any of"


def kind_of(value: object) -> Kind | None:
    """The kind of a metadata value that can be filtered on.

    None for what is only kept: null, lists, objects, and whole numbers beyond 64 bits.
    """
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number" if isinstance(value, float) or -_BEYOND <= value < _BEYOND else None
    return "string" if isinstance(value, str) else None


def kinds_of(metadata: Mapping[str, Any], known: Mapping[str, Kind], where: str) -> dict[str, Kind]:
    """The kinds of the fields of ``metadata`` that ``known`` lacks.

    Raises ``UserError``, which begins with ``where``, for a value of another kind than its field has.
    """
    found: dict[str, Kind] = {}
    for name, value in metadata.items():
        kind = kind_of(value)
        if kind is None:
            continue
        if known.get(name, kind) != kind:
            wanted = f'the field "{name}" is a {known[name]} in the documents before it'
            raise UserError(f"{where}: {wanted}, here it holds {json.dumps(value)[:60]}; keep to one kind a field")
        if name not in known:
            found[name] = kind
    return found


def check_kinds(place: Path, kinds: Mapping[str, Any]) -> None:
    """Raise ``UserError`` unless ``kinds``, as ``place`` has them, are of those that there are."""
    if wrong := [kind for kind in kinds.values() if kind not in get_args(Kind)]:
        raise UserError(f"{place} has a field of kind {wrong[0]!r}, which is not known; update two-towers")


class Columns:
    """The fields of many documents; the columns of ``table`` are named by field, and null where one has none."""

    def __init__(self, table: pa.Table, kinds: Mapping[str, Kind]) -> None:
        self.table = table
        self.kinds = dict(kinds)

    @classmethod
    def of(cls, metadata: Sequence[Mapping[str, Any]], kinds: Mapping[str, Kind]) -> "Columns":
        """Columns of ``kinds``, a row for each of ``metadata``."""
        columns = {name: _column([item.get(name) for item in metadata], kind) for name, kind in kinds.items()}
        rows = pa.array(np.zeros(len(metadata), np.int8))  # a table without a column would have no length
        return cls(pa.table({**columns, "": rows}), kinds)

    def check(self, path: Path) -> None:
        """Raise ``UserError`` unless the table, read from ``path``, has a sound column of its kind for each field."""
        try:
            self.table.validate(full=True)
            sound = all(_is_column(self.table.schema.field(name).type, kind) for name, kind in self.kinds.items())
        except (pa.ArrowException, KeyError) as error:
            raise UserError(f"{path} is damaged ({str(error).splitlines()[0]}); index the corpus again") from error
        if not sound:
            raise UserError(f"{path} has columns of other kinds than the bundle names; index the corpus again")

    def mask(self, conditions: Filter) -> NDArray[np.bool_]:
        """Whether each document meets ``conditions``, which ``check`` has passed."""
        kept = np.ones(len(self.table), np.bool_)
        for name, condition in conditions.items():
            kept &= self._meets(name, condition)
        return kept

    def _meets(self, name: str, condition: Any) -> NDArray[np.bool_]:
        if name not in self.kinds:
            return np.zeros(len(self.table), np.bool_)
        column = self.table[name]
        if isinstance(condition, list) and self.kinds[name] == "string":  # one pass, however many they are
            found: NDArray[np.bool_] = pc.is_in(column, value_set=pa.array(condition, column.type)).to_numpy()
            return found
        kept = np.full(len(self.table), isinstance(condition, dict))
        if isinstance(condition, dict):
            for sign, bound in condition.items():
                kept &= _holds(column, sign, bound)
        else:
            for value in condition if isinstance(condition, list) else [condition]:
                kept |= _holds(column, "eq", value)
        return kept

    def counts(self, name: str, among: NDArray[np.bool_]) -> dict[str, int]:
        """How often each value of a string field occurs in the documents of ``among``."""
        if self.kinds.get(name) != "string":
            return {}
        found = pc.value_counts(self.table[name].filter(pa.array(among))).to_pylist()
        return {item["values"]: item["counts"] for item in found if item["values"] is not None}


def _holds(column: Any, sign: str, bound: Any) -> NDArray[np.bool_]:
    """Whether each value compares so with ``bound``; null never does, and numbers compare exactly."""
    if pa.types.is_struct(column.type):
        whole, fraction = (pc.struct_field(column, part) for part in ("whole", "fraction"))
        return _holds(whole, sign, bound) | _holds(fraction, sign, bound)
    if pa.types.is_int64(column.type) and isinstance(bound, float):
        sign, bound = _among_whole(sign, bound)
    elif pa.types.is_float64(column.type) and isinstance(bound, int):
        sign, bound = _among_floats(sign, bound)
    if bound is None:
        return np.zeros(len(column), np.bool_)
    holds: NDArray[np.bool_] = pc.fill_null(_SIGNS[sign](column, pa.scalar(bound, column.type)), False).to_numpy()
    return holds


def _among_whole(sign: str, bound: float) -> tuple[str, int | None]:
    """A comparison with a float as one with a whole number of 64 bits; None where nothing is equal to it."""
    if sign == "eq":
        return sign, int(bound) if bound.is_integer() and -_BEYOND <= bound < _BEYOND else None
    number = math.ceil(bound) if sign in ("gte", "lt") else math.floor(bound)
    if number >= _BEYOND:
        return ("gt" if sign in ("gte", "gt") else "lte"), _BEYOND - 1
    if number < -_BEYOND:
        return ("gte" if sign in ("gte", "gt") else "lt"), -_BEYOND
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


def _is_column(type: pa.DataType, kind: Kind) -> bool:
    """Whether ``type`` is one that ``_column`` makes of ``kind``."""
    if kind == "number":
        halves = pa.struct([("whole", pa.int64()), ("fraction", pa.float64())])
        return type in (pa.int64(), pa.float64(), halves)
    return bool(type == (pa.large_string() if kind == "string" else pa.bool_()))


def _column(values: Sequence[Any], kind: Kind) -> Any:
    sound = [value if kind_of(value) == kind else None for value in values]
    if kind == "string":
        return pa.array(sound, pa.large_string())
    if kind == "boolean":
        return pa.array(sound, pa.bool_())
    whole = pa.array([None if isinstance(value, float) else value for value in sound], pa.int64())
    if not any(isinstance(value, float) for value in sound):
        return whole
    if all(value is None or float(value) == value for value in sound):
        return pa.array([None if value is None else float(value) for value in sound], pa.float64())
    # Whole numbers that no float holds, beside fractions: each in a column of its own.
    fraction = pa.array([value if isinstance(value, float) else None for value in sound], pa.float64())
    return pa.StructArray.from_arrays([whole, fraction], ["whole", "fraction"])


def check(conditions: object, kinds: Mapping[str, Kind]) -> Filter:
    """``conditions`` if they are a filter on fields of ``kinds``; else ``UserError`` says what is wrong."""
    if not isinstance(conditions, Mapping):
        raise UserError(f'a filter is an object like {{"field": value}}, not {type(conditions).__name__}; give one')
    for name, condition in conditions.items():
        if name not in kinds:
            known = ", ".join(sorted(kinds)) or "none"
            raise UserError(f"there is no field {str(name)[:60]!r} to filter on; the fields are: {known}")
        kind = kinds[name]
        if isinstance(condition, dict):
            if not condition or not set(condition) <= set(_RANGES):
                raise UserError(f'the range of "{name}" is not understood; give one or more of gte, gt, lte, lt')
            if kind == "boolean":
                raise UserError(f'the field "{name}" is a boolean, which has no order; give true or false')
            values = list(condition.values())
        elif isinstance(condition, list):
            if not 1 <= len(condition) <= _MOST_CHOICES:
                raise UserError(f'the filter on "{name}" lists {len(condition)} values; give 1 to {_MOST_CHOICES}')
            values = condition
        else:
            values = [condition]
        for value in values:
            _check_value(name, kind, value)
    return conditions


def _check_value(name: str, kind: Kind, value: object) -> None:
    if isinstance(value, int) and kind_of(value) is None:
        raise UserError(f'the filter on "{name}" holds a whole number beyond 64 bits; give a smaller one')
    if kind_of(value) != kind:
        raise UserError(f'the field "{name}" is a {kind}, not {type(value).__name__}; give a {kind}')
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UserError(f'the filter on "{name}" holds half of a surrogate pair; mend the encoding') from None
    elif isinstance(value, float) and not np.isfinite(value):
        raise UserError(f'the filter on "{name}" is {value}, which is no number to compare with; give another')


def facets_of(metadata: Mapping[str, Any]) -> list[str]:
    """A short name for each value of a string or boolean field, for an index of words to keep."""
    return [_facet(name, value) for name, value in metadata.items() if kind_of(value) in ("string", "boolean")]


def facets_wanted(conditions: Filter) -> list[list[str]]:
    """Of each list a document that meets ``conditions`` has one facet; ranges and numbers are not among them."""
    listed = {name: value if isinstance(value, list) else [value] for name, value in conditions.items()}
    return [
        [_facet(name, value) for value in values]
        for name, values in listed.items()
        if all(isinstance(value, str | bool) for value in values)
    ]


def _facet(name: str, value: str | bool) -> str:
    return hashlib.blake2b(json.dumps([name, value]).encode(), digest_size=16).hexdigest()


def parse_filters(given: Sequence[str], kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """A filter from a command line's ``field=value``, ``field>=value``, ``<``, ``>``, ``<=``.

    ``field=["a", "b"]`` is any of them. What a value means depends on its field's kind; ``check`` judges the result.
    """
    found: dict[str, Any] = {}
    for text in given:
        match = re.fullmatch(r"([^<>=]+)(>=|<=|>|<|=)(.*)", text, re.DOTALL)
        if not match:
            raise UserError(f"--filter {text!r} is not understood; write field=value, field>=value or field<value")
        name, sign, raw = match.groups()
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            value = raw
        if kinds.get(name) == "string" and not isinstance(value, list | str):
            value = raw
        if sign == "=":
            if name in found:
                raise UserError(f'--filter gives "{name}" twice; give one value, one range, or {name}=["a", "b"]')
            found[name] = value
            continue
        bound = {">=": "gte", ">": "gt", "<=": "lte", "<": "lt"}[sign]
        if not isinstance(found.setdefault(name, {}), dict) or bound in found[name]:
            raise UserError(f'--filter gives "{name}" twice; give one value, or one range')
        found[name][bound] = value
    return found
