"""Arrow's file format, read without Arrow: the columns of a mapped file as numpy sees them, without a copy.

Only what a bundle holds: text, numbers of 64 bits, booleans, structs and lists of these; no compression, no
dictionaries. See
"IPC File Format" at https://arrow.apache.org/docs/format/Columnar.html: what says where the columns lie are
FlatBuffers, in which a table points back to a list of places, one a field, 0 where it has none.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Type = Literal["text", "int8", "int64", "float64", "boolean", "struct", "list"]
_MAGIC = b"ARROW1"
_INT, _FLOAT, _BOOL, _STRUCT, _LARGE_TEXT, _LARGE_LIST = 2, 3, 6, 13, 20, 21  # as Schema.fbs numbers the types
_WHOLE: dict[int, Type] = {8: "int8", 64: "int64"}
_RECORD_BATCH = 3
_DOUBLE = 2


@dataclass(frozen=True, eq=False)
class Array:
    """A column of one batch: ``values`` (rows,), or of text its UTF-8 (bytes,), which ``offsets`` (rows + 1,) divide.

    ``valid`` (rows,) says which are not null; None: all. ``parts`` are the columns of a struct; of lists the one column
    of all members, which ``offsets`` divide.
    """

    type: Type
    valid: NDArray[np.bool_] | None
    values: NDArray[Any]
    offsets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    parts: "tuple[Array, ...]" = ()


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows of a file, column by column."""

    rows: int
    columns: dict[str, Array]


@dataclass(frozen=True)
class _Field:
    name: str
    type: Type
    parts: "tuple[_Field, ...]"


def read_arrow(path: Path) -> list[Batch]:
    """The batches of the file at ``path``, which stays mapped as long as one of their arrays is held.

    Raises ``OSError`` or ``ValueError`` where it cannot be read, or is not what is described above.
    """
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        if content[: len(_MAGIC)] != _MAGIC or content[-len(_MAGIC) :] != _MAGIC:
            raise ValueError("no Arrow file")
        end = len(content) - len(_MAGIC) - 4
        (length,) = struct.unpack_from("<i", content, end)
        footer = _Table.root(content, end - length)
        fields = [_field(one) for one in footer.table(1).tables(1)]
        return [_batch(content, fields, *block) for block in footer.structs(3, "<qi4xq")]
    except (struct.error, IndexError, RecursionError) as error:
        raise ValueError(f"no sound Arrow file: {error}") from error


class _Table:
    """A table of a FlatBuffer; its fields are known by their numbers."""

    def __init__(self, content: mmap.mmap, place: int) -> None:
        if not 0 <= place < len(content):
            raise ValueError("a table that lies outside of the file")
        self._content, self._place = content, place

    @classmethod
    def root(cls, content: mmap.mmap, place: int) -> "_Table":
        """The table that the FlatBuffer at ``place`` begins with."""
        return cls(content, place)._pointed(place)

    def _read(self, form: str, place: int) -> int:
        return int(struct.unpack_from(form, self._content, place)[0])

    def _pointed(self, place: int) -> "_Table":
        return _Table(self._content, place + self._read("<I", place))

    def _at(self, number: int) -> int:
        """Where a field is; 0 where there is none."""
        places = self._place - self._read("<i", self._place)
        if 4 + 2 * number >= self._read("<H", places):
            return 0
        offset = self._read("<H", places + 4 + 2 * number)
        return self._place + offset if offset else 0

    def number(self, number: int, form: str) -> int:
        """A number; 0 where there is none."""
        place = self._at(number)
        return self._read(form, place) if place else 0

    def has(self, number: int) -> bool:
        """Whether the field is there."""
        return self._at(number) > 0

    def table(self, number: int) -> "_Table":
        """A table within; ``ValueError`` where there is none."""
        place = self._at(number)
        if not place:
            raise ValueError("a table that is missing")
        return self._pointed(place)

    def _list(self, number: int) -> tuple[int, int]:
        place = self._at(number)
        if not place:
            return 0, 0
        start = place + self._read("<I", place)
        return start + 4, self._read("<I", start)

    def tables(self, number: int) -> "Iterator[_Table]":
        """A list of tables."""
        start, count = self._list(number)
        for place in range(start, start + 4 * count, 4):
            yield self._pointed(place)

    def structs(self, number: int, form: str) -> list[tuple[int, ...]]:
        """A list of structs."""
        start, count = self._list(number)
        return list(struct.iter_unpack(form, self._content[start : start + count * struct.calcsize(form)]))

    def text(self, number: int) -> str:
        """A text."""
        start, count = self._list(number)
        return self._content[start : start + count].decode()


def _field(told: _Table) -> _Field:
    kind, type = told.number(2, "<B"), told.table(3)
    name, parts = told.text(0), tuple(_field(one) for one in told.tables(5))
    known: Type | None = None
    if kind == _INT:
        known = _WHOLE.get(type.number(0, "<i"))
    elif kind == _FLOAT and type.number(0, "<h") == _DOUBLE:
        known = "float64"
    else:
        plain: dict[int, Type] = {_LARGE_TEXT: "text", _BOOL: "boolean", _STRUCT: "struct", _LARGE_LIST: "list"}
        known = plain.get(kind)
    if known is None or told.has(4):
        raise ValueError(f"the column {name!r} is of a kind that no bundle has")
    return _Field(name, known, parts)


def _batch(content: mmap.mmap, fields: list[_Field], place: int, head: int, _: int) -> Batch:
    """The rows of the message at ``place``, whose description has ``head`` bytes, the marks before it included."""
    message = _Table.root(content, place + 8)
    if message.number(1, "<B") != _RECORD_BATCH:
        raise ValueError("a message that is no batch of rows")
    told = message.table(2)
    if told.has(3):
        raise ValueError("it is compressed")
    nodes = iter(told.structs(1, "<qq"))
    buffers = iter([(place + head + start, length) for start, length in told.structs(2, "<qq")])
    try:
        columns = {one.name: _array(content, one, nodes, buffers) for one in fields}
    except StopIteration:
        raise ValueError("columns are missing") from None
    return Batch(told.number(0, "<q"), columns)


def _array(
    content: mmap.mmap, told: _Field, nodes: "Iterator[tuple[int, ...]]", buffers: Iterator[tuple[int, int]]
) -> Array:
    rows, nulls = next(nodes)
    place, length = next(buffers)
    valid = _bits(content, place, rows) if nulls and length else None
    if told.type == "struct":
        parts = tuple(_array(content, one, nodes, buffers) for one in told.parts)
        return Array(told.type, valid, np.empty(0), parts=parts)
    place, length = next(buffers)
    if told.type == "list":
        offsets = _numbers(content, "<i8", place, rows + 1)
        return Array(told.type, valid, np.empty(0), offsets, (_array(content, told.parts[0], nodes, buffers),))
    if told.type == "text":
        data, size = next(buffers)
        return Array(
            told.type, valid, _numbers(content, np.uint8, data, size), _numbers(content, "<i8", place, rows + 1)
        )
    if told.type == "boolean":
        return Array(told.type, valid, _bits(content, place, rows))
    return Array(told.type, valid, _numbers(content, np.dtype(told.type).newbyteorder("<"), place, rows))


def _numbers(content: mmap.mmap, type: Any, place: int, count: int) -> NDArray[Any]:
    if count < 0 or place < 0:
        raise ValueError("a column of less than nothing")
    return np.frombuffer(content, type, count, place) if count else np.empty(0, type)


def _bits(content: mmap.mmap, place: int, count: int) -> NDArray[np.bool_]:
    packed = _numbers(content, np.uint8, place, (count + 7) // 8)
    return np.unpackbits(packed, count=count, bitorder="little").view(np.bool_)
