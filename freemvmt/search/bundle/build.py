"""A model and a corpus become a bundle, beside its place, and are put there in one step.

Killed at any moment, indexing leaves the old bundle or the new one. Vectors are kept in checked chunks meanwhile, so
that the next try goes on where this one stopped.
"""

import datetime
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from freemvmt.data.corpus import read_corpus, repeated_document
from freemvmt.data.documents import Document, Ids
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import QUIET, Bar, Console
from freemvmt.search.bundle import load as bundle
from freemvmt.search.bundle import milvus as remote
from freemvmt.search.bundle.chunks import Chunks, contents_of, encoded, mapped
from freemvmt.search.bundle.recall import Probes, probe_queries, recall_of, tenths
from freemvmt.search.index import analysis
from freemvmt.search.index import dense as vectors
from freemvmt.search.index.dense import VectorIndex
from freemvmt.search.index.lexical import Entry, Words
from freemvmt.search.index.ranking import Vectors, spread
from freemvmt.search.stores.column import Booleans, Column, Lists, Numbers, Part, Strings
from freemvmt.search.stores.columns import Columns
from freemvmt.search.stores.filters import Kind, Unseen, count_unseen, facets_of, kinds_of, unseen_note
from freemvmt.search.stores.layout import (
    FIELDS_FILE,
    LOCK_FILE,
    MANIFEST_FILE,
    MODEL_FOLDER,
    STATE_FILE,
    TEXTS_FILE,
    WEIGHTS_FILE,
    WORDS_FOLDER,
)
from freemvmt.search.stores.local.store import first_state, take_place
from freemvmt.search.stores.texts import TEXTS, Texts
from freemvmt.storage.files import explained, make_folders
from freemvmt.storage.hidden_files import is_foreign
from freemvmt.storage.locks import NoLocks, locked
from freemvmt.storage.manifest import seal, write_sealed
from freemvmt.towers.pretrained import principal_directions

_SCHEMA = pa.schema([(name, pa.large_string()) for name in TEXTS])
CHUNK = 16_384  # documents whose vectors are kept as one file while a corpus is indexed
DIRECTIONS_FROM = 20_000  # documents that tell in which directions vectors are longest


def build(
    model: TwoTowersModel,
    corpus: str,
    output: Path,
    *,
    kind: vectors.Kind | None = None,
    stored: vectors.Stored = "fp32",
    dim: int | None = None,
    store: str | None = None,
    console: Console = QUIET,
) -> dict[str, Any]:
    """Index ``corpus`` (see ``read_corpus``) with ``model`` into the folder ``output``; return its manifest.

    ``kind`` None chooses the index by size. ``dim`` keeps so many dimensions of the vectors: the first ones of a model
    that was trained for it (``--matryoshka``), else those along which this corpus is longest. ``store`` puts documents
    and vectors into Milvus (see ``Place``) in place of files. Raises ``UserError`` for a corpus that is not sound, an
    ``output`` that holds something else than a bundle, or one that another process is indexing into.
    """
    bundle.check_output(output, [corpus])
    place = None if store is None else remote.place_of(store, kind, stored)
    output = output.resolve()
    make_folders(output.parent)
    with _workshop(output) as work, explained(output):
        part = work / "bundle"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        clock = time.perf_counter()
        count, kinds, unseen = _write_documents(read_corpus(corpus), part, corpus)
        console.line(f"reading   {count:,} documents, {len(kinds)} fields to filter on", _since(clock))
        if unseen:
            console.line(f"note      {unseen_note(unseen)}")

        clock = time.perf_counter()
        table = mapped(part / TEXTS_FILE)
        if dim is not None:
            texts = Texts.read(part / TEXTS_FILE)
            model = narrowed(model, dim, [texts[row].content for row in spread(len(texts), DIRECTIONS_FROM)])
        chunks = encoded(model, table, work / "chunks", console)
        console.line(f"encoding  {count:,} vectors of {model.dim}", _since(clock))

        queries = probe_queries(model, Texts.read(part / TEXTS_FILE))
        if place is None:
            id, index = _into_files(part, table, chunks, queries, kind, stored, console)
        else:
            probes = Probes(queries, tenths(queries, chunks))
            id, index = remote.into_milvus(place, part, chunks, probes, kind, kinds, console)
        model.save(part / MODEL_FOLDER)
        manifest = _manifest(part, model, corpus, output.name, count, kinds) | {
            "id": id,
            "index": index | {"recall_queries": len(queries)},
            "unseen": unseen,
        }
        write_sealed(part / MANIFEST_FILE, manifest)
        del table, chunks  # nothing is mapped when the folder moves
        before = remote.named_in(output)
        take_place(part, output)
    remote.drop_after_grace(before)
    return manifest


def _into_files(
    part: Path,
    table: pa.Table,
    chunks: Chunks,
    probes: Vectors,
    kind: vectors.Kind | None,
    stored: vectors.Stored,
    console: Console,
) -> tuple[str, dict[str, Any]]:
    """Write FAISS's and tantivy's files into ``part``; return the id of the words and what the manifest says."""
    count, dim = len(table), chunks[0].shape[1]
    clock = time.perf_counter()
    chosen = kind or vectors.kind_for(count, dim)
    with console.progress("vectors", count) as bar:
        index = VectorIndex.build(chosen, stored, dim, chunks, bar)
    index.write(part)
    recall = recall_of(index, probes, chunks)
    del index  # what follows needs the memory
    console.line(f"vectors   {chosen}, {stored}; recall@10 {recall:.4f} against exact search", _since(clock))

    clock = time.perf_counter()
    (part / WORDS_FOLDER).mkdir()
    with console.progress("words", count) as bar:
        Words.create(part / WORDS_FOLDER, _entries(table, bar))
    id = first_state(part, count)
    console.line("words     BM25", _since(clock))
    return id, {"kind": chosen, "stored": stored, "recall@10": recall}


@contextmanager
def _workshop(output: Path) -> Iterator[Path]:
    """The folder beside ``output`` in which it is made; kept when the work is interrupted, one process at a time."""
    work = output.with_name(f".{output.name}.indexing")
    known = work.is_dir() and any((work / "chunks").glob("*.npy"))
    work.mkdir(exist_ok=True)
    busy = f"another process is indexing into {output}; wait for it, or name another"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(work / LOCK_FILE, busy))
        except NoLocks as error:
            shutil.rmtree(work, ignore_errors=True)
            where = f"the file system of {output.parent} does not know locks"
            raise UserError(f"{where}; index into another place, and copy the bundle") from error
        try:
            yield work
        except UserError:
            if not known:
                shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)


def _write_documents(documents: Iterator[Document], part: Path, corpus: str) -> tuple[int, dict[str, Kind], Unseen]:
    """Write documents.arrow and fields.arrow; return the number of documents, the kinds of their fields, and what no
    filter sees of them."""
    kinds: dict[str, Kind] = {}
    ids = Ids()
    metadata: list[dict[str, Any]] = []
    nothing: dict[str, Any] = {}  # one for all that have none
    with pa.OSFile(str(part / TEXTS_FILE), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        rows: list[tuple[str, str, str, str]] = []
        for document in documents:
            ids.see(document.id)
            kinds |= kinds_of(document.metadata, kinds, f"{corpus}, document {document.id!r}")
            metadata.append(document.metadata or nothing)
            rows.append((document.id, document.title, document.text, json.dumps(document.metadata)))
            if len(rows) == CHUNK:
                writer.write_batch(_batch(rows))
                rows = []
        if rows:
            writer.write_batch(_batch(rows))
    if not len(ids):
        raise UserError(f"{corpus} holds no document; give a corpus with a document a line")
    batches = mapped(part / TEXTS_FILE).to_batches()
    twice = ids.repeat(name for batch in batches for name in batch.column("id").to_pylist())
    if twice is not None:
        raise repeated_document(corpus, twice)
    columns = _table(Columns.of(metadata, kinds))
    with pa.OSFile(str(part / FIELDS_FILE), "wb") as sink, pa.ipc.new_file(sink, columns.schema) as writer:
        writer.write_table(columns)
    return len(ids), kinds, count_unseen(metadata)


def _table(columns: Columns) -> pa.Table:
    """The columns as Arrow has them, beside one of zeros: a table without a column would have no length."""
    made = {name: _arrow_of(column) for name, column in columns.columns.items()}
    return pa.table({**made, "": pa.array(np.zeros(len(columns), np.int8))})


def _arrow_of(column: Column) -> pa.Array:
    if isinstance(column, Lists):
        return pa.LargeListArray.from_arrays(pa.array(column.offsets), _arrow_of(column.members))
    if isinstance(column, Strings):
        values = pa.array(column.values, pa.large_string())
        return values.take(pa.array(column.codes, mask=column.codes < 0))
    if isinstance(column, Numbers):
        parts = [_array(part) for part in column.parts]
        return pa.StructArray.from_arrays(parts, ["whole", "fraction"]) if len(parts) == 2 else parts[0]
    assert isinstance(column, Booleans)
    return _array(column.part)


def _array(part: Part) -> pa.Array:
    return pa.array(part.values, mask=~part.there)


def _batch(rows: list[tuple[str, str, str, str]]) -> pa.RecordBatch:
    columns = [pa.array(column, pa.large_string()) for column in zip(*rows, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)


def _entries(table: pa.Table, bar: Bar) -> Iterator[Entry]:
    row = 0
    for batch in table.to_batches():
        columns = (batch.column(name).to_pylist() for name in ("id", "metadata"))
        for name, metadata, content in zip(*columns, contents_of(batch), strict=True):
            yield Entry(row, name, content, () if metadata == "{}" else facets_of(json.loads(metadata)))
            row += 1
        bar.advance(len(batch))


def narrowed(model: TwoTowersModel, dim: int, texts: Sequence[str]) -> TwoTowersModel:
    """``model`` with vectors of ``dim`` numbers: the first ones if it was trained for that, else along the directions
    in which those of ``texts`` are longest. ``UserError`` where it has fewer."""
    if dim > model.dim:
        raise UserError(f"--dim is {dim} but the model's vectors have {model.dim}; give no more")
    if dim in model.record.get("config", {}).get("matryoshka", ()):
        return model.cut(torch.eye(dim, model.dim))
    return model.cut(principal_directions(model.encode_documents(texts), dim))


def _manifest(
    part: Path, model: TwoTowersModel, corpus: str, name: str, count: int, kinds: dict[str, Kind]
) -> dict[str, Any]:
    own = (STATE_FILE, MANIFEST_FILE, LOCK_FILE, WORDS_FOLDER)
    inside = [file.relative_to(part) for file in part.rglob("*") if file.is_file()]
    seals = seal(part, [str(f) for f in inside if f.parts[0] not in own and not any(map(is_foreign, f.parts))])
    weights = seals[WEIGHTS_FILE]["sha256"]
    tokenizer = hashlib.sha256(model.tokenizer.definition.encode()).hexdigest()
    return {
        "bundle": bundle.FORMAT,
        "analysis": analysis.signature(),
        "name": name,
        "version": version("two-towers"),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "corpus": corpus,
        "documents": count,
        "dim": model.dim,
        "fields": kinds,
        "model": {"id": weights, "tokenizer": tokenizer, "base": model.config.base, "tower": model.config.tower},
        "vectors_by": weights,
        "files": seals,
    }


def _since(clock: float) -> float:
    return time.perf_counter() - clock
