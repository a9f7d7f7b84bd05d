"""Metadata that can be filtered on, and what a filter is.

``{"source": "debian"}`` is equality, ``{"source": ["debian", "reuters"]}`` any of them, ``{"year": {"gte": 1990,
"lt": 2000}}`` a range; of several fields all must hold. A field has one kind in a bundle: string, number or boolean.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from freemvmt.errors import UserError

Kind = Literal["string", "number", "boolean"]
Filter = Mapping[str, Any]

_RANGES = ("gte", "gt", "lte", "lt")
BEYOND = 2**63  # whole numbers have 64 bits
_MOST_CHOICES = 1000  # of one "any of"


def kind_of(value: object) -> Kind | None:
    """The kind of a metadata value that can be filtered on.

    None for what is only kept: null, lists, objects, and whole numbers beyond 64 bits.
    """
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number" if isinstance(value, float) or -BEYOND <= value < BEYOND else None
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
