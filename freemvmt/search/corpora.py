"""Files become documents: BEIR folders, JSONL, TSV, Parquet, and the docstrings that are installed here."""

import datetime
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from freemvmt.errors import UserError
from freemvmt.files import check_regular
from freemvmt.search.documents import Document
from freemvmt.text.corpus import passage_id
from freemvmt.text.formats import json_lines, tsv_fields
from freemvmt.text.sources import read_pydocs

_OWN_FIELDS = ("_id", "id", "text", "title", "metadata")


def document_of(record: Mapping[str, Any], where: str) -> Document:
    """A document from an object with ``_id`` or ``id``, ``text``, and perhaps ``title`` and ``metadata``.

    Any other field joins the metadata, ``id`` too where it stands beside another ``_id``; without an id the document is
    known by a hash of its text.
    """
    if not isinstance(record.get("text"), str):
        found = ", ".join(f'"{name}"' for name in record) or "none"
        raise UserError(f'{where}: no text in a field "text" (fields: {found}); give each document its text')
    name = record.get("id") if record.get("_id") is None else record["_id"]
    if isinstance(name, bool) or not isinstance(name, str | int | None):
        raise UserError(f"{where}: the id is {type(name).__name__}, not text; give text")
    metadata = {} if record.get("metadata") is None else record["metadata"]
    if isinstance(metadata, dict):
        beside = {key: value for key, value in record.items() if key not in _OWN_FIELDS}
        if record.get("id") is not None and record["id"] != name:
            beside["id"] = record["id"]
        if twice := [key for key in beside if key in metadata and metadata[key] != beside[key]]:
            what = f'"{twice[0][:60]}" stands beside "metadata" and, with another value, in it'
            raise UserError(f"{where}: {what}; keep one of them")
        metadata = metadata | beside
    try:
        return Document(
            id=passage_id(record["text"]) if name is None else str(name),
            text=record["text"],
            title="" if record.get("title") is None else record["title"],
            metadata=metadata,
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def read_corpus(name: str) -> Iterator[Document]:
    """The documents of ``pydocs``, a BEIR folder, MS MARCO's ``collection.tsv``, JSONL, Parquet, or a table of
    (id, text) or (id, title, text) separated by tabs; one after the other, never all at once.

    Raises ``UserError`` with the line that is wrong.
    """
    if name == "pydocs":
        yield from _pydocs()
        return
    path = _corpus_file(Path(name))
    if path.suffix == ".jsonl":
        yield from (document_of(record, where) for where, record in json_lines(path))
    elif path.suffix == ".tsv":
        for number, fields in tsv_fields(path, (2, 3)):
            title = fields[1] if len(fields) == 3 else ""
            yield document_of({"id": fields[0], "title": title, "text": fields[-1]}, f"{path}, line {number}")
    elif path.suffix == ".parquet":
        yield from _from_parquet(path)
    else:
        raise UserError(f"{path}: the ending {path.suffix!r} is not known; give .jsonl, .tsv or .parquet")


def _pydocs() -> Iterator[Document]:
    """The docstrings installed here, known by their names; where a name is defined twice, the second is ``name#2``."""
    times: Counter[str] = Counter()
    for doc in read_pydocs(None, 0):
        times[doc.name] += 1
        name = doc.name if times[doc.name] == 1 else f"{doc.name}#{times[doc.name]}"
        yield Document(name, f"{doc.summary} {doc.body}", doc.name, {"package": doc.package})


def _corpus_file(path: Path) -> Path:
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
    raise UserError(f"{path} holds no corpus.jsonl and no collection.tsv; give the file of the documents")


def _from_parquet(path: Path) -> Iterator[Document]:
    number = 0
    try:
        for batch in pq.ParquetFile(path, memory_map=True).iter_batches(batch_size=8192):
            for record in batch.to_pylist():
                number += 1
                present = {key: _plain(value) for key, value in record.items() if value is not None}
                yield document_of(present, f"{path}, row {number}")
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a sound Parquet file ({reason}); fetch or write it again") from error


def _plain(value: Any) -> Any:
    """A value of Arrow as JSON has it: dates as ISO 8601 writes them, what else has no form there (decimals) as its
    text, and NaN as nothing."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):  # a map is a list of pairs
        return [_plain(item) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)
