"""Metadata as typed columns, and filters on them: which documents match is decided exactly, before the search.

``{"source": "debian"}`` is equality, ``{"source": ["debian", "reuters"]}`` any of them, ``{"year": {"gte": 1990,
"lt": 2000}}`` a range; of several fields all must hold. A field has one kind in a bundle: string, number or boolean.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from freemvmt.errors import UserError

Kind = Literal["string", "number", "boolean"]
Filter = Mapping[str, Any]

_RANGES = {"gte": pc.greater_equal, "gt": pc.greater, "lte": pc.less_equal, "lt": pc.less}
_MOST_CHOICES = 1000  # of one "any of"


def kind_of(value: object) -> Kind | None:
    """The kind of a metadata value that can be filtered on.

    None for what is only kept: null, lists, objects, and whole numbers beyond 64 bits.
    """
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number" if isinstance(value, float) or -(2**63) <= value < 2**63 else None
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
        if isinstance(condition, dict):
            parts = [_RANGES[key](column, pa.scalar(bound)) for key, bound in condition.items()]
        elif isinstance(condition, list):
            parts = [_any_of(column, condition)]
        else:
            parts = [pc.equal(column, pa.scalar(condition))]
        kept = np.ones(len(self.table), np.bool_)
        for part in parts:
            kept &= pc.fill_null(part, False).to_numpy()
        return kept

    def counts(self, name: str, among: NDArray[np.bool_]) -> dict[str, int]:
        """How often each value of a string field occurs in the documents of ``among``."""
        if self.kinds.get(name) != "string":
            return {}
        found = pc.value_counts(self.table[name].filter(pa.array(among))).to_pylist()
        return {item["values"]: item["counts"] for item in found if item["values"] is not None}


def _any_of(column: Any, values: list[Any]) -> Any:
    parts = [pc.equal(column, pa.scalar(value)) for value in values]
    found = parts[0]
    for part in parts[1:]:
        found = pc.or_kleene(found, part)
    return found


def _column(values: Sequence[Any], kind: Kind) -> Any:
    sound = [value if kind_of(value) == kind else None for value in values]
    if kind == "string":
        return pa.array(sound, pa.large_string())
    if kind == "boolean":
        return pa.array(sound, pa.bool_())
    if any(isinstance(value, float) for value in sound):
        return pa.array([None if value is None else float(value) for value in sound], pa.float64())
    return pa.array(sound, pa.int64())


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
                raise UserError(f'the range of "{name}" needs one or more of gte, gt, lte, lt, and nothing else')
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
    if kind_of(value) != kind:
        raise UserError(f'the field "{name}" is a {kind}, not {type(value).__name__}; give a {kind}')
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UserError(f'the filter on "{name}" holds half of a surrogate pair; mend the encoding') from None
    elif isinstance(value, float) and not np.isfinite(value):
        raise UserError(f'the filter on "{name}" is {value}, which is no number to compare with; give another')


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
            found[name] = value
        elif isinstance(found.setdefault(name, {}), dict):
            found[name][{">=": "gte", ">": "gt", "<=": "lte", "<": "lt"}[sign]] = value
        else:
            raise UserError(f'--filter gives "{name}" a value and a range; give one of them')
    return found
