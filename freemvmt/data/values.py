"""Check texts, ids and JSON objects, by the same rules for every file, request and call.

A text is a string. An id is a string, or a whole number, which becomes its digits. An optional value may be ``None``
(JSON's ``null``). Everything else, NaN too, raises an error that names the place and the field.
"""

import json
import re
from collections.abc import Hashable, Iterable, Mapping, Set
from itertools import islice
from numbers import Integral
from typing import Any, NoReturn, TypeVar

from freemvmt.errors import UserError
from freemvmt.storage.digests import digest_of
from freemvmt.storage.files import is_storable, storable

T = TypeVar("T", bound=Hashable)
Metadata = dict[str, Any]  # JSON values; filters work on text, numbers, booleans and lists of these

MAX_ID_BYTES = 512  # bytes of UTF-8
MAX_METADATA_BYTES = 65_536  # bytes of JSON

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # its JSON escape, paired or not
_KIND_NAMES = {
    "NoneType": "null",
    "str": "text",
    "bool": "a boolean",
    "dict": "an object",
    "bytes": "bytes",
    "datetime": "a time",
    "Timestamp": "a time",
    "Decimal": "a decimal number",
}


def text_of(value: object, field: str, where: str) -> str:
    """``value`` if it is a text; else ``UserError`` that begins with ``where`` (a place) and names ``field``."""
    if isinstance(value, str):
        return value
    hint = "write a line for each text in it" if isinstance(value, list) else "mend or drop it"
    raise UserError(f'{where}: "{field}" holds {kind_name(value)}, not text; {hint}')


def optional_text(value: object, field: str, where: str) -> str:
    """``value`` if it is a text, "" if it is None; else ``UserError`` as in ``text_of``."""
    return "" if value is None else text_of(value, field, where)


def id_of(value: object, field: str, where: str) -> str:
    """``value`` as an id: a text that is not blank, or the digits of a whole number; else ``UserError``."""
    if not isinstance(value, bool) and isinstance(value, Integral):  # also of numpy
        return str(int(value))
    if not isinstance(value, str):
        expected = "an id (text or a whole number)"
        raise UserError(f'{where}: "{field}" holds {kind_name(value)}, not {expected}; mend or drop it')
    if not value or value.isspace():
        raise UserError(f'{where}: "{field}" is blank, which is no id; mend or drop it')
    return value


def kind_name(value: object) -> str:
    """The name of ``value`` in an error: ``null``, ``a boolean``, ``the number 12.5``, ``a list``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"the number {value!r:.40}"
    name = type(value).__name__
    return _KIND_NAMES.get(name, f"a {name}")


def parse_object(line: str, where: str) -> dict[str, Any]:
    """The JSON object in ``line``. NaN, Infinity and a duplicate name in one object are invalid.

    Raises ``UserError`` that begins with ``where``. A lone surrogate becomes U+FFFD: UTF-8 cannot encode it, and
    libraries in C fail or crash on it.
    """
    try:
        record = _loads(line)
        if _SURROGATE.search(line):
            record = _loads(storable(json.dumps(record, ensure_ascii=False)))
    except (ValueError, RecursionError) as error:
        default_reason = "nested too deeply" if isinstance(error, RecursionError) else "a number too long"
        reason = str(error) if isinstance(error, _NotJSONError) else getattr(error, "msg", default_reason)
        raise UserError(f"{where}: not JSON ({reason}); each line must be one object") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: a JSON {type(record).__name__}, not an object; each line must be one object")
    return record


def check_json(text: bytes, where: str) -> None:
    """Raise ``UserError`` if ``text``, which another parser accepted, is invalid by the rules of ``parse_object``."""
    try:
        _loads(text)
    except _NotJSONError as error:
        raise UserError(f"{where} is not JSON: {error}") from error


class _NotJSONError(ValueError):
    """Text that Python's parser accepts and that is not JSON."""


def _loads(text: str | bytes) -> Any:
    return json.loads(text, object_pairs_hook=_distinct_names, parse_constant=_refuse_constant)


def _distinct_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise _NotJSONError(f'"{duplicate[:60]}" stands twice in one object; keep one of them')
    return members


def _refuse_constant(constant: str) -> NoReturn:
    raise _NotJSONError(f"{constant} is no JSON value; leave the field out or write null")


def texts_of(texts: Iterable[str], name: str = "texts") -> list[str]:
    """``texts`` as a list of strings, from a list, a tuple, an iterator, a numpy array, or a column of a table.

    Raises ``TypeError`` for a single text, for a set or a mapping (no order), and for an item that is no text.
    """
    message = f"{name} must be a list of texts"
    strings = []
    for number, text in enumerate(_items_of(texts, f"{message}, not {type(texts).__name__}; give [text, …]")):
        if not isinstance(text, str):
            raise TypeError(f"{message}, but number {number} is {type(text).__name__}; give texts alone")
        strings.append(str(text))
    return strings


def ids_of(ids: Iterable[str | int]) -> list[str]:
    """``ids`` as a list of strings, as ``texts_of`` does; whole numbers become their digits.

    Raises ``TypeError`` as ``texts_of`` does, and ``UserError`` for a blank id.
    """
    message = "ids must be a list of ids (texts or whole numbers)"
    strings = []
    for number, id in enumerate(_items_of(ids, f"{message}, not {type(ids).__name__}; give [id, …]")):
        if isinstance(id, bool) or not isinstance(id, str | Integral):
            raise TypeError(f"{message}, but number {number} is {kind_name(id)}; give ids alone")
        strings.append(str(id_of(id, "ids", f"number {number}")))
    return strings


def _items_of(values: Any, message: str) -> Iterable[Any]:
    """The items of a list, a column or an iterator. Raises ``TypeError`` for a set, a mapping, or two dimensions."""
    if isinstance(values, str | bytes | Mapping | Set) or not hasattr(values, "__iter__"):
        raise TypeError(message)
    if getattr(values, "ndim", 1) != 1:  # a table would yield its column names
        raise TypeError(message)
    to_list = getattr(values, "tolist", None) or getattr(values, "to_pylist", None) or values.__iter__
    items: Iterable[Any] = to_list()  # Python values, in order; an index of pandas has no effect
    return items


class FirstPlaces:
    """The first place of each id, so that the error for a duplicate names both places."""

    def __init__(self, kind: str) -> None:
        self._kind = kind  # "document", "query"
        self._seen: dict[str, str] = {}

    def see(self, id: str, where: str) -> None:
        """Add the ``id`` at ``where`` (a line or row). Raises ``UserError`` if it was added before."""
        if (first := self._seen.setdefault(id, where)) is not where:
            raise _duplicate_error(f"the {self._kind} {id[:200]!r}", first, where)


def first_duplicate(ids: Iterable[T]) -> T | None:
    """The first id that occurs a second time, or None."""
    seen: set[T] = set()
    for id in ids:
        if id in seen:
            return id
        seen.add(id)
    return None


def duplicate_error(name: str, id: Hashable, entries: Iterable[tuple[str, Hashable]]) -> UserError:
    """The error for a duplicate ``id``, which the message calls ``name``.

    ``entries`` are the (place, id) of all entries in a second pass, so that the first pass need not store the places.
    """
    places = list(islice((where for where, other_id in entries if other_id == id), 2))
    if len(places) < 2:
        return UserError(f"{name} stands twice, in a file that has changed since; read it again")
    return _duplicate_error(name, *places)


def _duplicate_error(name: str, first: str, second: str) -> UserError:
    """The error for a duplicate. If both places are in the same file, it is named once."""
    file, _, line = first.rpartition(", ")
    first_place = line if file and second.startswith(f"{file}, ") else first
    return UserError(f"{second}: {name} stands twice, first at {first_place}; keep one of them")


def content_of(title: str, text: str) -> str:
    """The text of a document that is encoded and indexed."""
    return f"{title} {text}" if title else text


def check_document(id: object, title: object, text: object, metadata: object) -> None:
    """Raise ``UserError`` unless the id has 1 to 512 bytes, is not blank, and everything can be stored."""
    for name, value in (("id", id), ("text", text), ("title", title)):
        if not isinstance(value, str):
            raise UserError(f'"{name}" holds {kind_name(value)}, not text; give text')
        if not is_storable(value):
            raise UserError(f'"{name}" holds half of a surrogate pair, which is no text; mend the encoding')
    assert isinstance(id, str)
    if not id.strip() or len(id.encode()) > MAX_ID_BYTES:
        actual = "only white space" if id.isspace() else str(len(id.encode()))
        raise UserError(f"an id has 1 to {MAX_ID_BYTES} bytes, not {actual}; give another id")
    if metadata != {}:
        _check_metadata(metadata)


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(key, str) and key for key in metadata):
        raise UserError('"metadata" is no object with names; give {"name": value}')
    try:
        encoded = json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f'"metadata" cannot be stored as JSON ({error}); give plain JSON values') from error
    if len(encoded) > MAX_METADATA_BYTES:
        raise UserError(f'"metadata" has {len(encoded):,} bytes; give {MAX_METADATA_BYTES:,} at most')


def folded(query: str) -> str:
    """``query`` in lower case with single spaces. Queries with the same folded form are the same query."""
    return " ".join(query.lower().split())


def passage_id(text: str) -> str:
    """The id of a passage whose data has none: a hash of its text, equal in every file."""
    return digest_of([text], size=8)
