"""The documents of a file, one after the other: what `index`, `encode`, `add` and `evaluate` all read a corpus by.

JSONL and Parquet: an object, or a row, with ``text``, and perhaps ``_id`` or ``id``, ``title`` and ``metadata``; any
other field joins the metadata. TSV: (id, text) or (id, title, text), or as a header says.
"""

import datetime
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from freemvmt.data.lines import json_lines, packed_in, unknown_ending
from freemvmt.data.readers.tsv import DOCUMENTS, table_rows
from freemvmt.data.values import Metadata, check_document, id_of, optional_text, passage_id, repeated, text_of
from freemvmt.errors import UserError
from freemvmt.storage.files import check_regular

_OWN_FIELDS = ("_id", "id", "text", "title", "metadata")
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # a column of row numbers, which nobody asked for


class Record(NamedTuple):
    """A document, and the line or row that it stands in."""

    where: str
    id: str
    title: str
    text: str
    metadata: Metadata


def read_records(path: Path) -> Iterator[Record]:
    """The documents of a file of JSONL, TSV or Parquet. Raises ``UserError`` with the line or row that is wrong."""
    if path.suffix == ".jsonl":
        yield from (record_of(fields, where) for where, fields in json_lines(path))
    elif path.suffix == ".tsv":
        for where, (id, title, text) in table_rows(path, DOCUMENTS):
            yield record_of({"id": id, "title": title, "text": text}, where)
    elif path.suffix == ".parquet":
        yield from _from_parquet(path)
    else:
        raise unknown_ending(path)


def repeated_record(path: Path, id: str) -> UserError:
    """The refusal of a file in which a document's ``id`` stands twice: it names both places."""
    first = next((record for record in read_records(path) if record.id == id), None)
    unnamed = first is not None and id == passage_id(first.text)
    name = f"a text without an id ({first.text[:40]!r})" if unnamed and first else f"the document {id[:200]!r}"
    return repeated(name, id, ((record.where, record.id) for record in read_records(path)))


def corpus_file(path: Path) -> Path:
    """The file of the documents: ``path`` itself, or a folder's ``corpus.jsonl`` or ``collection.tsv``."""
    try:
        if not path.is_dir():
            check_regular(path)
            return path
    except (OSError, ValueError) as error:
        reason = "" if isinstance(error, FileNotFoundError) else f" ({getattr(error, 'strerror', error)})"
        known = "pydocs, a BEIR folder, or a file of JSONL, TSV or Parquet"
        raise UserError(f"there is no corpus {str(path)[:200]!r}{reason}; give {known}") from error
    for file in ("corpus.jsonl", "collection.tsv"):
        if (path / file).is_file():
            return path / file
    todo = packed_in(path, "corpus.jsonl") or packed_in(path, "collection.tsv") or "give the file of the documents"
    raise UserError(f"{path} holds no corpus.jsonl and no collection.tsv; {todo}")


def record_of(fields: Mapping[str, Any], where: str) -> Record:
    """The document in an object or a row; without an id it is known by a hash of its text."""
    if "text" not in fields:
        found = ", ".join(f'"{name}"' for name in fields) or "none"
        raise UserError(f'{where}: no text in a field "text" (fields: {found}); give each document its text')
    text = text_of(fields["text"], "text", where)
    title = optional_text(fields.get("title"), "title", where)
    name = "id" if fields.get("_id") is None else "_id"
    id = passage_id(text) if fields.get(name) is None else id_of(fields[name], name, where)
    metadata = {} if fields.get("metadata") is None else fields["metadata"]
    if isinstance(metadata, dict):
        metadata = metadata | _beside(fields, metadata, where)
    try:
        check_document(id, title, text, metadata)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return Record(where, id, title, text, metadata)


def _beside(fields: Mapping[str, Any], metadata: Metadata, where: str) -> Metadata:
    """The fields that join the metadata, ``id`` too where it stands beside another ``_id``."""
    beside = {key: value for key, value in fields.items() if key not in _OWN_FIELDS}
    if fields.get("_id") is not None and fields.get("id") not in (None, fields["_id"]):
        beside["id"] = fields["id"]
    if twice := [key for key in beside if key in metadata and metadata[key] != beside[key]]:
        what = f'"{twice[0][:60]}" stands beside "metadata" and, with another value, in it'
        raise UserError(f"{where}: {what}; keep one of them")
    return beside


def _from_parquet(path: Path) -> Iterator[Record]:
    number = 0
    try:
        file = pq.ParquetFile(path, memory_map=True)
        names = file.schema_arrow.names
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f'{path}: a column "{twice}" stands twice; keep one of them')
        for batch in file.iter_batches(batch_size=8192):
            for row in batch.to_pylist():
                number += 1
                where = f"{path}, row {number}"
                yield record_of(_present(row, where), where)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a sound Parquet file ({reason}); fetch or write it again") from error


def _present(row: dict[str, Any], where: str) -> dict[str, Any]:
    """A row as an object of JSON: its own texts stay what they are, null is not there, pandas' index is no field."""
    own = {name: row[name] for name in ("_id", "id", "title", "text") if name in row}
    others = {name: value for name, value in row.items() if name not in own and not _PANDAS_INDEX.fullmatch(name)}
    return own | {name: _plain(value, f'{where}: "{name}"') for name, value in others.items() if value is not None}


def _plain(value: Any, where: str) -> Any:
    """A value of Arrow as JSON has it: dates as ISO 8601 writes them, what else has no form there (decimals) as its
    text, and NaN as nothing."""
    if isinstance(value, bytes):
        raise UserError(f"{where} holds bytes, which JSON does not have; leave that column out")
    if isinstance(value, list) and value and isinstance(value[0], tuple):  # a map
        if len(keys := {str(key) for key, _ in value}) < len(value):
            raise UserError(
                f"{where} holds a map in which one of {sorted(keys)[:5]} stands twice; mend or drop that row"
            )
        value = dict(value)
    if isinstance(value, dict):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, where) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)
