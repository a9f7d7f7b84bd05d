"""Read the documents of a file, one at a time, for `index`, `encode`, `add` and `evaluate`.

JSONL and Parquet: an object or row with ``text``, and optionally ``_id`` or ``id``, ``title`` and ``metadata``. Any
other field is added to the metadata. TSV: (id, text), (id, title, text), or the columns of a header.
"""

import datetime
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from freemvmt.data.lines import json_lines, unknown_ending, unpack_hint
from freemvmt.data.readers.parquet import check_distinct, parquet_errors
from freemvmt.data.readers.tsv import DOCUMENTS, table_rows
from freemvmt.data.values import Metadata, check_document, duplicate_error, id_of, optional_text, passage_id, text_of
from freemvmt.errors import UserError
from freemvmt.storage.files import check_regular

RECORD_FIELDS = ("_id", "id", "text", "title", "metadata")
_CORPUS_FILES = ("corpus.jsonl", "collection.tsv")  # in a folder
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # a column of row numbers that pandas adds


class Record(NamedTuple):
    """A document, and the line or row of its file (``where``)."""

    where: str
    id: str
    title: str
    text: str
    metadata: Metadata


def read_records(path: Path) -> Iterator[Record]:
    """The documents of a JSONL, TSV or Parquet file. Raises ``UserError`` with the wrong line or row."""
    if path.suffix == ".jsonl":
        yield from (record_of(fields, where) for where, fields in json_lines(path))
    elif path.suffix == ".tsv":
        for where, (id, title, text) in table_rows(path, DOCUMENTS):
            yield record_of({"id": id, "title": title, "text": text}, where)
    elif path.suffix == ".parquet":
        yield from _from_parquet(path)
    else:
        raise unknown_ending(path)


def duplicate_record_error(path: Path, id: str) -> UserError:
    """The error for two documents with the same ``id`` in a file. It names both places."""
    first = next((record for record in read_records(path) if record.id == id), None)
    has_no_id = first is not None and id == passage_id(first.text)
    name = f"a text without an id ({first.text[:40]!r})" if has_no_id and first else f"the document {id[:200]!r}"
    return duplicate_error(name, id, ((record.where, record.id) for record in read_records(path)))


def is_folder_of_files(path: Path) -> bool:
    """Whether ``path`` is a folder without a corpus in one file, packed or not, so that its files are the documents."""
    try:
        if not path.is_dir():
            return False
        return not any((path / name).is_file() or unpack_hint(path, name) for name in _CORPUS_FILES)
    except (OSError, ValueError):  # no valid path
        return False


def corpus_file(path: Path) -> Path:
    """The file of the documents: ``path`` itself, or ``corpus.jsonl`` or ``collection.tsv`` in the folder ``path``."""
    try:
        if not path.is_dir():
            check_regular(path)
            return path
    except (OSError, ValueError) as error:
        reason = "" if isinstance(error, FileNotFoundError) else f" ({getattr(error, 'strerror', error)})"
        choices = "pydocs, a folder, or a file of JSONL, TSV or Parquet"
        raise UserError(f"there is no corpus {str(path)[:200]!r}{reason}; give {choices}") from error
    for file in _CORPUS_FILES:
        if (path / file).is_file():
            return path / file
    hint = unpack_hint(path, "corpus.jsonl") or unpack_hint(path, "collection.tsv") or "give the file of the documents"
    raise UserError(f"{path} holds no corpus.jsonl and no collection.tsv; {hint}")


def record_of(fields: Mapping[str, Any], where: str) -> Record:
    """The document of an object or row. Without an id, its id is a hash of its text."""
    if "text" not in fields:
        field_names = ", ".join(f'"{name}"' for name in fields) or "none"
        raise UserError(f'{where}: no text in a field "text" (fields: {field_names}); give each document its text')
    text = text_of(fields["text"], "text", where)
    title = optional_text(fields.get("title"), "title", where)
    id_field = "id" if fields.get("_id") is None else "_id"
    id = passage_id(text) if fields.get(id_field) is None else id_of(fields[id_field], id_field, where)
    metadata = {} if fields.get("metadata") is None else fields["metadata"]
    if isinstance(metadata, dict):
        metadata = metadata | _extra_fields(fields, metadata, where)
    try:
        check_document(id, title, text, metadata)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return Record(where, id, title, text, metadata)


def _extra_fields(fields: Mapping[str, Any], metadata: Metadata, where: str) -> Metadata:
    """The fields to add to the metadata. ``id`` is one of them if ``_id`` has another value."""
    extra = {key: value for key, value in fields.items() if key not in RECORD_FIELDS}
    if fields.get("_id") is not None and fields.get("id") not in (None, fields["_id"]):
        extra["id"] = fields["id"]
    if conflicts := [key for key in extra if key in metadata and metadata[key] != extra[key]]:
        problem = f'"{conflicts[0][:60]}" stands beside "metadata" and, with another value, in it'
        raise UserError(f"{where}: {problem}; keep one of them")
    return extra


def _from_parquet(path: Path) -> Iterator[Record]:
    number = 0
    with parquet_errors(path):
        file = pq.ParquetFile(path, memory_map=True)
        names = file.schema_arrow.names
        check_distinct(names, names, path)
        for batch in file.iter_batches(batch_size=8192):
            for row in batch.to_pylist():
                number += 1
                where = f"{path}, row {number}"
                yield record_of(_json_fields(row, where), where)


def _json_fields(row: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields of a row as JSON has them, without nulls and pandas' index. Id, title and text stay as they are."""
    record_fields = {name: row[name] for name in ("_id", "id", "title", "text") if name in row}
    extra = {
        name: value for name, value in row.items() if name not in record_fields and not _PANDAS_INDEX.fullmatch(name)
    }
    return record_fields | {
        name: _json_value(value, f'{where}: "{name}"') for name, value in extra.items() if value is not None
    }


def _json_value(value: Any, where: str) -> Any:
    """An Arrow value as JSON has it.

    Dates and times become ISO 8601; NaN and infinity become null. Other types that JSON lacks (decimals) become text.
    """
    if isinstance(value, bytes):
        raise UserError(f"{where} holds bytes, which JSON does not have; leave that column out")
    if isinstance(value, list) and value and isinstance(value[0], tuple):  # a map
        if len(keys := {str(key) for key, _ in value}) < len(value):
            raise UserError(
                f"{where} holds a map in which one of {sorted(keys)[:5]} stands twice; mend or drop that row"
            )
        value = dict(value)
    if isinstance(value, dict):
        return {str(key): _json_value(item, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_value(item, where) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)
