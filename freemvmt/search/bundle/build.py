"""Build a bundle from a model and a corpus.

The bundle is built in a hidden folder beside its output folder and replaces the old bundle in one step: a process that
is killed leaves either the old bundle or the new one. Vectors are saved in chunks with checksums, so that the next run
continues where the last one stopped.
"""

import datetime
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from freemvmt.config import FolderConfig
from freemvmt.data.corpus import duplicate_document_error, read_corpus
from freemvmt.data.documents import Document, DuplicateFinder
from freemvmt.data.files.report import FolderReport
from freemvmt.data.passages import Splitter
from freemvmt.data.records import is_folder_of_files
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import QUIET, Bar, Console, count_of
from freemvmt.search.bundle import files as bundle
from freemvmt.search.bundle import milvus as remote
from freemvmt.search.bundle.chunks import Chunks, encode_chunks, encode_documents
from freemvmt.search.bundle.recall import probe_queries, recall_of, tenth_scores
from freemvmt.search.index import analysis
from freemvmt.search.index import dense as vectors
from freemvmt.search.index.dense import VectorIndex
from freemvmt.search.index.lexical import IndexedDocument, LexicalIndex
from freemvmt.search.index.ranking import Vectors, evenly_spaced
from freemvmt.search.stores.columns import Columns
from freemvmt.search.stores.filters import FieldKind, IgnoredValues, count_ignored, facets_of, ignored_note, kinds_of
from freemvmt.search.stores.layout import (
    LOCK_FILE,
    MANIFEST_FILE,
    MODEL_FOLDER,
    STATE_FILE,
    WORDS_FOLDER,
    weight_ids,
)
from freemvmt.search.stores.local.store import first_state, replace_bundle
from freemvmt.search.stores.rows import Rows, RowWriter
from freemvmt.search.stores.texts import Texts, write_texts
from freemvmt.storage.files import as_user_error, make_folders
from freemvmt.storage.hidden_files import is_not_ours
from freemvmt.storage.locks import NoLocks, locked
from freemvmt.storage.manifest import hash_files, write_manifest
from freemvmt.towers.pretrained import principal_directions

CHUNK = 16_384  # documents in one file of vectors while a corpus is indexed
_BATCH = 1024  # documents that are read and cut at once
DIRECTIONS_FROM = 20_000  # documents from which principal directions are computed


def build(
    model: TwoTowersModel,
    corpus: str,
    output: Path,
    *,
    kind: vectors.IndexKind | None = None,
    stored: vectors.Quantization = "fp32",
    dim: int | None = None,
    store: str | None = None,
    cut: bool = True,
    files: FolderConfig | None = None,
    report: FolderReport | None = None,
    console: Console = QUIET,
) -> dict[str, Any]:
    """Index ``corpus`` with ``model`` into the folder ``output``; return its manifest.

    ``files`` and ``report`` are for a folder of files (see ``read_corpus``). ``kind`` None chooses the index by the
    size of the corpus. ``dim`` reduces the vectors to that many dimensions (see ``directions_of``). ``store``
    names a place in Milvus (see ``Place``) for documents and vectors. ``cut`` cuts documents that are longer than the
    document tower reads into passages; in Milvus all stay whole. Raises ``UserError`` for a corpus with errors, an
    ``output`` that holds anything but a bundle, or one that another process is indexing into.
    """
    bundle.check_output(output, [corpus])
    place = None if store is None else remote.place_of(store, kind, stored)
    output = output.resolve()
    make_folders(output.parent)
    with _work_folder(output) as work, as_user_error(output):
        folder = _empty(work / "bundle")
        splitter = Splitter(model.tokenizer, model.document_tokens) if cut else None
        source = (corpus, files or FolderConfig(), report or FolderReport())
        rows, kinds, unseen = _read(source, folder, splitter, place is None, console)

        start = time.perf_counter()
        directions = _reduced_to(dim, model, rows, console)
        chunks = encode_chunks(model, directions, rows, CHUNK, work / "chunks", console)
        if directions is not None:
            model = model.cut(directions)
        console.line(f"encoding  {len(rows):,} vectors of {model.dim}", _seconds_since(start))

        queries = probe_queries(model, rows.texts)
        if place is None:
            id, index = _write_indexes(folder, rows, chunks, queries, kind, stored, console)
        else:
            probes = remote.Probes(queries, tenth_scores(queries, chunks))
            id, index = remote.build_in_milvus(place, folder, chunks, probes, kind, kinds, console)
        model.save(folder / MODEL_FOLDER)
        manifest = _manifest(folder, model, corpus, output.name, len(rows.texts), kinds) | {
            "id": id,
            "index": index | {"recall_queries": len(queries)},
            "unseen": unseen,
            **({"passages": {"tokens": model.document_tokens, "count": len(rows)}} if cut and place is None else {}),
            **_folder_of(corpus, output, source[1]),
        }
        write_manifest(folder / MANIFEST_FILE, manifest)
        del rows, chunks  # unmap the files before the folder moves
        old_location = remote.location_in(output)
        replace_bundle(folder, output)
    remote.drop_after_grace(old_location)
    return manifest


def _write_indexes(
    folder: Path,
    rows: Rows,
    chunks: Chunks,
    probes: Vectors,
    kind: vectors.IndexKind | None,
    stored: vectors.Quantization,
    console: Console,
) -> tuple[str, dict[str, Any]]:
    """Write the FAISS and tantivy indexes into ``folder``; return the manifest's ``id`` and ``index``."""
    count, dim = len(rows), chunks[0].shape[1]
    start = time.perf_counter()
    index_kind = kind or vectors.index_kind_for(count, dim)
    with console.progress("vectors", count) as bar:
        index = VectorIndex.build(index_kind, stored, dim, chunks, bar)
    index.write(folder)
    recall = recall_of(index, probes, chunks)
    del index  # free its memory for the word index
    console.line(
        f"vectors   {index_kind}, {stored}; recall@10 {recall:.4f} against exact search", _seconds_since(start)
    )

    start = time.perf_counter()
    (folder / WORDS_FOLDER).mkdir()
    with console.progress("words", count) as bar:
        LexicalIndex.create(folder / WORDS_FOLDER, _indexed_documents(rows, bar))
    id = first_state(folder, count)
    console.line("words     BM25", _seconds_since(start))
    return id, {"kind": index_kind, "stored": stored, "recall@10": recall}


@contextmanager
def _work_folder(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` to build in, locked for this process; an interrupted build leaves it to the next."""
    work = output.with_name(f".{output.name}.indexing")
    has_chunks = work.is_dir() and any((work / "chunks").glob("*.safetensors"))
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
            if not has_chunks:
                shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)


def _empty(folder: Path) -> Path:
    """``folder``, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _read(
    source: tuple[str, FolderConfig, FolderReport],
    folder: Path,
    splitter: Splitter | None,
    in_files: bool,
    console: Console,
) -> tuple[Rows, dict[str, FieldKind], IgnoredValues]:
    """Write the documents of a corpus, cut where they stay in files, into ``folder``; return their rows, the kinds of
    their fields, and the counts of metadata that no filter can use. ``source`` are the arguments of ``read_corpus``."""
    start = time.perf_counter()
    writer = RowWriter()
    count, kinds, unseen = _write_documents(read_corpus(*source), folder, source[0], splitter, writer)
    if in_files:
        writer.write(folder)
    rows = Rows(folder, Texts(folder))
    report = source[2]
    fields = f"{len(kinds)} fields to filter on"
    console.line(f"reading   {report.documents(count)}, {fields}", _seconds_since(start))
    report.print(console)
    if splitter is not None and writer.cut:
        kept = f"{len(rows):,} passages" if in_files else "Milvus holds documents whole, the rest is not read"
        console.line(f"note      {count_of(writer.cut, 'document')} longer than {splitter.tokens} tokens: {kept}")
    if unseen:
        console.line(f"note      {ignored_note(unseen)}")
    return rows, kinds, unseen


def _write_documents(
    documents: Iterator[Document], folder: Path, corpus: str, splitter: Splitter | None, rows: RowWriter
) -> tuple[int, dict[str, FieldKind], IgnoredValues]:
    """Write texts and metadata, and add the passages of each document to ``rows``; return the number of documents, the
    kinds of their fields, and the counts of metadata that no filter can use."""
    kinds: dict[str, FieldKind] = {}
    ids = DuplicateFinder()
    metadata: list[dict[str, Any]] = []
    empty: dict[str, Any] = {}  # shared by all documents without metadata

    def seen() -> Iterator[Document]:
        while batch := list(islice(documents, _BATCH)):
            passages = [()] * len(batch) if splitter is None else splitter.split_all(batch)
            for document, own in zip(batch, passages, strict=True):
                ids.see(document.id)
                kinds.update(kinds_of(document.metadata, kinds, f"{corpus}, document {document.id!r}"))
                metadata.append(document.metadata or empty)
                rows.add(own)
                yield document

    write_texts(folder, seen())
    if not len(ids):
        raise UserError(f"{corpus} holds no document; give a corpus with a document a line")
    texts = Texts(folder)
    repeated = ids.repeat(texts.id_of(row) for row in range(len(texts)))
    if repeated is not None:
        raise duplicate_document_error(corpus, repeated)
    Columns.of(metadata, kinds).write(folder)
    return len(ids), kinds, count_ignored(metadata)


def _indexed_documents(rows: Rows, bar: Bar) -> Iterator[IndexedDocument]:
    for start in range(0, len(rows), CHUNK):
        chunk = range(start, min(start + CHUNK, len(rows)))
        for row in chunk:
            document = rows.document(row)
            yield IndexedDocument(row, document.id, rows.words(row), facets_of(document.metadata))
        bar.advance(len(chunk))


def _reduced_to(dim: int | None, model: TwoTowersModel, rows: Rows, console: Console) -> torch.Tensor | None:
    """The ``directions_of`` the vectors of documents from all over the corpus; None where ``dim`` is."""

    def vectors() -> torch.Tensor:
        texts = [rows.content(row) for row in evenly_spaced(len(rows), DIRECTIONS_FROM)]
        with console.progress("directions", len(texts)) as bar:
            return encode_documents(model, texts, bar)

    return None if dim is None else directions_of(model, dim, vectors)


def directions_of(model: TwoTowersModel, dim: int, vectors: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The directions of ``dim`` dimensions, (dim, all): the first ones if the model was trained for them
    (``--matryoshka``), else the principal ones of ``vectors``. ``UserError`` if the model has fewer dimensions."""
    if dim > model.dim:
        raise UserError(f"--dim is {dim} but the model's vectors have {model.dim}; give no more")
    if dim in model.record.get("config", {}).get("matryoshka", ()):
        return torch.eye(dim, model.dim)
    return principal_directions(vectors(), dim)


def _manifest(
    folder: Path, model: TwoTowersModel, corpus: str, name: str, count: int, kinds: dict[str, FieldKind]
) -> dict[str, Any]:
    excluded = (STATE_FILE, MANIFEST_FILE, LOCK_FILE, WORDS_FOLDER)
    paths = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    hashes = hash_files(
        folder, [str(f) for f in paths if f.parts[0] not in excluded and not any(map(is_not_ours, f.parts))]
    )
    ids = weight_ids(hashes)
    assert ids is not None  # the model is saved by now
    id, space = ids
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
        "model": {
            "id": id,
            "tokenizer": model.tokenizer.digest,
            "base": model.config.base,
            "tower": model.config.kind_of("query"),
            "document_tower": model.config.kind_of("document"),
        },
        "vectors_by": space,
        "files": hashes,
    }


def _folder_of(corpus: str, output: Path, config: FolderConfig) -> dict[str, Any]:
    """What `sync` needs of a folder of files, its path from the bundle and the globs; empty for another corpus."""
    if not is_folder_of_files(Path(corpus)):
        return {}
    path = os.path.relpath(Path(corpus).resolve(), output)
    return {"folder": {"path": path, "include": list(config.include), "exclude": list(config.exclude)}}


def _seconds_since(start: float) -> float:
    return time.perf_counter() - start
