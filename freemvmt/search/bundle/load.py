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

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from freemvmt.errors import UserError
from freemvmt.runtime.optional import require
from freemvmt.search.bundle.files import FileCheck, current_identity
from freemvmt.search.encoder import Encoder, to_numpy
from freemvmt.search.index import analysis
from freemvmt.search.index import dense as vectors
from freemvmt.search.index.dense import VectorIndex
from freemvmt.search.index.ranking import Vectors, evenly_spaced
from freemvmt.search.lazy_model import LazyModel
from freemvmt.search.stores.base import Store
from freemvmt.search.stores.columns import Columns
from freemvmt.search.stores.filters import check_kinds
from freemvmt.search.stores.layout import MODEL_FOLDER, STORE_FILE, weight_ids
from freemvmt.search.stores.local.store import LocalStore
from freemvmt.search.stores.local.view import IndexedDocuments
from freemvmt.search.stores.rows import Rows
from freemvmt.search.stores.texts import Texts
from freemvmt.towers.numpy_towers import QueryRows


def open_bundle(
    folder: Path, *, verify: bool | FileCheck = True, graphs: Path | None = None, query_rows: QueryRows = "fp32"
) -> tuple[Encoder, Store, dict[str, Any]]:
    """(model, store, manifest) of the bundle in ``folder``.

    Raises ``UserError`` when a file is missing or was changed, or the vectors are not from the bundle's model.
    ``verify=False`` skips the checksums of the files, which take a second for two gigabytes; a ``FileCheck`` is one
    that was begun before. ``graphs`` is a folder with the model's ONNX graphs, which encode in place of the model.
    ``query_rows`` int8 holds the query tower's token vectors in a byte a number. If another bundle replaces this one
    while it is read, that one is opened.
    """
    check = FileCheck(folder, verify=verify, graphs=graphs is not None) if isinstance(verify, bool) else verify
    while True:
        try:
            return _open(folder, check, graphs, query_rows)
        except UserError:
            if current_identity(folder) == check.identity:
                raise
        check = FileCheck(folder, verify=check.verify, graphs=graphs is not None)


def _open(
    folder: Path, check: FileCheck, graphs: Path | None, query_rows: QueryRows
) -> tuple[Encoder, Store, dict[str, Any]]:
    manifest, identity = check.manifest(), check.identity or (0, 0)
    if manifest["analysis"] != analysis.signature():
        raise UserError(
            f"{folder}: this version makes other words of texts than it was indexed with; index the corpus again"
        )
    is_remote = STORE_FILE in manifest["files"]
    if not is_remote:
        require("faiss")  # while the files are compared
    check.finish()
    index = manifest["index"]
    for key, choices in (("kind", vectors.IndexKind), ("stored", vectors.Quantization)):
        if index[key] not in get_args(choices):
            raise UserError(f"{folder} has an index of {key} {index[key]!r}, which is not known; update two-towers")
    check_kinds(folder, manifest["fields"])
    model: Encoder = (
        LazyModel(folder / MODEL_FOLDER, query_rows) if graphs is None else _load_graphs(folder, manifest, graphs)
    )
    if is_remote:
        from freemvmt.search.bundle import milvus as remote

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
    return model, LocalStore(folder, base, identity, manifest["id"], verify=check.verify), manifest


def tokens_of(manifest: dict[str, Any]) -> int | None:
    """The most tokens of a passage in the bundle of ``manifest``; None where documents are never cut."""
    passages = manifest.get("passages")
    return None if passages is None else max(1, int(passages["tokens"]))


def _is_heavy(manifest: dict[str, Any]) -> bool:
    """Whether a transformer encodes the documents, and a light tower the queries."""
    towers = manifest["model"]
    return bool(towers["document_tower"] == "transformer" and towers["tower"] != "transformer")


def _load_graphs(folder: Path, manifest: dict[str, Any], graphs: Path) -> Encoder:
    from freemvmt.search.onnx_encoder import OnnxEncoder

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
    ids = weight_ids(manifest["files"])  # verified with the other files
    same_tokenizer = manifest["model"]["tokenizer"] == model.tokenizer.digest
    if ids is None or manifest["vectors_by"] != ids[1] or not same_tokenizer or dim != model.dim:
        raise _wrong_model(folder)


def _wrong_model(folder: Path) -> UserError:
    return UserError(f"{folder}: the vectors were made by another model than the one beside them; index it again")
