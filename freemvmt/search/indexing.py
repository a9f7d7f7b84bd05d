"""A model and a corpus become a bundle, beside its place, and are put there in one step.

Killed at any moment, indexing leaves the old bundle or the new one. Vectors are kept in checked chunks meanwhile, so
that the next try goes on where this one stopped.
"""

import datetime
import fcntl
import hashlib
import io
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from freemvmt.console import QUIET, Bar, Console
from freemvmt.errors import UserError
from freemvmt.files import explained, put_in_place, sha256_of, whole_file
from freemvmt.model import TwoTowersModel
from freemvmt.search import bundle, vectors
from freemvmt.search.documents import Document, content_of, read_corpus
from freemvmt.search.exact import top_k
from freemvmt.search.fields import Columns, Kind, facets_of, kinds_of
from freemvmt.search.sealed import seal, write_sealed
from freemvmt.search.stores.embedded import LOCK_FILE, MANIFEST_FILE, STATE_FILE, WORDS_FOLDER, first_state
from freemvmt.search.stores.live import Texts
from freemvmt.search.stores.protocol import Vectors
from freemvmt.search.vectors import VectorIndex
from freemvmt.search.words import Entry, Words

CHUNK = 16_384  # documents whose vectors are kept as one file while a corpus is indexed
PROBES = 200  # queries that recall is measured with
_TEXTS = pa.schema([(name, pa.large_string()) for name in ("id", "title", "text", "metadata")])


def build(
    model: TwoTowersModel,
    corpus: str,
    output: Path,
    *,
    kind: vectors.Kind | None = None,
    quantize: bool = False,
    console: Console = QUIET,
) -> dict[str, Any]:
    """Index ``corpus`` (see ``read_corpus``) with ``model`` into the folder ``output``; return its manifest.

    ``kind`` None chooses the index by size. Raises ``UserError`` for a corpus that is not sound, an ``output`` that
    holds something else than a bundle, or one that another process is indexing into.
    """
    bundle.check_output(output)
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    with _workshop(output) as work, explained(output):
        part = work / "bundle"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        clock = time.perf_counter()
        count, kinds = _write_documents(read_corpus(corpus), part, corpus)
        console.line(f"reading   {count:,} documents, {len(kinds)} fields to filter on", _since(clock))

        clock = time.perf_counter()
        table = bundle.mapped(part / bundle.TEXTS_FILE)
        chunks = _encoded(model, table, work / "chunks", console)
        console.line(f"encoding  {count:,} vectors of {model.dim}", _since(clock))

        clock = time.perf_counter()
        chosen = kind or vectors.kind_for(count, model.dim)
        with console.progress("vectors", count) as bar:
            index = VectorIndex.build(chosen, quantize, model.dim, chunks, bar)
        index.write(part)
        probes = _probes(model, table)
        recall = _recall(index, probes, chunks)
        sort = f"{chosen}{', int8' if quantize else ''}"
        console.line(f"vectors   {sort}; recall@10 {recall:.4f} against exact search", _since(clock))

        clock = time.perf_counter()
        (part / WORDS_FOLDER).mkdir()
        with console.progress("words", count) as bar:
            Words.create(part / WORDS_FOLDER, _entries(table, bar))
        id = first_state(part, count)
        console.line("words     BM25", _since(clock))

        model.save(part / bundle.MODEL_FOLDER)
        manifest = _manifest(part, model, corpus, output.name, count, kinds) | {
            "id": id,
            "index": {"kind": chosen, "quantized": quantize, "recall@10": recall, "recall_queries": len(probes)},
        }
        write_sealed(part / MANIFEST_FILE, manifest)
        del table, chunks, index  # nothing is mapped when the folder moves
        put_in_place(part, output)
    return manifest


@contextmanager
def _workshop(output: Path) -> Iterator[Path]:
    """The folder beside ``output`` in which it is made; kept when the work is interrupted, one process at a time."""
    work = output.with_name(f".{output.name}.indexing")
    known = work.is_dir() and any((work / "chunks").glob("*.npy"))
    work.mkdir(exist_ok=True)
    with (work / LOCK_FILE).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is indexing into {output}; wait for it, or name another") from error
        try:
            yield work
        except UserError:
            if not known:
                shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)


def _write_documents(documents: Iterator[Document], part: Path, corpus: str) -> tuple[int, dict[str, Kind]]:
    """Write documents.arrow and fields.arrow; return the number of documents and the kinds of their fields."""
    kinds: dict[str, Kind] = {}
    seen: set[str] = set()
    metadata: list[dict[str, Any]] = []
    with pa.OSFile(str(part / bundle.TEXTS_FILE), "wb") as sink, pa.ipc.new_file(sink, _TEXTS) as writer:
        rows: list[tuple[str, str, str, str]] = []
        for document in documents:
            if document.id in seen:
                raise UserError(f"{corpus}: the id {document.id!r} stands twice; give each document its own")
            seen.add(document.id)
            kinds |= kinds_of(document.metadata, kinds, f"{corpus}, document {document.id!r}")
            metadata.append(document.metadata)
            rows.append((document.id, document.title, document.text, json.dumps(document.metadata)))
            if len(rows) == CHUNK:
                writer.write_batch(_batch(rows))
                rows = []
        if rows:
            writer.write_batch(_batch(rows))
    if not seen:
        raise UserError(f"{corpus} holds no document; give a corpus with a document a line")
    columns = Columns.of(metadata, kinds).table
    with pa.OSFile(str(part / bundle.FIELDS_FILE), "wb") as sink, pa.ipc.new_file(sink, columns.schema) as writer:
        writer.write_table(columns)
    return len(seen), kinds


def _batch(rows: list[tuple[str, str, str, str]]) -> pa.RecordBatch:
    columns = [pa.array(column, pa.large_string()) for column in zip(*rows, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=_TEXTS)


def _contents(batch: pa.RecordBatch) -> list[str]:
    columns = (batch.column(name).to_pylist() for name in ("title", "text"))
    return [content_of(title, text) for title, text in zip(*columns, strict=True)]


def _entries(table: pa.Table, bar: Bar) -> Iterator[Entry]:
    row = 0
    for batch in table.to_batches():
        columns = (batch.column(name).to_pylist() for name in ("id", "metadata"))
        for name, metadata, content in zip(*columns, _contents(batch), strict=True):
            yield Entry(row, name, content, () if metadata == "{}" else facets_of(json.loads(metadata)))
            row += 1
        bar.advance(len(batch))


def _encoded(model: TwoTowersModel, table: pa.Table, folder: Path, console: Console) -> list[Vectors]:
    """The vectors of all documents, chunk by chunk, each mapped from its file; a sound chunk is not made again."""
    folder.mkdir(exist_ok=True)
    made_by = hashlib.sha256(model.tokenizer.definition.encode())
    for name, tensor in sorted(model.state_dict().items()):
        made_by.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    chunks: list[Vectors] = []
    with console.progress("encoding", len(table)) as bar:
        for number, batch in enumerate(table.to_batches()):
            texts = _contents(batch)
            key = made_by.copy()
            key.update(json.dumps(texts).encode())
            path = folder / f"{number:06d}-{key.hexdigest()[:32]}.npy"
            sum_file = path.with_suffix(".sha256")
            if not (path.exists() and sum_file.exists() and sum_file.read_text() == sha256_of(path)):
                content = io.BytesIO()  # numpy, writing to a file itself, does not say why it could not
                np.save(content, model.encode_documents(texts).cpu().numpy())
                with whole_file(path) as part:
                    part.write_bytes(content.getbuffer())
                with whole_file(sum_file) as part:
                    part.write_text(sha256_of(path))
            chunks.append(np.load(path, mmap_mode="r", allow_pickle=False))
            bar.advance(len(texts))
    return chunks


def _probes(model: TwoTowersModel, table: pa.Table) -> Vectors:
    """Vectors of queries like those that will be asked: the beginnings of documents from all over the corpus."""
    texts = Texts(table)
    rows = sorted({int(row) for row in np.linspace(0, len(texts) - 1, PROBES)})
    beginnings = [" ".join((texts[row].title or texts[row].text).split()[:8]) for row in rows]
    queries: Vectors = model.encode_queries(beginnings).cpu().numpy()
    return queries


def _recall(index: VectorIndex, queries: Vectors, chunks: list[Vectors]) -> float:
    """Share of the true ten best that ``index`` finds; a document as good as the true tenth counts."""
    asked = torch.from_numpy(queries)
    best = torch.cat(
        [torch.from_numpy(top_k(asked, torch.from_numpy(np.array(chunk)), 10).scores) for chunk in chunks], 1
    )
    tenth = best.topk(min(10, best.shape[1])).values[:, -1:].numpy()
    found = index.search(queries, min(10, len(index)))
    numbers = np.maximum(found.documents, 0)
    named = np.stack([chunks[number // CHUNK][number % CHUNK] for number in numbers.ravel().tolist()])
    scores = np.einsum("qd,qkd->qk", queries, named.reshape(*numbers.shape, -1))
    hits = (found.documents >= 0) & (scores >= tenth - 1e-6)
    return round(float(hits.mean()), 4)


def _manifest(
    part: Path, model: TwoTowersModel, corpus: str, name: str, count: int, kinds: dict[str, Kind]
) -> dict[str, Any]:
    own = (STATE_FILE, MANIFEST_FILE, LOCK_FILE)
    files = [str(file.relative_to(part)) for file in part.rglob("*") if file.is_file() and file.name not in own]
    seals = seal(part, [file for file in files if not file.startswith(f"{WORDS_FOLDER}/")])
    weights, tokenizer = (seals[f"model/{file}"]["sha256"] for file in ("model.safetensors", "tokenizer.json"))
    return {
        "bundle": bundle.FORMAT,
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
