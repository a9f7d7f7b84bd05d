"""A corpus as vectors on disk: Parquet shards that any engine reads, and a manifest that says what made them.

_manifest.json       model, corpus, side, counts, and the shards with size and SHA-256; written last
part-00000.parquet   id and vector of so many documents, and in its footer the key of what they were made from

A shard is made anew only if its key is not that of the model and of the documents that belong there now: a run that was
stopped goes on, one that is repeated does nothing, and one over a corpus that grew makes the end alone.
"""

import hashlib
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

from freemvmt.data.corpus import read_corpus, repeated_document
from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import QUIET, Console
from freemvmt.search.index.ranking import Vectors
from freemvmt.storage.files import remove_leftovers, whole_file
from freemvmt.storage.hidden_files import is_foreign
from freemvmt.storage.manifest import Shape, check_seals, read_sealed, seal, write_sealed
from freemvmt.storage.outputs import check_folder

Side = Literal["documents", "queries"]
Stored = Literal["fp32", "fp16"]

FORMAT = 1
MANIFEST_FILE = "_manifest.json"  # engines that read the folder pass over it
_KEY = b"two-towers"  # in a shard's footer
_SHAPE: Shape = {"side": str, "stored": str, "dim": int, "documents": int, "shards": list, "files": {}, "model": {}}
_TYPES = {"fp32": (pa.float32(), np.float32), "fp16": (pa.float16(), np.float16)}


@dataclass(frozen=True)
class Work:
    """One shard: what is to be encoded, and under which name and key it is kept."""

    number: int
    key: str
    ids: list[str]
    texts: list[str]

    @property
    def file(self) -> str:
        """The shard's name in its folder."""
        return f"part-{self.number:05d}.parquet"


def check_output(output: Path, corpus: str) -> None:
    """Raise ``UserError`` unless vectors of ``corpus`` may be written at ``output``: nothing there, nothing in it, or
    vectors."""
    check_folder(output, "a shard", lambda folder: all(map(_is_ours, folder.iterdir())), [corpus])


@dataclass(frozen=True)
class Shard:
    """A shard that is there: ``seconds`` that it took, None where it was there before."""

    file: str
    documents: int
    key: str
    seconds: float | None


Engine = Callable[[Iterator[Work]], Iterator[Shard]]  # makes shards, in any order


def encode(
    model: TwoTowersModel,
    corpus: str,
    output: Path,
    *,
    side: Side = "documents",
    stored: Stored = "fp32",
    shard: int = 100_000,
    engine: Engine | None = None,
    console: Console = QUIET,
) -> dict[str, Any]:
    """Write the vectors of ``corpus`` into ``output``, ``shard`` documents a file; return the manifest.

    ``engine`` None is this process. Raises ``UserError`` where the corpus is wrong, an id stands twice, or the folder
    cannot be written.
    """
    check_output(output, corpus)
    engine = engine or here(model, output, side, stored)
    shards: list[Shard] = []
    for done in engine(works(model, read_corpus(corpus), side, stored, shard, corpus)):
        shards.append(done)
        if done.seconds is not None:
            console.line(f"encoding  {done.file}: {done.documents:,} vectors", done.seconds)
    if not shards:
        raise UserError(f"{corpus} holds no document; give a corpus with a document a line")
    shards.sort(key=lambda one: one.file)
    listed = [{"file": one.file, "documents": one.documents, "key": one.key} for one in shards]
    manifest = finish(output, model, corpus, side, stored, listed)
    made = sum(one.seconds is not None for one in shards)
    console.line(f"encoded   {manifest['documents']:,} vectors of {model.dim}: {made} of {len(shards)} shards made")
    return manifest


def here(model: TwoTowersModel, output: Path, side: Side, stored: Stored) -> Engine:
    """This process, one shard after the other."""

    def made(asked: Iterator[Work]) -> Iterator[Shard]:
        for work in asked:
            clock, seconds = time.perf_counter(), None
            if key_of(output / work.file) != work.key:
                write_shard(output, work, vectors_of(model, work.texts, side), stored)
                seconds = time.perf_counter() - clock
            yield Shard(work.file, len(work.ids), work.key, seconds)

    return made


def works(
    model: TwoTowersModel, documents: Iterator[Document], side: Side, stored: Stored, shard: int, corpus: str
) -> Iterator[Work]:
    """The shards of ``documents``, in order. Raises ``UserError`` for an id that stands twice."""
    maker = fingerprint(model, side, stored)
    seen: set[str] = set()
    for number in itertools.count():
        part = list(itertools.islice(documents, shard))
        if not part:
            return
        ids, texts = [document.id for document in part], [document.content for document in part]
        for name in ids:
            if name in seen:
                raise repeated_document(corpus, name)
            seen.add(name)
        digest = hashlib.sha256(json.dumps([maker, ids, texts]).encode())
        yield Work(number, digest.hexdigest(), ids, texts)


def fingerprint(model: TwoTowersModel, side: Side, stored: Stored) -> str:
    """What vectors are of: another model, side or width of numbers gives another."""
    digest = model.digest()
    digest.update(f"{FORMAT} {side} {stored}".encode())
    return digest.hexdigest()


def vectors_of(model: TwoTowersModel, texts: Sequence[str], side: Side) -> Vectors:
    """(texts, dim) float32."""
    vectors = (model.encode_documents if side == "documents" else model.encode_queries)(texts)
    found: Vectors = vectors.cpu().numpy()
    return found


def write_shard(output: Path, work: Work, vectors: Vectors, stored: Stored) -> None:
    """Write a shard, whole or not at all."""
    kind, number = _TYPES[stored]
    flat = pa.array(vectors.astype(number).reshape(-1), kind)
    lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    table = pa.table({"id": pa.array(work.ids, pa.string()), "vector": lists})
    table = table.replace_schema_metadata({_KEY: work.key.encode()})
    with whole_file(output / work.file) as part:
        pq.write_table(table, part, compression="none", use_dictionary=False, write_page_checksum=True)


def key_of(path: Path) -> str | None:
    """The key of a shard that is there and sound; None where it is neither."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException):
        return None
    return ((table.schema.metadata or {}).get(_KEY) or b"").decode("latin-1")


def finish(
    output: Path, model: TwoTowersModel, corpus: str, side: Side, stored: Stored, shards: list[dict[str, Any]]
) -> dict[str, Any]:
    """Take away what is of no shard, and write the manifest."""
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
        "model": {"base": model.config.base, "tower": model.config.tower, "id": fingerprint(model, side, stored)},
        "shards": shards,
        "files": seal(output, names),
    }
    write_sealed(output / MANIFEST_FILE, manifest)
    return manifest


def read_vectors(folder: Path) -> Iterator[tuple[list[str], Vectors]]:
    """(ids, vectors) shard by shard, (documents, dim) float32. Raises ``UserError`` where a file is not as written."""
    manifest = read_sealed(folder / MANIFEST_FILE, "vectors", FORMAT, _SHAPE, "encode")
    if manifest["stored"] not in get_args(Stored):
        raise UserError(f"{folder} has vectors of {manifest['stored']!r}, which is not known; update two-towers")
    check_seals(folder, manifest["files"], "encode the corpus again")
    for name in sorted(manifest["files"]):
        table = pq.read_table(folder / name)
        flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        yield table["id"].to_pylist(), flat.astype(np.float32).reshape(len(table), manifest["dim"])


def _is_ours(path: Path) -> bool:
    return (
        path.name == MANIFEST_FILE or path.match("part-*.parquet") or is_foreign(path.name)
    )  # our own parts are hidden
