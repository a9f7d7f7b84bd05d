"""Arrow tables become judgements: rows of MS MARCO or of pairs, from Parquet or from the Hub.

A table is read a part at a time and a text that comes again and again is held once, so that memory follows the distinct
text. Only the columns that count are decoded.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from freemvmt.data.judgements import Judgements, from_pairs
from freemvmt.data.readers.jsonl import NOT_PASSAGES, check_columns
from freemvmt.errors import UserError

_AT_ONCE = 4096  # rows of a Parquet file that are decoded together
_USED = {"is_selected", "passage_text"}  # of the fields of MS MARCO's ``passages``


def read_parquet(path: Path, rows: int | None, query_field: str, passage_field: str) -> Judgements:
    """A Parquet file of MS MARCO rows or of pairs; texts that come again and again are held once."""
    parts: list[Judgements] = []
    done = 0
    for table in parquet_tables(path, query_field, passage_field, min(rows or _AT_ONCE, _AT_ONCE)):
        kept = table.slice(0, len(table) if rows is None else rows - done)
        with _sound(path):
            parts.append(from_table(kept, str(path), query_field, passage_field, before=done))
        done += len(kept)
        if done == rows:
            break
    joined = Judgements.join(parts) if parts else from_pairs([])
    parts.clear()
    pa.default_memory_pool().release_unused()  # what decoding took goes back to the system
    return joined


def parquet_tables(
    path: Path, query_field: str, passage_field: str, at_once: int, group: int | None = None
) -> Iterator[pa.Table]:
    """The columns that count of a Parquet file, or of one row group of it, ``at_once`` rows at a time."""
    with _sound(path):
        file = pq.ParquetFile(path, memory_map=True)
        schema = file.schema_arrow
        if not _is_ms_marco(schema.names):
            check_columns(schema.names, str(path), query_field, passage_field)
        columns = _columns(file, query_field, passage_field)
        if twice := next((name for name in columns if schema.names.count(name) > 1), None):
            raise UserError(f'{path}: a column "{twice}" stands twice; keep one of them')
        groups = None if group is None else [group]
        # Threads decode no faster, and what they take they keep.
        batches = file.iter_batches(at_once, groups, columns, use_threads=False)
    while True:
        with _sound(path):
            batch = next(batches, None)
            if batch is None:
                return
            table = pa.Table.from_batches([batch])
            table.validate(full=True)
        yield table


def parquet_shape(path: Path) -> tuple[list[int], bytes]:
    """(the rows of each row group, what tells the file from another: its footer)."""
    with _sound(path):
        metadata = pq.ParquetFile(path, memory_map=True).metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        told = repr([(group.num_rows, group.total_byte_size) for group in groups])
        return [group.num_rows for group in groups], f"{told} {path.stat().st_size} {metadata.schema}".encode()


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: names that are not UTF-8
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a sound Parquet file ({first}); fetch or write it again") from error


def _columns(file: pq.ParquetFile, query_field: str, passage_field: str) -> list[str]:
    """The columns that are read; of MS MARCO's ``passages`` only what is used, where it is as it should be."""
    wanted = dict.fromkeys(("query", "passages", query_field, passage_field, "negative"))
    columns = [name for name in wanted if name in file.schema_arrow.names]
    leaves = [file.schema.column(number).path for number in range(len(file.schema))]
    used = [leaf for leaf in leaves if leaf.startswith("passages.") and _USED & set(leaf.split("."))]
    if len(used) == len(_USED):
        columns.remove("passages")
        columns += used
    return columns


def from_table(table: pa.Table, where: str, query_field: str, passage_field: str, before: int = 0) -> Judgements:
    """From a table of MS MARCO rows (a column ``passages``), or one of pairs with an optional column ``negative``.

    ``before`` rows went before it, so that an error names the right one.
    """
    if _is_ms_marco(table.column_names):
        return _from_ms_marco(table, where, before)
    check_columns(table.column_names, where, query_field, passage_field)
    queries, passages = (_texts(table[name], name, where, before) for name in (query_field, passage_field))
    rows = np.arange(len(table))
    if "negative" not in table.column_names:
        return Judgements(queries, passages.dictionary_encode(), rows, np.ones(len(rows), np.bool_))
    counts, negatives = _negatives(_flat(table["negative"]), where, before)
    # Each row's answer stands before its negatives, as in a file of lines.
    rows = np.concatenate([rows, np.repeat(rows, counts)])
    order = np.argsort(rows, kind="stable")
    texts = pa.concat_arrays([passages, negatives]).take(pa.array(order))
    return Judgements(queries, texts.dictionary_encode(), rows[order], order < len(table))


def _negatives(column: Any, where: str, before: int) -> tuple[NDArray[np.int64], pa.LargeStringArray]:
    """(how many each row has, their texts): a column of texts, or of lists of them, in which null is none."""
    if _is_list(column.type):
        counts, texts = _lists(column)
    else:
        counts, texts = column.is_valid().to_numpy(zero_copy_only=False).astype(np.int64), column
    strings = _strings(texts)
    if strings is None:
        raise UserError(f'{where}: column "negative" holds {column.type}, not text; name a column of text')
    if texts is column:
        return counts, strings.drop_null()
    _no_nulls(strings, "negative", where, before, counts)
    return counts, strings


def _is_ms_marco(columns: Sequence[str]) -> bool:
    return "passages" in columns and "query" in columns


def _from_ms_marco(table: pa.Table, where: str, before: int) -> Judgements:
    """From the columns of ``microsoft/ms_marco``: ``query``, and ``passages`` as an object of lists or a list of
    objects, with ``is_selected`` and ``passage_text``."""
    queries = _texts(table["query"], "query", where, before)
    column = _flat(table["passages"])
    _no_nulls(column, "passages", where, before)
    if pa.types.is_struct(column.type):
        parts = {name: _list_column(part, name, where) for name, part in _fields(column, where).items()}
        counts, other = parts["passage_text"][0], parts["is_selected"][0]
        if (uneven := np.flatnonzero(counts != other)).size:
            row = int(uneven[0])
            found = f"{counts[row]} passages, {other[row]} is_selected marks"
            raise UserError(f"{where}, row {before + row + 1}: {found}; mend the row")
        texts, marks = parts["passage_text"][1], parts["is_selected"][1]
    elif _is_list(column.type) and pa.types.is_struct(column.type.value_type):
        counts, objects = _lists(column)
        texts, marks = (_fields(objects, where)[name] for name in ("passage_text", "is_selected"))
    else:
        raise UserError(f'{where}: column "passages" holds {column.type}, {NOT_PASSAGES}')
    strings = _strings(texts)
    if strings is None:
        raise UserError(f'{where}: "passage_text" holds {texts.type}, not text; write texts, one a passage')
    _no_nulls(strings, "passage_text", where, before, counts)
    _no_nulls(marks, "is_selected", where, before, counts)
    rows = np.repeat(np.arange(len(table)), counts)
    return Judgements(queries, strings.dictionary_encode(), rows, _selected(marks, where, rows + before))


def _fields(objects: pa.StructArray, where: str) -> dict[str, Any]:
    """The two columns of ``passages`` that are used."""
    names = [objects.type.field(number).name for number in range(objects.type.num_fields)]
    if missing := _USED - set(names):
        found = f"(found {', '.join(sorted(names))}); write MS MARCO's own columns"
        raise UserError(f'{where}: "passages" has no {", ".join(sorted(missing))} {found}')
    return {name: part for name, part in zip(names, objects.flatten(), strict=True) if name in _USED}


def _list_column(column: Any, name: str, where: str) -> tuple[NDArray[np.int64], Any]:
    if not _is_list(column.type):
        raise UserError(f'{where}: "{name}" holds {column.type}, not a list a row; write MS MARCO\'s own columns')
    return _lists(column)


def _selected(marks: Any, where: str, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each mark is above 0; ``rows`` are the places of the marks, from 0."""
    kind = marks.type
    if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind) or not len(marks)):
        raise UserError(f'{where}: "is_selected" holds {kind}, not numbers; write 0 or 1 for each passage')
    values = np.asarray(marks.to_numpy(zero_copy_only=False), np.float64)
    if (parts := np.flatnonzero(values != np.floor(values))).size:
        row, value = int(rows[parts[0]]) + 1, values[parts[0]]
        raise UserError(f'{where}, row {row}: "is_selected" holds {value}, not 0 or 1; mend or drop that row')
    selected: NDArray[np.bool_] = values > 0
    return selected


def _flat(column: Any) -> Any:
    """One array of a column that may come in chunks."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _is_list(kind: pa.DataType) -> bool:
    known = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(pa.types, name)(kind) for name in known)


def _lists(column: Any) -> tuple[NDArray[np.int64], Any]:
    """(how many items each list has, the items of all); a null has none."""
    lengths = pc.list_value_length(column).fill_null(0)
    return lengths.to_numpy(zero_copy_only=False).astype(np.int64), column.flatten()


def _texts(column: Any, name: str, where: str, before: int) -> pa.LargeStringArray:
    """A column of texts, none of them null."""
    strings = _strings(_flat(column))
    if strings is None:
        raise UserError(f'{where}: column "{name}" holds {column.type}, not text; name a column of text')
    _no_nulls(strings, name, where, before)
    return strings


def _strings(column: Any) -> pa.LargeStringArray | None:
    """Texts of any type that Arrow has for them, a dictionary of them too; None where they are none."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        if pa.types.is_string_view(kind.value_type):  # which Arrow cannot take from
            values = _strings(column.dictionary)
            return None if values is None else values.take(column.indices)
        return _strings(column.dictionary.take(column.indices))
    if any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        return column.cast(pa.large_string())
    return pa.nulls(len(column), pa.large_string()) if pa.types.is_null(kind) else None


def _no_nulls(column: Any, name: str, where: str, before: int, counts: NDArray[np.int64] | None = None) -> None:
    """``counts``: how many of the items of ``column`` each row has; None: one."""
    if column.null_count:
        item = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        row = item if counts is None else int(np.repeat(np.arange(len(counts)), counts)[item])
        raise UserError(f'{where}, row {before + row + 1}: "{name}" is null; mend or drop that row')
