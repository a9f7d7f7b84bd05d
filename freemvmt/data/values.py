"""What counts as a text, as an id and as a JSON object: one rule for every file, request and call.

A text is a string. An id is a string, or a whole number, which becomes its digits. ``None`` (JSON's ``null``) means
"not there" wherever a value is optional. Everything else, NaN among it, is refused with its place and its field.
"""

import hashlib
import json
import re
from collections.abc import Hashable, Iterable, Mapping, Set
from itertools import islice
from numbers import Integral
from typing import Any, NoReturn, TypeVar

from freemvmt.errors import UserError

T = TypeVar("T", bound=Hashable)
Metadata = dict[str, Any]  # of JSON values; text, numbers, booleans and lists of these can be filtered on

LONGEST_ID = 512  # bytes of UTF-8
LARGEST_METADATA = 65_536  # bytes of JSON

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON escapes it, paired or not
_NAMES = {
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
    """``value`` if it is a text; else ``UserError``, which begins with ``where`` (a place) and names ``field``."""
    if isinstance(value, str):
        return value
    raise UserError(f'{where}: "{field}" holds {kind_name(value)}, not text; mend or drop it')


def optional_text(value: object, field: str, where: str) -> str:
    """``value`` if it is a text, and the empty text for None; else as ``text_of``."""
    return "" if value is None else text_of(value, field, where)


def id_of(value: object, field: str, where: str) -> str:
    """An id: a text that is not blank, or the digits of a whole number; else ``UserError``, as ``text_of``."""
    if not isinstance(value, bool) and isinstance(value, Integral):  # numpy's too
        return str(int(value))
    if not isinstance(value, str):
        wanted = "an id (text or a whole number)"
        raise UserError(f'{where}: "{field}" holds {kind_name(value)}, not {wanted}; mend or drop it')
    if not value or value.isspace():
        raise UserError(f'{where}: "{field}" is blank, which is no id; mend or drop it')
    return value


def kind_name(value: object) -> str:
    """What a refusal calls ``value``: ``null``, ``a boolean``, ``the number 12.5``, ``a list``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"the number {value!r:.40}"
    name = type(value).__name__
    return _NAMES.get(name, f"a {name}")


def parse_object(line: str, where: str) -> dict[str, Any]:
    """The JSON object in ``line``. NaN, Infinity and a name that stands twice in one object are no JSON here.

    Raises ``UserError``, which begins with ``where``. Half of a surrogate pair becomes U+FFFD: no UTF-8 holds it, and
    libraries in C fail or crash on it.
    """
    try:
        record = _loads(line)
        if _SURROGATE.search(line):
            units = json.dumps(record, ensure_ascii=False).encode("utf-16", "surrogatepass")
            record = _loads(units.decode("utf-16", "replace"))
    except (ValueError, RecursionError) as error:
        known = "nested too deeply" if isinstance(error, RecursionError) else "a number too long"
        reason = str(error) if isinstance(error, _NotJSONError) else getattr(error, "msg", known)
        raise UserError(f"{where}: not JSON ({reason}); each line must be one object") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: a JSON {type(record).__name__}, not an object; each line must be one object")
    return record


def check_json(text: bytes, where: str) -> None:
    """Raise ``UserError`` if ``text``, which another reader has taken, is no JSON here (see ``parse_object``)."""
    try:
        _loads(text)
    except _NotJSONError as error:
        raise UserError(f"{where} is not JSON: {error}") from error


class _NotJSONError(ValueError):
    """What Python's reader takes and JSON does not have."""


def _loads(text: str | bytes) -> Any:
    return json.loads(text, object_pairs_hook=_distinct_names, parse_constant=_refuse_constant)


def _distinct_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _NotJSONError(f'"{twice[:60]}" stands twice in one object; keep one of them')
    return found


def _refuse_constant(constant: str) -> NoReturn:
    raise _NotJSONError(f"{constant} is no JSON value; leave the field out or write null")


def texts_of(texts: Iterable[str], name: str = "texts") -> list[str]:
    """``texts`` as a list of strings: from a list, a tuple, an iterator, a numpy array, or a column of a table.

    Raises ``TypeError`` for one text, for what has no order (a set, a mapping), and for what holds anything but texts.
    """
    wanted = f"{name} must be a list of texts"
    found = []
    for number, text in enumerate(_listed(texts, f"{wanted}, not {type(texts).__name__}; give [text, …]")):
        if not isinstance(text, str):
            raise TypeError(f"{wanted}, but number {number} is {type(text).__name__}; give texts alone")
        found.append(str(text))
    return found


def ids_of(ids: Iterable[str | int], name: str = "ids") -> list[str]:
    """``ids`` as a list of strings, from what ``texts_of`` takes; whole numbers become their digits.

    Raises ``TypeError``, as ``texts_of``.
    """
    wanted = f"{name} must be a list of ids (texts or whole numbers)"
    found = []
    for number, one in enumerate(_listed(ids, f"{wanted}, not {type(ids).__name__}; give [id, …]")):
        if isinstance(one, bool) or not isinstance(one, str | Integral):
            raise TypeError(f"{wanted}, but number {number} is {kind_name(one)}; give ids alone")
        found.append(str(id_of(one, name, f"number {number}")))
    return found


def _listed(values: Any, said: str) -> Iterable[Any]:
    """What is in a list, a column or an iterator, in order; ``TypeError`` for what has no order, or two dimensions."""
    if isinstance(values, str | bytes | Mapping | Set) or not hasattr(values, "__iter__"):
        raise TypeError(said)
    if getattr(values, "ndim", 1) != 1:  # a table would give the names of its columns
        raise TypeError(said)
    plain = getattr(values, "tolist", None) or getattr(values, "to_pylist", None) or values.__iter__
    found: Iterable[Any] = plain()  # of numpy and pandas, of Arrow: plain values, in their order whatever an index says
    return found


class Places:
    """Where each id was first seen, so that one that stands twice is refused with both places."""

    def __init__(self, what: str) -> None:
        self._what = what  # "document", "query": what an id names
        self._seen: dict[str, str] = {}

    def see(self, id: str, where: str) -> None:
        """Note ``id`` of ``where`` (a line or row); ``UserError`` if it was seen before."""
        if (first := self._seen.setdefault(id, where)) is not where:
            raise _twice(f"the {self._what} {id[:200]!r}", first, where)


def first_repeat(ids: Iterable[T]) -> T | None:
    """The first of ``ids`` that was there before."""
    seen: set[T] = set()
    for id in ids:
        if id in seen:
            return id
        seen.add(id)
    return None


def repeated(name: str, id: Hashable, again: Iterable[tuple[str, Hashable]]) -> UserError:
    """The refusal of an id that stands twice; ``name`` is what it is called.

    ``again`` are (place, id) of all entries, read a second time, so that reading the first time need not hold them.
    """
    both = list(islice((where for where, other in again if other == id), 2))
    if len(both) < 2:
        return UserError(f"{name} stands twice, in a file that has changed since; read it again")
    return _twice(name, *both)


def _twice(name: str, first: str, second: str) -> UserError:
    """The places may begin with the same file, which is named once."""
    file, _, line = first.rpartition(", ")
    near = line if file and second.startswith(f"{file}, ") else first
    return UserError(f"{second}: {name} stands twice, first at {near}; keep one of them")


def content_of(title: str, text: str) -> str:
    """What is encoded and indexed of a document."""
    return f"{title} {text}" if title else text


def check_document(id: object, title: object, text: object, metadata: object) -> None:
    """Raise ``UserError`` unless the id is 1 to 512 bytes, not all white space, and everything can be stored."""
    for name, value in (("id", id), ("text", text), ("title", title)):
        if not isinstance(value, str):
            raise UserError(f'"{name}" holds {kind_name(value)}, not text; give text')
        if not is_storable(value):
            raise UserError(f'"{name}" holds half of a surrogate pair, which is no text; mend the encoding')
    assert isinstance(id, str)
    if not id.strip() or len(id.encode()) > LONGEST_ID:
        found = "only white space" if id.isspace() else str(len(id.encode()))
        raise UserError(f"an id has 1 to {LONGEST_ID} bytes, not {found}; give another id")
    if metadata != {}:
        _check_metadata(metadata)


def is_storable(text: str) -> bool:
    """Whether ``text`` is text: half of a surrogate pair is not, and no UTF-8 holds it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(key, str) and key for key in metadata):
        raise UserError('"metadata" is no object with names; give {"name": value}')
    try:
        stored = json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f'"metadata" cannot be stored as JSON ({error}); give plain JSON values') from error
    if len(stored) > LARGEST_METADATA:
        raise UserError(f'"metadata" has {len(stored):,} bytes; give {LARGEST_METADATA:,} at most')


def folded(query: str) -> str:
    """Two queries with one folded form are the same query: case and spacing do not count."""
    return " ".join(query.lower().split())


def passage_id(text: str) -> str:
    """A passage's id where the data has none: a hash of its text, the same in every file and order."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
