"""Read Parquet files and Arrow tables of MS MARCO rows or of pairs.

Each distinct text is held once, so the memory depends on the distinct text. Only the needed columns are decoded.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from freemvmt.data.judgements import Judgements, from_pairs, index_column, numbers
from freemvmt.data.readers.jsonl import NOT_PASSAGES, check_columns
from freemvmt.errors import UserError, first_line
from freemvmt.runtime.console import count_of

BATCH_ROWS = 4096  # rows to decode at a time
_MAX_GROUP = 2**28  # bytes of the passages, as the file stores them, in a row group that is decoded at once
_PASSAGE_FIELDS = {"is_selected", "passage_text"}  # the needed fields of MS MARCO's ``passages``


def read_parquet(path: Path, rows: int | None, query_field: str, passage_field: str) -> Judgements:
    """The rows of a Parquet file: MS MARCO rows or pairs. Each distinct text is held once."""
    chunks: list[Judgements] = []
    rows_read = 0
    for table in _one_ahead(_tables(path, rows, query_field, passage_field)):
        chunk = table.slice(0, len(table) if rows is None else rows - rows_read)
        with parquet_errors(path):
            chunks.append(from_table(chunk, str(path), query_field, passage_field, before=rows_read))
        rows_read += len(chunk)
        if rows_read == rows:
            break
    judgements = Judgements.join(chunks) if chunks else from_pairs([])
    chunks.clear()
    pa.default_memory_pool().release_unused()  # return the memory of decoding to the system
    return judgements


def _one_ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same tables. A thread decodes each while the one before it is used."""
    with ThreadPoolExecutor(1) as decoder:
        following = decoder.submit(next, tables, None)
        while (table := following.result()) is not None:
            following = decoder.submit(next, tables, None)
            yield table


def _tables(path: Path, rows: int | None, query_field: str, passage_field: str) -> Iterator[pa.Table]:
    """The needed columns of a Parquet file, in tables that together have its first ``rows`` rows or more.

    A file stores repeated passages as numbers and a dictionary. Where all rows are read and the dictionary is not
    large, they stay so: to decode each row's passages, only to find the distinct ones again, takes five times as long.
    """
    with parquet_errors(path):
        file = pq.ParquetFile(path, memory_map=True)
        leaf = _passage_leaf(file)
    if rows is not None or leaf is None:
        return parquet_tables(path, query_field, passage_field, min(rows or BATCH_ROWS, BATCH_ROWS))
    with parquet_errors(path):
        columns = _columns(file, path, query_field, passage_field)
        file = pq.ParquetFile(path, memory_map=True, read_dictionary=[leaf])
    groups = range(file.num_row_groups)
    return _checked(path, (file.read_row_group(number, columns, use_threads=False) for number in groups))


def _passage_leaf(file: pq.ParquetFile) -> str | None:
    """The path of the passages' texts in MS MARCO rows, if no row group has too many of them for one table."""
    for number in range(len(file.schema)):
        leaf = file.schema.column(number).path
        if leaf.startswith("passages.") and "passage_text" in leaf.split("."):
            groups = (file.metadata.row_group(group).column(number) for group in range(file.num_row_groups))
            return leaf if all(group.total_uncompressed_size <= _MAX_GROUP for group in groups) else None
    return None


def parquet_tables(
    path: Path, query_field: str, passage_field: str, batch_size: int, group: int | None = None
) -> Iterator[pa.Table]:
    """The needed columns of a Parquet file or of one of its row groups, ``batch_size`` rows at a time."""
    with parquet_errors(path):
        file = pq.ParquetFile(path, memory_map=True)
        columns = _columns(file, path, query_field, passage_field)
        groups = None if group is None else [group]
        # Arrow's own threads are not faster, and they do not free their memory.
        batches = file.iter_batches(batch_size, groups, columns, use_threads=False)
    return _checked(path, (pa.Table.from_batches([batch]) for batch in batches))


def _checked(path: Path, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The tables of the file ``path``. Raises ``UserError`` if one is damaged."""
    while True:
        with parquet_errors(path):
            table = next(tables, None)
            if table is None:
                return
            table.validate(full=True)
        yield table


def parquet_shape(path: Path) -> tuple[list[int], bytes]:
    """(the number of rows of each row group, bytes of the footer that identify the file)."""
    with parquet_errors(path):
        file = pq.ParquetFile(path, memory_map=True)
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        sizes = repr([(group.num_rows, group.total_byte_size) for group in groups])
        return [group.num_rows for group in groups], f"{sizes} {path.stat().st_size} {file.schema_arrow}".encode()


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Turn the errors of reading the Parquet file ``path`` into a ``UserError``."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: column names that are not UTF-8
        reason = first_line(error)
        raise UserError(f"{path} is not a sound Parquet file ({reason}); fetch or write it again") from error


def check_distinct(needed: Sequence[str], columns: Sequence[str], path: Path) -> None:
    """Raise ``UserError`` if one of the ``needed`` columns stands twice in ``columns``."""
    if duplicate := next((name for name in needed if columns.count(name) > 1), None):
        raise UserError(f'{path}: a column "{duplicate}" stands twice; keep one of them')


def _columns(file: pq.ParquetFile, path: Path, query_field: str, passage_field: str) -> list[str]:
    """The columns to read. Of MS MARCO's ``passages`` only the needed fields, if the column has them all.

    Raises ``UserError`` if a column is missing or stands twice.
    """
    names = file.schema_arrow.names
    if not _is_ms_marco(names):
        check_columns(names, str(path), query_field, passage_field)
    candidates = dict.fromkeys(("query", "passages", query_field, passage_field, "negative"))
    columns = [name for name in candidates if name in names]
    leaves = [file.schema.column(number).path for number in range(len(file.schema))]
    passages = [leaf for leaf in leaves if leaf.startswith("passages.") and _PASSAGE_FIELDS & set(leaf.split("."))]
    if len(passages) == len(_PASSAGE_FIELDS):
        columns.remove("passages")
        columns += passages
    check_distinct(columns, names, path)
    return columns


def from_table(table: pa.Table, where: str, query_field: str, passage_field: str, before: int = 0) -> Judgements:
    """Judgements from a table of MS MARCO rows (a column ``passages``) or of pairs (optionally with ``negative``).

    ``before`` is the number of rows before the table, so that an error has the right row number.
    """
    if _is_ms_marco(table.column_names):
        return _from_ms_marco(table, where, before)
    check_columns(table.column_names, where, query_field, passage_field)
    queries, passages = (_texts(table[name], name, where, before) for name in (query_field, passage_field))
    rows = np.arange(len(table))
    if "negative" not in table.column_names:
        return Judgements(queries, passages.dictionary_encode(), rows, np.ones(len(rows), np.bool_))
    counts, negatives = _negatives(_combined(table["negative"]), where, before)
    # The positive of a row comes before its negatives, as in JSONL and TSV.
    rows = np.concatenate([rows, np.repeat(rows, counts)])
    order = np.argsort(rows, kind="stable")
    texts = pa.concat_arrays([passages, negatives]).take(index_column(order))
    return Judgements(queries, texts.dictionary_encode(), rows[order], order < len(table))


def _negatives(column: Any, where: str, before: int) -> tuple[NDArray[np.int64], pa.LargeStringArray]:
    """(the number of negatives of each row, their texts), from a column of texts or lists of texts, or nulls."""
    if _is_list(column.type):
        counts, texts = _lists(column)
    else:
        counts, texts = numbers(column.is_valid(), np.int64), column
    strings = _strings(texts)
    if strings is None:
        raise UserError(f'{where}: column "negative" holds {column.type}, not text; name a column of text')
    if texts is column:
        return counts, strings.drop_null()
    _check_no_nulls(strings, "negative", where, before, counts)
    return counts, strings


def _is_ms_marco(columns: Sequence[str]) -> bool:
    return "passages" in columns and "query" in columns


def _from_ms_marco(table: pa.Table, where: str, before: int) -> Judgements:
    """Judgements from the columns ``query`` and ``passages`` of ``microsoft/ms_marco``.

    ``passages`` is an object of lists or a list of objects, with the fields ``is_selected`` and ``passage_text``.
    """
    queries = _texts(table["query"], "query", where, before)
    column = _combined(table["passages"])
    _check_no_nulls(column, "passages", where, before)
    if pa.types.is_struct(column.type):
        fields = {name: _list_column(field, name, where) for name, field in _fields(column, where).items()}
        counts, label_counts = fields["passage_text"][0], fields["is_selected"][0]
        if (uneven := np.flatnonzero(counts != label_counts)).size:
            row = int(uneven[0])
            marks = count_of(int(label_counts[row]), "is_selected mark")
            problem = f"{count_of(int(counts[row]), 'passage')}, {marks}"
            raise UserError(f"{where}, row {before + row + 1}: {problem}; mend the row")
        texts, labels = fields["passage_text"][1], fields["is_selected"][1]
    elif _is_list(column.type) and pa.types.is_struct(column.type.value_type):
        counts, objects = _lists(column)
        texts, labels = (_fields(objects, where)[name] for name in ("passage_text", "is_selected"))
    else:
        raise UserError(f'{where}: column "passages" holds {column.type}, {NOT_PASSAGES}')
    distinct = _encoded(texts)
    if distinct is None:
        raise UserError(f'{where}: "passage_text" holds {texts.type}, not text; write texts, one a passage')
    _check_no_nulls(distinct, "passage_text", where, before, counts)
    _check_no_nulls(labels, "is_selected", where, before, counts)
    rows = np.repeat(np.arange(len(table)), counts)
    return Judgements(queries, distinct, rows, _is_selected(labels, where, rows + before))


def _fields(objects: pa.StructArray, where: str) -> dict[str, Any]:
    """The two needed fields of ``passages``."""
    names = [objects.type.field(number).name for number in range(objects.type.num_fields)]
    if missing := _PASSAGE_FIELDS - set(names):
        hint = f"(found {', '.join(sorted(names))}); write MS MARCO's own columns"
        raise UserError(f'{where}: "passages" has no {", ".join(sorted(missing))} {hint}')
    return {name: field for name, field in zip(names, objects.flatten(), strict=True) if name in _PASSAGE_FIELDS}


def _list_column(column: Any, name: str, where: str) -> tuple[NDArray[np.int64], Any]:
    if not _is_list(column.type):
        dtype = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        raise UserError(f'{where}: "{name}" holds {dtype}, not a list a row; write MS MARCO\'s own columns')
    return _lists(column)


def _is_selected(labels: Any, where: str, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each label is above 0. ``rows`` are the row numbers of the labels, from 0."""
    dtype = labels.type
    if not (pa.types.is_integer(dtype) or pa.types.is_boolean(dtype) or pa.types.is_floating(dtype) or not len(labels)):
        raise UserError(f'{where}: "is_selected" holds {dtype}, not numbers; write 0 or 1 for each passage')
    values = numbers(labels, np.float64)
    if (fractions := np.flatnonzero(values != np.floor(values))).size:
        row, value = int(rows[fractions[0]]) + 1, values[fractions[0]]
        raise UserError(f'{where}, row {row}: "is_selected" holds {value}, not 0 or 1; mend or drop that row')
    selected: NDArray[np.bool_] = values > 0
    return selected


def _combined(column: Any) -> Any:
    """A column, which may be chunked, as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _is_list(dtype: pa.DataType) -> bool:
    tests = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(pa.types, name)(dtype) for name in tests)


def _lists(column: Any) -> tuple[NDArray[np.int64], Any]:
    """(the length of each list, the items of all lists). A null counts as an empty list."""
    lengths = pc.list_value_length(column)
    if lengths.null_count:
        lengths = lengths.fill_null(0)
    return numbers(lengths, np.int64), column.flatten()


def _texts(column: Any, name: str, where: str, before: int) -> pa.LargeStringArray:
    """A column of texts. Raises ``UserError`` for another type or a null."""
    strings = _strings(_combined(column))
    if strings is None:
        hint = "write a row for each text in it" if _is_list(column.type) else "name a column of text"
        raise UserError(f'{where}: column "{name}" holds {column.type}, not text; {hint}')
    _check_no_nulls(strings, name, where, before)
    return strings


def _strings(column: Any) -> pa.LargeStringArray | None:
    """A column of any text type of Arrow, also a dictionary, as large strings; None if it is not of text."""
    dtype = column.type
    if pa.types.is_dictionary(dtype):
        if pa.types.is_string_view(dtype.value_type):  # Arrow has no ``take`` for it
            values = _strings(column.dictionary)
            return None if values is None else values.take(column.indices)
        return _strings(column.dictionary.take(column.indices))
    if any(test(dtype) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        return column.cast(pa.large_string())
    return pa.nulls(len(column), pa.large_string()) if pa.types.is_null(dtype) else None


def _encoded(column: Any) -> pa.DictionaryArray | None:
    """A column of any text type of Arrow as numbers of its distinct texts; None if it is not of text."""
    if pa.types.is_dictionary(column.type) and not column.dictionary.null_count:
        values = _strings(column.dictionary)
        if values is not None and len(values.unique()) == len(values):  # Arrow does not promise it
            return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), values)
    strings = _strings(column)
    return None if strings is None else strings.dictionary_encode()


def _check_no_nulls(column: Any, name: str, where: str, before: int, counts: NDArray[np.int64] | None = None) -> None:
    """Raise ``UserError`` for a null. ``counts``: the number of items of each row in ``column``; None: one."""
    if column.null_count:
        item = int(numbers(column.is_null(), np.int64).argmax())
        row = item if counts is None else int(np.repeat(np.arange(len(counts)), counts)[item])
        raise UserError(f'{where}, row {before + row + 1}: "{name}" is null; mend or drop that row')
