"""Filters, and the metadata that they apply to.

``{"source": "debian"}`` means equality, ``{"source": ["debian", "reuters"]}`` means any of these values, and
``{"year": {"gte": 1990, "lt": 2000}}`` means a range. A document must meet the conditions on all fields. In a bundle,
every field has one kind: string, number or boolean.

A metadata value that is a list meets a condition if one of its members does. Strings are compared after ``normalized``,
so case and Unicode variants do not matter. A range of strings follows the order of code points, in which ISO 8601 dates
are in order.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from freemvmt.errors import UserError
from freemvmt.runtime.console import count_of
from freemvmt.search.index.analysis import normalized
from freemvmt.storage.digests import digest_of

FieldKind = Literal["string", "number", "boolean"]
Filter = Mapping[str, Any]
IgnoredValues = dict[str, dict[str, int]]  # field -> type of its values that filters ignore -> number of documents

_RANGES = ("gte", "gt", "lte", "lt")
LARGEST_WHOLE = 2**53  # from here on, not every whole number is a float of 64 bits
MAX_CHOICES = 1000  # values of one "any of" condition
_MAX_NAMED = 5  # fields in a note


def kind_of(value: object) -> FieldKind | None:
    """The kind of a single value; None when it cannot be filtered on, such as a whole number beyond 2**53."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number" if isinstance(value, float) or abs(value) <= LARGEST_WHOLE else None
    return "string" if isinstance(value, str) else None


def members_of(value: object) -> list[Any]:
    """The values of one kind that a filter compares: the value itself, or the distinct members of a list.

    Nulls are left out. Empty for values that filters ignore: objects, whole numbers beyond 2**53, and lists that mix
    kinds or contain lists or objects.
    """
    if not isinstance(value, list | tuple):
        return [] if kind_of(value) is None else [value]
    present = [member for member in value if member is not None]
    kinds = {kind_of(member) for member in present}
    if len(kinds) != 1 or None in kinds:
        return []
    distinct: dict[Any, Any] = {}
    for member in present:
        distinct.setdefault(normalized(member) if isinstance(member, str) else member, member)
    return list(distinct.values())


def ignored_type(value: object) -> str | None:
    """The type of a metadata value that filters ignore; None for a value that they use, and for null."""
    if value is None or members_of(value):
        return None
    if not isinstance(value, list | tuple):
        return "whole numbers beyond 2**53" if isinstance(value, int) else "objects"
    present = [member for member in value if member is not None]
    if not present:
        return None
    for kind, name in ((dict, "lists of objects"), (list | tuple, "lists of lists")):
        if any(isinstance(member, kind) for member in present):
            return name
    beyond = any(kind_of(member) is None for member in present)
    return "lists with whole numbers beyond 2**53" if beyond else "mixed lists"


def count_ignored(documents: Iterable[Mapping[str, Any]]) -> IgnoredValues:
    """The metadata values of ``documents`` that filters ignore, counted by field and type."""
    unseen: IgnoredValues = {}
    for metadata in documents:
        for name, value in metadata.items():
            if (type_name := ignored_type(value)) is not None:
                counts = unseen.setdefault(name, {})
                counts[type_name] = counts.get(type_name, 0) + 1
    return unseen


def ignored_note(unseen: IgnoredValues) -> str:
    """One line about ``unseen``; empty when nothing is ignored."""
    notes = [
        f'{count_of(count, "value")} of "{name[:60]}" ({type_name})'
        for name, counts in unseen.items()
        for type_name, count in counts.items()
    ]
    more = f", and of {len(notes) - _MAX_NAMED:,} more" if len(notes) > _MAX_NAMED else ""
    return f"filters do not see {', '.join(notes[:_MAX_NAMED])}{more}" if notes else ""


def kinds_of(metadata: Mapping[str, Any], known_kinds: Mapping[str, FieldKind], where: str) -> dict[str, FieldKind]:
    """The kinds of the fields of ``metadata`` that are not in ``known_kinds``.

    Raises ``UserError``, which begins with ``where``, for a value that is not of its field's kind.
    """
    kinds: dict[str, FieldKind] = {}
    for name, value in metadata.items():
        if not (members := members_of(value)):
            continue
        kind = kind_of(members[0])
        assert kind is not None
        if known_kinds.get(name, kind) != kind:
            conflict = f'the field "{name}" is a {known_kinds[name]} in the documents before it'
            raise UserError(f"{where}: {conflict}, here it holds {json.dumps(value)[:60]}; keep to one kind a field")
        if name not in known_kinds:
            kinds[name] = kind
    return kinds


def merge_spellings(counts: Mapping[str, int]) -> dict[str, int]:
    """``counts`` with the spellings of a text added up, under the most frequent of them."""
    spellings: dict[str, list[str]] = {}
    for text in counts:
        spellings.setdefault(normalized(text), []).append(text)
    return {
        min(texts, key=lambda text: (-counts[text], text)): sum(counts[text] for text in texts)
        for texts in spellings.values()
    }


def check_kinds(place: Path, kinds: Mapping[str, Any]) -> None:
    """Raise ``UserError`` unless each of ``kinds``, read from ``place``, is a ``FieldKind``."""
    if unknown := [kind for kind in kinds.values() if kind not in get_args(FieldKind)]:
        raise UserError(f"{place} has a field of kind {unknown[0]!r}, which is not known; update two-towers")


def check(conditions: object, kinds: Mapping[str, FieldKind]) -> Filter:
    """Return ``conditions``; ``UserError`` unless they are a filter on fields of ``kinds``."""
    if not isinstance(conditions, Mapping):
        raise UserError(f'a filter is an object like {{"field": value}}, not {type(conditions).__name__}; give one')
    for name, condition in conditions.items():
        if name not in kinds:
            names = ", ".join(sorted(kinds)) or "none"
            raise UserError(f"there is no field {str(name)[:60]!r} to filter on; the fields are: {names}")
        kind = kinds[name]
        if isinstance(condition, dict):
            if not condition or not set(condition) <= set(_RANGES):
                raise UserError(f'the range of "{name}" is not understood; give one or more of gte, gt, lte, lt')
            if kind == "boolean":
                raise UserError(f'the field "{name}" is a boolean, which has no order; give true or false')
            values = list(condition.values())
        elif isinstance(condition, list):
            if not 1 <= len(condition) <= MAX_CHOICES:
                raise UserError(f'the filter on "{name}" lists {len(condition)} values; give 1 to {MAX_CHOICES}')
            values = condition
        else:
            values = [condition]
        for value in values:
            _check_value(name, kind, value)
    return conditions


def _check_value(name: str, kind: FieldKind, value: object) -> None:
    if isinstance(value, int) and kind_of(value) is None:
        raise UserError(f'the filter on "{name}" holds a whole number beyond 2**53; give a smaller one')
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
    """A facet for each string or boolean of ``metadata``: a hash of field and value, stored in the index of words."""
    return [
        _facet(name, member) for name, value in metadata.items() for member in members_of(value)
        if isinstance(member, str | bool)
    ]  # fmt: skip


def facet_groups(conditions: Filter) -> list[list[str]]:
    """The facets of each condition on strings or booleans (no ranges); a match has one facet of each group."""
    choices = {name: value if isinstance(value, list) else [value] for name, value in conditions.items()}
    return [
        [_facet(name, value) for value in values]
        for name, values in choices.items()
        if all(isinstance(value, str | bool) for value in values)
    ]


def short_hash(name: str) -> str:
    """A hash of a field's name, for places that do not take every text."""
    return digest_of([name], size=8)


def _facet(name: str, value: str | bool) -> str:
    plain = normalized(value) if isinstance(value, str) else value
    return digest_of([json.dumps([name, plain])])


def parse_filters(arguments: Sequence[str], kinds: Mapping[str, FieldKind]) -> dict[str, Any]:
    """The filter that a command line gives as ``field=value``, ``field>=value``, ``<=``, ``>`` or ``<``.

    ``field=["a", "b"]`` means any of the values. A value is parsed according to the kind of its field. The result must
    still be checked with ``check``.
    """
    conditions: dict[str, Any] = {}
    for text in arguments:
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
            if name in conditions:
                raise UserError(f'--filter gives "{name}" twice; give one value, one range, or {name}=["a", "b"]')
            conditions[name] = value
            continue
        bound = {">=": "gte", ">": "gt", "<=": "lte", "<": "lt"}[sign]
        if not isinstance(conditions.setdefault(name, {}), dict) or bound in conditions[name]:
            raise UserError(f'--filter gives "{name}" twice; give one value, or one range')
        conditions[name][bound] = value
    return conditions
