"""Files become judgements: which passage answers which query, and which was given as one that does not.

Every format ends as ``Judgements``: a column of query texts, a column of passage texts, and for each passage the row of
its query and its label. Reading stays in Arrow columns where the format has them; where it has lines, an error
names the line.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from freemvmt.errors import UserError


@dataclass(frozen=True, eq=False)
class Judgements:
    """What the rows of one data set say.

    ``queries``: one text a row; ``passages``: all rows' passages, one behind the other; ``rows``: for each passage, the
    row it stands in (int64); ``labels``: for each passage, whether it answers that row's query (bool).
    """

    queries: pa.StringArray
    passages: pa.StringArray
    rows: NDArray[np.int64]
    labels: NDArray[np.bool_]

    @classmethod
    def join(cls, parts: Sequence["Judgements"]) -> "Judgements":
        """One behind the other."""
        first = np.cumsum([0, *(len(part.queries) for part in parts)])
        return cls(
            _concatenate([part.queries for part in parts]),
            _concatenate([part.passages for part in parts]),
            np.concatenate([part.rows + start for part, start in zip(parts, first, strict=False)]),
            np.concatenate([part.labels for part in parts]),
        )


def _concatenate(arrays: list[pa.StringArray]) -> pa.StringArray:
    return pa.concat_arrays([array.cast(pa.large_string()) for array in arrays])


def from_pairs(pairs: Iterable[tuple[str, list[str], list[str]]]) -> Judgements:
    """From (query, passages that answer it, passages that do not)."""
    queries: list[str] = []
    passages: list[str] = []
    rows: list[int] = []
    labels: list[bool] = []
    for row, (query, positives, negatives) in enumerate(pairs):
        queries.append(query)
        passages += positives
        passages += negatives
        rows += [row] * (len(positives) + len(negatives))
        labels += [True] * len(positives) + [False] * len(negatives)
    return Judgements(
        pa.array(queries, pa.large_string()),
        pa.array(passages, pa.large_string()),
        np.array(rows, np.int64),
        np.array(labels, np.bool_),
    )


def from_table(table: pa.Table, where: str, query_field: str, passage_field: str) -> Judgements:
    """From a table of MS MARCO rows (a column ``passages``), or one of pairs with an optional column ``negative``."""
    if "passages" in table.column_names and "query" in table.column_names:
        return _from_ms_marco(table, where)
    for field, option in ((query_field, "--query-field"), (passage_field, "--passage-field")):
        if field not in table.column_names:
            raise UserError(f"{where}: {_no_field(field, option, table.column_names)}")
    columns = [table[query_field], table[passage_field]]
    if "negative" in table.column_names:
        columns.append(table["negative"])
    for column, name in zip(columns, (query_field, passage_field, "negative"), strict=False):
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise UserError(f'{where}: column "{name}" holds {column.type}, not text; name a column of text')
        _no_nulls(column, name, where)
    size = len(table)
    queries, *passages = (column.combine_chunks() for column in columns)
    rows = np.arange(size)
    return Judgements(
        _flat(queries),
        _concatenate([_flat(column) for column in passages]),
        np.tile(rows, len(passages)),
        np.repeat([True, False], size)[: size * len(passages)],
    )


def _from_ms_marco(table: pa.Table, where: str) -> Judgements:
    """From the columns of ``microsoft/ms_marco``: ``query`` and ``passages{is_selected, passage_text, url}``."""
    _no_nulls(table["query"], "query", where)
    _no_nulls(table["passages"], "passages", where)
    passages = _flat(table["passages"])
    if not pa.types.is_struct(passages.type):
        raise UserError(f'{where}: column "passages" is {passages.type}, not the struct of MS MARCO\'s rows')
    names = {passages.type.field(number).name for number in range(passages.type.num_fields)}
    if missing := {"is_selected", "passage_text"} - names:
        raise UserError(f'{where}: "passages" has no {", ".join(sorted(missing))} (found {", ".join(sorted(names))})')
    texts, selected = passages.field("passage_text"), passages.field("is_selected")
    counts = np.nan_to_num(texts.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    marks = np.nan_to_num(selected.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    if (uneven := np.flatnonzero(counts != marks)).size:
        row = int(uneven[0])
        raise UserError(f"{where}, row {row + 1}: {counts[row]} passages, {marks[row]} is_selected marks; mend the row")
    flat, labels = texts.flatten(), selected.flatten()
    if flat.null_count or labels.null_count:
        raise UserError(f"{where}: a passage or its is_selected mark is null; mend or drop that row")
    return Judgements(
        _flat(table["query"]).cast(pa.large_string()),
        flat.cast(pa.large_string()),
        np.repeat(np.arange(len(table)), counts),
        labels.to_numpy(zero_copy_only=False).astype(np.int64) > 0,
    )


def _flat(column: Any) -> Any:
    """One array of a column that may come in chunks."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _no_nulls(column: Any, name: str, where: str) -> None:
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise UserError(f'{where}, row {row + 1}: "{name}" is null; mend or drop that row')


def _no_field(field: str, option: str, found: Iterable[str]) -> str:
    names = list(found)
    listed = ", ".join(f'"{name}"' for name in names)
    return f'no field "{field}" (found {listed or "none"}); name it with {option} {names[0] if names else "FIELD"}'


def read_parquet(path: Path, rows: int | None, query_field: str, passage_field: str) -> Judgements:
    """A Parquet file of MS MARCO rows or of pairs."""
    try:
        file = pq.ParquetFile(path, memory_map=True)
        wanted = dict.fromkeys(("query", "passages", query_field, passage_field, "negative"))
        columns = [name for name in wanted if name in file.schema_arrow.names]
        if rows is None:
            table = file.read(columns=columns or None)
        else:
            batches = []
            for batch in file.iter_batches(batch_size=min(rows, 65_536), columns=columns or None):
                batches.append(batch)
                if sum(map(len, batches)) >= rows:
                    break
            table = pa.Table.from_batches(batches, batches[0].schema if batches else file.schema_arrow).slice(0, rows)
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a sound Parquet file ({first}); fetch or write it again") from error
    if not table.column_names and file.schema_arrow.names:
        raise UserError(f"{path}: {_no_field(query_field, '--query-field', file.schema_arrow.names)}")
    return from_table(table, str(path), query_field, passage_field)


def read_jsonl(path: Path, rows: int | None, query_field: str, passage_field: str) -> Judgements:
    """A JSONL file of MS MARCO rows or of pairs, a line an object."""
    return from_pairs(_jsonl_pairs(path, rows, query_field, passage_field))


def _jsonl_pairs(
    path: Path, rows: int | None, query_field: str, passage_field: str
) -> Iterator[tuple[str, list[str], list[str]]]:
    for where, record in json_lines(path, rows):
        if isinstance(record.get("passages"), dict) and "query" in record:
            passages = record["passages"]
            texts, marks = passages.get("passage_text"), passages.get("is_selected")
            if not (_is_list(texts, str) and _is_list(marks, int) and len(texts) == len(marks)):
                raise UserError(f'{where}: "passages" needs equally long lists "passage_text" and "is_selected"')
            yield (
                text_of(record, "query", where, "--query-field"),
                [text for text, mark in zip(texts, marks, strict=True) if mark > 0],
                [text for text, mark in zip(texts, marks, strict=True) if mark <= 0],
            )
            continue
        query = text_of(record, query_field, where, "--query-field")
        passage = text_of(record, passage_field, where, "--passage-field")
        negative = [text_of(record, "negative", where, "--passage-field")] if "negative" in record else []
        yield query, [passage], negative


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def json_lines(path: Path, rows: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) for each line of a JSONL file; blank lines are passed over."""
    for number, line in numbered_lines(path, rows):
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            raise UserError(f"{where}: not JSON ({reason}); each line must be one object") from error
        if not isinstance(record, dict):
            raise UserError(f"{where}: a JSON {type(record).__name__}, not an object; each line must be one object")
        yield where, record


def text_of(record: dict[str, Any], field: str, where: str, option: str) -> str:
    """The text in ``field`` of a JSON object; numbers count as their digits."""
    if field not in record:
        raise UserError(f"{where}: {_no_field(field, option, record)}")
    value = record[field]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UserError(f'{where}: "{field}" holds {type(value).__name__}, not text; mend or drop that line')
    return value


def read_tsv(path: Path, rows: int | None) -> Judgements:
    """``query<TAB>passage`` or ``query<TAB>positive<TAB>negative``, one kind throughout."""

    def pairs() -> Iterator[tuple[str, list[str], list[str]]]:
        width = None
        for number, line in numbered_lines(path, rows):
            fields = line.split("\t")
            width = width or len(fields)
            if len(fields) != width or width not in (2, 3):
                expected = f"the {width} of the first line" if width in (2, 3) else "2 (query, passage) or 3"
                raise UserError(f"{path}, line {number}: {len(fields)} tab-separated fields, not {expected}")
            yield fields[0], [fields[1]], fields[2:]

    return from_pairs(pairs())


def tsv_fields(path: Path, widths: Sequence[int], rows: int | None = None) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a table whose lines have one of ``widths`` fields."""
    for number, line in numbered_lines(path, rows):
        fields = line.split("\t")
        if len(fields) not in widths:
            wanted = " or ".join(map(str, widths))
            raise UserError(f"{path}, line {number}: {len(fields)} tab-separated fields, not {wanted}")
        yield number, fields


def numbered_lines(path: Path, rows: int | None = None) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of the lines of a UTF-8 file that are not blank, at most ``rows`` of them."""
    given = 0
    with open_binary(path) as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                reason = f"byte {error.start + 1} is not UTF-8; save the file as UTF-8"
                raise UserError(f"{path}, line {number}: {reason}") from error
            if not line.strip():
                continue
            if given == rows:
                return
            given += 1
            yield number, line


def open_binary(path: Path) -> Any:
    """The file, opened; one line says why when it cannot be."""
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check the path") from error
