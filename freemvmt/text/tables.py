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
import pyarrow.parquet as pq

from freemvmt.errors import UserError
from freemvmt.text.formats import Judgements, check_columns, from_pairs

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
        columns = _columns(schema, query_field, passage_field)
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


def _columns(schema: pa.Schema, query_field: str, passage_field: str) -> list[str]:
    """The columns that are read; of MS MARCO's ``passages`` only what is used, where it is as it should be."""
    wanted = dict.fromkeys(("query", "passages", query_field, passage_field, "negative"))
    columns = [name for name in wanted if name in schema.names]
    for field in schema:
        if field.name == "passages" and pa.types.is_struct(field.type) and _field_names(field.type) >= _USED:
            columns.remove("passages")
            columns += [f"passages.{name}" for name in sorted(_USED)]
    return columns


def _field_names(struct: pa.StructType) -> set[str]:
    return {struct.field(number).name for number in range(struct.num_fields)}


def from_table(table: pa.Table, where: str, query_field: str, passage_field: str, before: int = 0) -> Judgements:
    """From a table of MS MARCO rows (a column ``passages``), or one of pairs with an optional column ``negative``.

    ``before`` rows went before it, so that an error names the right one.
    """
    if _is_ms_marco(table.column_names):
        return _from_ms_marco(table, where, before)
    check_columns(table.column_names, where, query_field, passage_field)
    columns = [table[query_field], table[passage_field]]
    if "negative" in table.column_names:
        columns.append(table["negative"])
    for column, name in zip(columns, (query_field, passage_field, "negative"), strict=False):
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise UserError(f'{where}: column "{name}" holds {column.type}, not text; name a column of text')
        _no_nulls(column, name, where, before)
    size = len(table)
    queries, *passages = (_large(_flat(column)) for column in columns)
    rows = np.arange(size)
    return Judgements(
        queries,
        pa.concat_arrays(passages).dictionary_encode(),
        np.tile(rows, len(passages)),
        np.repeat([True, False], size)[: size * len(passages)],
    )


def _is_ms_marco(columns: Sequence[str]) -> bool:
    return "passages" in columns and "query" in columns


def _from_ms_marco(table: pa.Table, where: str, before: int) -> Judgements:
    """From the columns of ``microsoft/ms_marco``: ``query`` and ``passages{is_selected, passage_text, url}``."""
    _no_nulls(table["query"], "query", where, before)
    _no_nulls(table["passages"], "passages", where, before)
    passages = _flat(table["passages"])
    if not pa.types.is_struct(passages.type):
        wanted = "the struct of MS MARCO's rows; leave that column out if these are pairs"
        raise UserError(f'{where}: column "passages" is {passages.type}, not {wanted}')
    names = _field_names(passages.type)
    if missing := _USED - names:
        found = f"(found {', '.join(sorted(names))}); write MS MARCO's own columns"
        raise UserError(f'{where}: "passages" has no {", ".join(sorted(missing))} {found}')
    texts, selected = passages.field("passage_text"), passages.field("is_selected")
    for name, column in (("passage_text", texts), ("is_selected", selected)):
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            raise UserError(f'{where}: "{name}" holds {column.type}, not a list a row; write MS MARCO\'s own columns')
    counts = np.nan_to_num(texts.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    marks = np.nan_to_num(selected.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    if (uneven := np.flatnonzero(counts != marks)).size:
        row = int(uneven[0])
        found = f"{counts[row]} passages, {marks[row]} is_selected marks"
        raise UserError(f"{where}, row {before + row + 1}: {found}; mend the row")
    flat, labels = texts.flatten(), selected.flatten()
    if flat.null_count or labels.null_count:
        raise UserError(f"{where}: a passage or its is_selected mark is null; mend or drop that row")
    try:
        queries, coded = _large(_flat(table["query"])), _large(flat).dictionary_encode()
        labels = labels.cast(pa.int64()).to_numpy(zero_copy_only=False) > 0
    except pa.ArrowException as error:
        wanted = "query and passage_text must be text, is_selected a number"
        raise UserError(f"{where}: {str(error).splitlines()[0]}; {wanted}") from error
    return Judgements(queries, coded, np.repeat(np.arange(len(table)), counts), labels)


def _flat(column: Any) -> Any:
    """One array of a column that may come in chunks."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _no_nulls(column: Any, name: str, where: str, before: int) -> None:
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise UserError(f'{where}, row {before + row + 1}: "{name}" is null; mend or drop that row')


def _large(texts: Any) -> pa.LargeStringArray:
    return texts.cast(pa.large_string())
