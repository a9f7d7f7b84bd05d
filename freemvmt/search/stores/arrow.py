"""A reader of Arrow files without pyarrow: it maps the file and returns its columns as NumPy arrays, without a copy.

It reads only the types that a bundle has: text, numbers of 64 bits, booleans, structs and lists of these. Compression
and dictionaries are not supported. See "IPC File Format" at https://arrow.apache.org/docs/format/Columnar.html. The
headers are FlatBuffers: a table points back to a list with the offset of each field, which is 0 if the field is absent.
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
_INT, _FLOAT, _BOOL, _STRUCT, _LARGE_TEXT, _LARGE_LIST = 2, 3, 6, 13, 20, 21  # the type codes of Schema.fbs
_INT_TYPES: dict[int, Type] = {8: "int8", 64: "int64"}
_RECORD_BATCH = 3
_DOUBLE = 2


@dataclass(frozen=True, eq=False)
class Array:
    """A column of one batch.

    ``values`` is (rows,). For text it is the UTF-8 of all rows (bytes,), and ``offsets`` (rows + 1,) says where each
    row begins and ends. ``valid`` (rows,) is false for nulls; None when there are none. ``parts`` are the columns of a
    struct, or the one column of all list members, which ``offsets`` divides into lists.
    """

    type: Type
    valid: NDArray[np.bool_] | None
    values: NDArray[Any]
    offsets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    parts: "tuple[Array, ...]" = ()


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows of a file, by column."""

    rows: int
    columns: dict[str, Array]


@dataclass(frozen=True)
class _Field:
    name: str
    type: Type
    parts: "tuple[_Field, ...]"


def read_arrow(path: Path) -> list[Batch]:
    """The batches of the file at ``path``, which stays mapped while one of their arrays is in use.

    Raises ``OSError`` or ``ValueError`` when the file cannot be read or has other types than this reader supports.
    """
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        if content[: len(_MAGIC)] != _MAGIC or content[-len(_MAGIC) :] != _MAGIC:
            raise ValueError("no Arrow file")
        end = len(content) - len(_MAGIC) - 4
        (length,) = struct.unpack_from("<i", content, end)
        footer = _Table.root(content, end - length)
        fields = [_field(child) for child in footer.table(1).tables(1)]
        return [_batch(content, fields, *block) for block in footer.structs(3, "<qi4xq")]
    except (struct.error, IndexError, RecursionError) as error:
        raise ValueError(f"no sound Arrow file: {error}") from error


class _Table:
    """A table of a FlatBuffer; a field is addressed by its number."""

    def __init__(self, content: mmap.mmap, place: int) -> None:
        if not 0 <= place < len(content):
            raise ValueError("a table that lies outside of the file")
        self._content, self._place = content, place

    @classmethod
    def root(cls, content: mmap.mmap, place: int) -> "_Table":
        """The root table of the FlatBuffer at ``place``."""
        return cls(content, place)._follow(place)

    def _read(self, form: str, place: int) -> int:
        return int(struct.unpack_from(form, self._content, place)[0])

    def _follow(self, place: int) -> "_Table":
        return _Table(self._content, place + self._read("<I", place))

    def _position(self, number: int) -> int:
        """The position of a field in the file; 0 when it is absent."""
        offsets = self._place - self._read("<i", self._place)
        if 4 + 2 * number >= self._read("<H", offsets):
            return 0
        offset = self._read("<H", offsets + 4 + 2 * number)
        return self._place + offset if offset else 0

    def number(self, number: int, form: str) -> int:
        """A number; 0 when it is absent."""
        place = self._position(number)
        return self._read(form, place) if place else 0

    def has(self, number: int) -> bool:
        """Whether the field is present."""
        return self._position(number) > 0

    def table(self, number: int) -> "_Table":
        """A nested table; ``ValueError`` when it is absent."""
        place = self._position(number)
        if not place:
            raise ValueError("a table that is missing")
        return self._follow(place)

    def _list(self, number: int) -> tuple[int, int]:
        place = self._position(number)
        if not place:
            return 0, 0
        start = place + self._read("<I", place)
        return start + 4, self._read("<I", start)

    def tables(self, number: int) -> "Iterator[_Table]":
        """A list of tables."""
        start, count = self._list(number)
        for place in range(start, start + 4 * count, 4):
            yield self._follow(place)

    def structs(self, number: int, form: str) -> list[tuple[int, ...]]:
        """A list of structs."""
        start, count = self._list(number)
        return list(struct.iter_unpack(form, self._content[start : start + count * struct.calcsize(form)]))

    def text(self, number: int) -> str:
        """A string."""
        start, count = self._list(number)
        return self._content[start : start + count].decode()


def _field(table: _Table) -> _Field:
    code, type = table.number(2, "<B"), table.table(3)
    name, parts = table.text(0), tuple(_field(child) for child in table.tables(5))
    field_type: Type | None = None
    if code == _INT:
        field_type = _INT_TYPES.get(type.number(0, "<i"))
    elif code == _FLOAT and type.number(0, "<h") == _DOUBLE:
        field_type = "float64"
    else:
        types: dict[int, Type] = {_LARGE_TEXT: "text", _BOOL: "boolean", _STRUCT: "struct", _LARGE_LIST: "list"}
        field_type = types.get(code)
    if field_type is None or table.has(4):
        raise ValueError(f"the column {name!r} is of a kind that no bundle has")
    return _Field(name, field_type, parts)


def _batch(content: mmap.mmap, fields: list[_Field], place: int, head: int, _: int) -> Batch:
    """The rows of the message at ``place``; its metadata has ``head`` bytes, including the prefix."""
    message = _Table.root(content, place + 8)
    if message.number(1, "<B") != _RECORD_BATCH:
        raise ValueError("a message that is no batch of rows")
    header = message.table(2)
    if header.has(3):
        raise ValueError("it is compressed")
    nodes = iter(header.structs(1, "<qq"))
    buffers = iter([(place + head + start, length) for start, length in header.structs(2, "<qq")])
    try:
        columns = {column.name: _array(content, column, nodes, buffers) for column in fields}
    except StopIteration:
        raise ValueError("columns are missing") from None
    return Batch(header.number(0, "<q"), columns)


def _array(
    content: mmap.mmap, column: _Field, nodes: "Iterator[tuple[int, ...]]", buffers: Iterator[tuple[int, int]]
) -> Array:
    rows, nulls = next(nodes)
    place, length = next(buffers)
    valid = _bits(content, place, rows) if nulls and length else None
    if column.type == "struct":
        parts = tuple(_array(content, part, nodes, buffers) for part in column.parts)
        return Array(column.type, valid, np.empty(0), parts=parts)
    place, length = next(buffers)
    if column.type == "list":
        offsets = _numbers(content, "<i8", place, rows + 1)
        return Array(column.type, valid, np.empty(0), offsets, (_array(content, column.parts[0], nodes, buffers),))
    if column.type == "text":
        data, size = next(buffers)
        return Array(
            column.type, valid, _numbers(content, np.uint8, data, size), _numbers(content, "<i8", place, rows + 1)
        )
    if column.type == "boolean":
        return Array(column.type, valid, _bits(content, place, rows))
    return Array(column.type, valid, _numbers(content, np.dtype(column.type).newbyteorder("<"), place, rows))


def _numbers(content: mmap.mmap, type: Any, place: int, count: int) -> NDArray[Any]:
    if count < 0 or place < 0:
        raise ValueError("a column of less than nothing")
    return np.frombuffer(content, type, count, place) if count else np.empty(0, type)


def _bits(content: mmap.mmap, place: int, count: int) -> NDArray[np.bool_]:
    packed = _numbers(content, np.uint8, place, (count + 7) // 8)
    return np.unpackbits(packed, count=count, bitorder="little").view(np.bool_)
