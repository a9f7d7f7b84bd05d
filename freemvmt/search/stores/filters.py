"""Metadata that can be filtered on, and what a filter is.

``{"source": "debian"}`` is equality, ``{"source": ["debian", "reuters"]}`` any of them, ``{"year": {"gte": 1990,
"lt": 2000}}`` a range; of several fields all must hold. A field has one kind in a bundle: string, number or boolean.

A list of such values is met where one of its members meets the condition. Text compares in one form, ``normalized``:
neither case nor the way in which Unicode writes a character counts. A range of text goes by the order of its
characters, in which dates of ISO 8601 are in order.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from freemvmt.errors import UserError
from freemvmt.search.index.analysis import normalized

Kind = Literal["string", "number", "boolean"]
Filter = Mapping[str, Any]
Unseen = dict[str, dict[str, int]]  # field -> what it holds that no filter sees -> in how many documents

_RANGES = ("gte", "gt", "lte", "lt")
BEYOND = 2**63  # whole numbers have 64 bits
_MOST_CHOICES = 1000  # of one "any of"
_MOST_NAMED = 5  # fields of a note


def kind_of(value: object) -> Kind | None:
    """The kind of one value that can be filtered on; None for any other, such as a whole number beyond 64 bits."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number" if isinstance(value, float) or -BEYOND <= value < BEYOND else None
    return "string" if isinstance(value, str) else None


def members_of(value: object) -> list[Any]:
    """What a filter sees of a metadata value, all of one kind: itself, or the members of a list, each once.

    Null is no value, nor is it a member. Nothing is seen of objects, lists of more than one kind, lists that hold
    lists or objects, and whole numbers beyond 64 bits.
    """
    if not isinstance(value, list | tuple):
        return [] if kind_of(value) is None else [value]
    there = [member for member in value if member is not None]
    kinds = {kind_of(member) for member in there}
    if len(kinds) != 1 or None in kinds:
        return []
    found: dict[Any, Any] = {}
    for member in there:
        found.setdefault(normalized(member) if isinstance(member, str) else member, member)
    return list(found.values())


def unseen_as(value: object) -> str | None:
    """What a metadata value is that no filter sees; None for one that it sees, and for no value."""
    if value is None or members_of(value):
        return None
    if not isinstance(value, list | tuple):
        return "numbers beyond 64 bits" if isinstance(value, int) else "objects"
    there = [member for member in value if member is not None]
    if not there:
        return None
    for kind, name in ((dict, "lists of objects"), (list | tuple, "lists of lists")):
        if any(isinstance(member, kind) for member in there):
            return name
    beyond = any(kind_of(member) is None for member in there)
    return "lists with numbers beyond 64 bits" if beyond else "mixed lists"


def count_unseen(documents: Iterable[Mapping[str, Any]]) -> Unseen:
    """What no filter sees of the metadata of ``documents``, by field."""
    found: Unseen = {}
    for metadata in documents:
        for name, value in metadata.items():
            if (what := unseen_as(value)) is not None:
                counts = found.setdefault(name, {})
                counts[what] = counts.get(what, 0) + 1
    return found


def unseen_note(unseen: Unseen) -> str:
    """``unseen`` in a line, or no text where there is nothing."""
    parts = [
        f'{count:,} value{"" if count == 1 else "s"} of "{name[:60]}" ({what})'
        for name, counts in unseen.items()
        for what, count in counts.items()
    ]
    more = f", and of {len(parts) - _MOST_NAMED:,} more" if len(parts) > _MOST_NAMED else ""
    return f"filters do not see {', '.join(parts[:_MOST_NAMED])}{more}" if parts else ""


def kinds_of(metadata: Mapping[str, Any], known: Mapping[str, Kind], where: str) -> dict[str, Kind]:
    """The kinds of the fields of ``metadata`` that ``known`` lacks.

    Raises ``UserError``, which begins with ``where``, for a value of another kind than its field has.
    """
    found: dict[str, Kind] = {}
    for name, value in metadata.items():
        if not (members := members_of(value)):
            continue
        kind = kind_of(members[0])
        assert kind is not None
        if known.get(name, kind) != kind:
            wanted = f'the field "{name}" is a {known[name]} in the documents before it'
            raise UserError(f"{where}: {wanted}, here it holds {json.dumps(value)[:60]}; keep to one kind a field")
        if name not in known:
            found[name] = kind
    return found


def folded(counts: Mapping[str, int]) -> dict[str, int]:
    """``counts`` of texts with those together that compare equal, each as it is written most often."""
    spellings: dict[str, list[str]] = {}
    for text in counts:
        spellings.setdefault(normalized(text), []).append(text)
    return {
        min(texts, key=lambda text: (-counts[text], text)): sum(counts[text] for text in texts)
        for texts in spellings.values()
    }


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
    return [
        _facet(name, member) for name, value in metadata.items() for member in members_of(value)
        if isinstance(member, str | bool)
    ]  # fmt: skip


def facets_wanted(conditions: Filter) -> list[list[str]]:
    """Of each list a document that meets ``conditions`` has one facet; ranges and numbers are not among them."""
    listed = {name: value if isinstance(value, list) else [value] for name, value in conditions.items()}
    return [
        [_facet(name, value) for value in values]
        for name, values in listed.items()
        if all(isinstance(value, str | bool) for value in values)
    ]


def _facet(name: str, value: str | bool) -> str:
    plain = normalized(value) if isinstance(value, str) else value
    return hashlib.blake2b(json.dumps([name, plain]).encode(), digest_size=16).hexdigest()


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
