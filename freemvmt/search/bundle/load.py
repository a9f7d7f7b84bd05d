"""Open a bundle: a folder with these files.

manifest.json              counts, model, index and its recall; size and SHA-256 of the files
model/                     the towers
previous/                  the query tower before the one in model/, if there was another
documents.utf8             id, title, text and metadata of each document, read by row
documents.npy              where each of these begins
passages.npy trails.*      where documents are cut into passages, if any is; the indexes then number passages
fields/                    metadata as typed columns, for filters
vectors.faiss sketch.faiss the vectors, and a sketch of them for faster search with some kinds of index
words/ words.json          tantivy's index, which also records documents added and deleted later; its files' SHA-256

A bundle whose documents are in Milvus has the first three and ``store.json``, the location of its collection.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from freemvmt.data.documents import is_storable
from freemvmt.errors import UserError
from freemvmt.search.bundle import milvus as remote
from freemvmt.search.encoder import Encoder, to_numpy
from freemvmt.search.index import analysis
from freemvmt.search.index import dense as vectors
from freemvmt.search.index.dense import VectorIndex
from freemvmt.search.index.ranking import Vectors, evenly_spaced
from freemvmt.search.lazy_model import LazyModel
from freemvmt.search.onnx_encoder import OnnxEncoder
from freemvmt.search.stores.base import Store
from freemvmt.search.stores.columns import Columns
from freemvmt.search.stores.filters import check_kinds
from freemvmt.search.stores.layout import (
    MANIFEST_FILE,
    MODEL_FOLDER,
    STATE_FILE,
    STORE_FILE,
    WEIGHT_FILES,
    Identity,
    identity_of,
    weight_ids,
)
from freemvmt.search.stores.local.store import LocalStore
from freemvmt.search.stores.local.view import IndexedDocuments
from freemvmt.search.stores.rows import Rows
from freemvmt.search.stores.texts import Texts
from freemvmt.storage.hidden_files import is_stray
from freemvmt.storage.manifest import Shape, check_shape, read_manifest, verify_files
from freemvmt.storage.outputs import check_output_folder
from freemvmt.towers.numpy_towers import QueryRows

FORMAT = 3  # 3: texts and metadata in files that NumPy reads; 2: lists in filters, one analysis of words
_SHAPE: Shape = {  # of the entries of the manifest that are used
    "name": str, "id": str, "corpus": str, "created": str, "version": str, "documents": int, "dim": int, "fields": {},
    "index": {"kind": str, "stored": str, "recall@10": float, "recall_queries": int}, "vectors_by": str, "files": {},
    "model": {"id": str, "tokenizer": str, "base": str, "tower": str, "document_tower": str}, "analysis": str,
}  # fmt: skip
_PASSAGES: Shape = {"passages": {"tokens": int, "count": int}}  # if documents may be cut


def check_output(output: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Raise ``UserError`` unless a bundle may be written at ``output``: it does not exist, is empty or is a bundle, and
    it is not among ``inputs``."""
    _check_name(output)
    check_output_folder(output, "a bundle", is_bundle, inputs)


def _check_name(folder: Path) -> None:
    if not is_storable(str(folder.absolute())):  # FAISS and tantivy name files in UTF-8
        raise UserError(f"the name of the folder {str(folder)!a} is not UTF-8; give it another name")


def is_bundle(folder: Path) -> bool:
    """Whether ``folder`` is a bundle; its files are not verified."""
    try:
        return (folder / MANIFEST_FILE).is_file() and any(
            (folder / name).is_file() for name in (STATE_FILE, STORE_FILE)
        )
    except OSError:  # too long for a path
        return False


def open_bundle(
    folder: Path, *, verify: bool = True, graphs: Path | None = None, query_rows: QueryRows = "fp32"
) -> tuple[Encoder, Store, dict[str, Any]]:
    """(model, store, manifest) of the bundle in ``folder``.

    Raises ``UserError`` when a file is missing or was changed, or the vectors are not from the bundle's model.
    ``verify=False`` skips the checksums of the files, which take a second for two gigabytes. ``graphs`` is a folder
    with the model's ONNX graphs, which encode in place of the model. ``query_rows`` int8 holds the query tower's token
    vectors in a byte a number. If another bundle replaces this one while it is read, that one is opened.
    """
    while True:
        identity = _identity(folder)
        try:
            return _open(folder, identity or (0, 0), verify, graphs, query_rows)
        except UserError:
            if _identity(folder) == identity:
                raise


def _identity(folder: Path) -> Identity | None:
    try:
        return identity_of(folder)
    except (OSError, ValueError):  # no such file, or no valid path
        return None


def check_no_links(folder: Path) -> None:
    """Raise ``UserError`` if there is a symbolic link below ``folder``; links among stray files do not count."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_stray(name)]
        for name in (*folders, *files):
            if (path := Path(parent) / name).is_symlink() and not is_stray(name):
                hint = "a bundle holds none: it could lead out of it; index the corpus again"
                raise UserError(f"{path} is a link, and {hint}")


def read(folder: Path) -> dict[str, Any]:
    """The manifest of the bundle in ``folder``; ``UserError`` when it is none, or is of another version."""
    _check_name(folder)
    manifest = read_manifest(folder / MANIFEST_FILE, "bundle", FORMAT, _SHAPE)
    if "passages" in manifest:
        check_shape(folder / MANIFEST_FILE, manifest, _PASSAGES, "index the corpus again")
    return manifest


def _open(
    folder: Path, identity: Identity, verify: bool, graphs: Path | None, query_rows: QueryRows
) -> tuple[Encoder, Store, dict[str, Any]]:
    manifest = read(folder)
    if manifest["analysis"] != analysis.signature():
        raise UserError(
            f"{folder}: this version makes other words of texts than it was indexed with; index the corpus again"
        )
    check_no_links(folder)
    if verify:
        files = {
            name: hashes for name, hashes in manifest["files"].items() if graphs is None or name not in WEIGHT_FILES
        }
        verify_files(folder, files, "index the corpus again")
    index = manifest["index"]
    for key, choices in (("kind", vectors.IndexKind), ("stored", vectors.Quantization)):
        if index[key] not in get_args(choices):
            raise UserError(f"{folder} has an index of {key} {index[key]!r}, which is not known; update two-towers")
    check_kinds(folder, manifest["fields"])
    model: Encoder = (
        LazyModel(folder / MODEL_FOLDER, query_rows) if graphs is None else _load_graphs(folder, manifest, graphs)
    )
    if STORE_FILE in manifest["files"]:
        store = remote.open_store(folder, identity)
        _check_model_ids(folder, manifest, model, store.dim)
        documents, stored = store.sample(8)
        _check_vectors(folder, manifest, model, [document.content for document in documents], stored)
        return model, store, manifest
    texts = Texts(folder)
    columns = Columns.read(folder, manifest["fields"], len(texts))
    base = IndexedDocuments(VectorIndex.read(folder, index["kind"], index["stored"]), Rows(folder, texts), columns)
    if len(base.index) != len(base.rows) or len(texts) != manifest["documents"]:
        raise UserError(f"{folder}: its files do not hold the same documents; index the corpus again")
    _check_model(folder, manifest, model, base)
    return model, LocalStore(folder, base, identity, manifest["id"], verify=verify), manifest


def tokens_of(manifest: dict[str, Any]) -> int | None:
    """The most tokens of a passage in the bundle of ``manifest``; None where documents are never cut."""
    passages = manifest.get("passages")
    return None if passages is None else max(1, int(passages["tokens"]))


def _is_heavy(manifest: dict[str, Any]) -> bool:
    """Whether a transformer encodes the documents, and a light tower the queries."""
    towers = manifest["model"]
    return bool(towers["document_tower"] == "transformer" and towers["tower"] != "transformer")


def _load_graphs(folder: Path, manifest: dict[str, Any], graphs: Path) -> Encoder:
    encoder = OnnxEncoder(graphs)
    if encoder.model != {key: manifest["model"][key] for key in encoder.model}:
        command = f"two-towers export {folder / MODEL_FOLDER} --format onnx"
        raise UserError(
            f"{graphs} holds graphs of another model than {folder} was indexed with; `{command}` makes its own"
        )
    return encoder


def _check_model(folder: Path, manifest: dict[str, Any], model: Encoder, base: IndexedDocuments) -> None:
    """Raise ``UserError`` unless the vectors are from ``model``: compare its ids, and a few vectors with new ones."""
    _check_model_ids(folder, manifest, model, base.index.dim)
    rows = evenly_spaced(len(base.rows), 8) if len(base.rows) else []
    stored = np.stack([base.index.vector(row) for row in rows]) if rows else np.empty((0, model.dim), np.float32)
    for row in rows:
        base.rows.document(row)  # with its id and metadata, which are read here for the first time
    _check_vectors(folder, manifest, model, [base.rows.content(row) for row in rows], stored)


def _check_vectors(
    folder: Path, manifest: dict[str, Any], model: Encoder, contents: Sequence[str], stored: Vectors
) -> None:
    """Raise ``UserError`` unless ``stored`` (contents, dim) are the vectors that ``model`` gives ``contents``."""
    if not contents or _is_heavy(manifest):  # the SHA-256 of the document tower was compared
        return
    encoded = to_numpy(model.encode_documents(contents))
    if np.abs(encoded - stored).max() >= 0.02:
        raise _wrong_model(folder)


def _check_model_ids(folder: Path, manifest: dict[str, Any], model: Encoder, dim: int) -> None:
    tokenizer = hashlib.sha256(model.tokenizer.definition.encode()).hexdigest()
    ids = weight_ids(manifest["files"])  # verified with the other files
    same = ids is not None and manifest["vectors_by"] == ids[1] and manifest["model"]["tokenizer"] == tokenizer
    if not same or dim != model.dim:
        raise _wrong_model(folder)


def _wrong_model(folder: Path) -> UserError:
    return UserError(f"{folder}: the vectors were made by another model than the one beside them; index it again")
