"""Export the vectors of a corpus as Parquet shards, with a manifest.

_manifest.json       model, corpus, side, counts, and the shards with size and SHA-256; written last
part-00000.parquet   id and vector of each document of the shard; the footer has the shard's key

The key is a digest of the model and the shard's documents, and a shard is encoded only if its key has changed. So a run
that was stopped continues, a repeated run does nothing, and a run over a corpus that grew encodes only the end.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from freemvmt.config import FolderConfig, Side
from freemvmt.data.corpus import duplicate_document_error, read_corpus
from freemvmt.data.documents import Document
from freemvmt.data.files.report import FolderReport
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import QUIET, Console, count_of
from freemvmt.search.index.ranking import Vectors
from freemvmt.storage.digests import sha256_of_text
from freemvmt.storage.files import atomic_file, remove_leftovers
from freemvmt.storage.hidden_files import is_not_ours
from freemvmt.storage.manifest import Shape, hash_files, read_manifest, verify_files, write_manifest
from freemvmt.storage.outputs import check_output_folder

Stored = Literal["fp32", "fp16"]

FORMAT = 1
MANIFEST_FILE = "_manifest.json"  # Parquet readers skip names that start with _
_KEY = b"two-towers"  # in a shard's footer
_SHAPE: Shape = {"side": str, "stored": str, "dim": int, "documents": int, "shards": list, "files": {}, "model": {}}
_TYPES = {"fp32": (pa.float32(), np.float32), "fp16": (pa.float16(), np.float16)}


@dataclass(frozen=True)
class ShardTask:
    """A shard to encode: its number, its key, and the ids and texts of its documents."""

    number: int
    key: str
    ids: list[str]
    texts: list[str]

    @property
    def file(self) -> str:
        """The file name of the shard."""
        return f"part-{self.number:05d}.parquet"


def check_output(output: Path, corpus: str) -> None:
    """Raise ``UserError`` unless vectors of ``corpus`` may be written at ``output``: it does not exist, is empty, or
    holds vectors."""
    check_output_folder(output, "a shard", lambda folder: all(map(_is_ours, folder.iterdir())), [corpus])


@dataclass(frozen=True)
class Shard:
    """A finished shard; ``seconds`` is the time to encode it, None if it existed before."""

    file: str
    documents: int
    key: str
    seconds: float | None


Engine = Callable[[Iterator[ShardTask]], Iterator[Shard]]  # encodes shards, in any order


def encode(
    model: TwoTowersModel,
    corpus: str,
    output: Path,
    *,
    side: Side = "documents",
    stored: Stored = "fp32",
    shard: int = 100_000,
    files: FolderConfig | None = None,
    report: FolderReport | None = None,
    engine: Engine | None = None,
    console: Console = QUIET,
) -> dict[str, Any]:
    """Write the vectors of ``corpus`` into ``output``, ``shard`` documents a file; return the manifest.

    ``files`` and ``report`` are for a folder of files (see ``read_corpus``). ``engine`` None encodes in this process.
    Raises ``UserError`` for a corpus with errors or repeated ids, and when the folder cannot be written.
    """
    check_output(output, corpus)
    engine = engine or local_engine(model, output, side, stored)
    shards: list[Shard] = []
    report = report or FolderReport()
    documents = read_corpus(corpus, files or FolderConfig(), report)
    for result in engine(shard_tasks(model, documents, side, stored, shard, corpus)):
        shards.append(result)
        if result.seconds is not None:
            console.line(f"encoding  {result.file}: {count_of(result.documents, 'vector')}", result.seconds)
    report.print(console)
    if not shards:
        raise UserError(f"{corpus} holds no document; give a corpus with a document a line")
    shards.sort(key=lambda result: result.file)
    entries = [{"file": result.file, "documents": result.documents, "key": result.key} for result in shards]
    manifest = finish(output, model, corpus, side, stored, entries)
    encoded = sum(result.seconds is not None for result in shards)
    vectors, all_shards = count_of(manifest["documents"], "vector"), count_of(len(shards), "shard")
    console.line(f"encoded   {vectors} of {model.dim}: {encoded} of {all_shards} made")
    return manifest


def local_engine(model: TwoTowersModel, output: Path, side: Side, stored: Stored) -> Engine:
    """An engine that encodes in this process, one shard after the other."""

    def encode_shards(tasks: Iterator[ShardTask]) -> Iterator[Shard]:
        for task in tasks:
            start, seconds = time.perf_counter(), None
            if key_of(output / task.file) != task.key:
                write_shard(output, task, vectors_of(model, task.texts, side), stored)
                seconds = time.perf_counter() - start
            yield Shard(task.file, len(task.ids), task.key, seconds)

    return encode_shards


def shard_tasks(
    model: TwoTowersModel, documents: Iterator[Document], side: Side, stored: Stored, shard: int, corpus: str
) -> Iterator[ShardTask]:
    """The shards of ``documents``, in order. Raises ``UserError`` for a repeated id."""
    model_fingerprint = fingerprint(model, side, stored)
    seen: set[str] = set()
    for number in itertools.count():
        batch = list(itertools.islice(documents, shard))
        if not batch:
            return
        ids, texts = [document.id for document in batch], [document.content for document in batch]
        for document_id in ids:
            if document_id in seen:
                raise duplicate_document_error(corpus, document_id)
            seen.add(document_id)
        yield ShardTask(number, sha256_of_text(json.dumps([model_fingerprint, ids, texts])), ids, texts)


def fingerprint(model: TwoTowersModel, side: Side, stored: Stored) -> str:
    """A digest of everything but the text that vectors depend on: model, side and number type."""
    return model.digest(f"{FORMAT} {side} {stored}")


def vectors_of(model: TwoTowersModel, texts: Sequence[str], side: Side) -> Vectors:
    """The vectors of ``texts``, (texts, dim) float32."""
    vectors = (model.encode_documents if side == "documents" else model.encode_queries)(texts)
    array: Vectors = vectors.cpu().numpy()
    return array


def write_shard(output: Path, task: ShardTask, vectors: Vectors, stored: Stored) -> None:
    """Write a shard; the file is never partial."""
    arrow_type, numpy_type = _TYPES[stored]
    flat = pa.array(vectors.astype(numpy_type).reshape(-1), arrow_type)
    lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    table = pa.table({"id": pa.array(task.ids, pa.string()), "vector": lists})
    table = table.replace_schema_metadata({_KEY: task.key.encode()})
    with atomic_file(output / task.file) as temporary:
        pq.write_table(table, temporary, compression="none", use_dictionary=False, write_page_checksum=True)


def key_of(path: Path) -> str | None:
    """The key of a shard; None if it is missing or damaged."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException):
        return None
    return ((table.schema.metadata or {}).get(_KEY) or b"").decode("latin-1")


def finish(
    output: Path, model: TwoTowersModel, corpus: str, side: Side, stored: Stored, shards: list[dict[str, Any]]
) -> dict[str, Any]:
    """Delete shards that are not among ``shards``, and temporary files; write and return the manifest."""
    names = [shard["file"] for shard in shards]
    for path in output.glob("part-*.parquet"):
        if path.name not in names:
            path.unlink()
    for name in (*names, MANIFEST_FILE):
        remove_leftovers(output / name)
    manifest: dict[str, Any] = {
        "vectors": FORMAT,
        "version": version("two-towers"),
        "corpus": corpus,
        "side": side,
        "stored": stored,
        "dim": model.dim,
        "documents": sum(shard["documents"] for shard in shards),
        "model": {
            "base": model.config.base,
            "tower": model.config.kind_of("query" if side == "queries" else "document"),
            "id": fingerprint(model, side, stored),
        },
        "shards": shards,
        "files": hash_files(output, names),
    }
    write_manifest(output / MANIFEST_FILE, manifest)
    return manifest


def read_vectors(folder: Path) -> Iterator[tuple[list[str], Vectors]]:
    """(ids, vectors) of each shard, (documents, dim) float32. ``UserError`` when a file is missing or was changed."""
    manifest = read_manifest(folder / MANIFEST_FILE, "vectors", FORMAT, _SHAPE, "encode")
    if manifest["stored"] not in get_args(Stored):
        raise UserError(f"{folder} has vectors of {manifest['stored']!r}, which is not known; update two-towers")
    verify_files(folder, manifest["files"], "encode the corpus again")
    for name in sorted(manifest["files"]):
        table = pq.read_table(folder / name)
        flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        yield table["id"].to_pylist(), flat.astype(np.float32).reshape(len(table), manifest["dim"])


def _is_ours(path: Path) -> bool:
    return (
        path.name == MANIFEST_FILE or path.match("part-*.parquet") or is_not_ours(path.name)
    )  # temporary files of ours are hidden
