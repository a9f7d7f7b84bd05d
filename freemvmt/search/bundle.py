"""A bundle: a model, a corpus and its indexes in one folder that is moved, served and checked as one.

manifest.json              counts, model, index and its recall; size and SHA-256 of the files
model/                     the towers
documents.arrow            id, title, text and metadata of each document, read by row
fields.arrow               metadata as typed columns, for filters
vectors.faiss sketch.faiss the vectors, and the faster way to them where there is one
words/ words.json          tantivy's index, which takes up what is added and deleted later; its files' SHA-256
"""

import hashlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from freemvmt.errors import UserError
from freemvmt.files import check_writable, sha256_of
from freemvmt.model import TwoTowersModel
from freemvmt.search import vectors
from freemvmt.search.documents import is_storable
from freemvmt.search.fields import Columns
from freemvmt.search.sealed import check_seals, read_sealed
from freemvmt.search.stores.embedded import MANIFEST_FILE, STATE_FILE, EmbeddedStore, identity_of
from freemvmt.search.stores.live import Base, Texts
from freemvmt.search.vectors import VectorIndex

FORMAT = 1
TEXTS_FILE, FIELDS_FILE, MODEL_FOLDER = "documents.arrow", "fields.arrow", "model"
WEIGHTS_FILE = f"{MODEL_FOLDER}/model.safetensors"


def check_output(output: Path) -> None:
    """Raise ``UserError`` unless a bundle may be written at ``output``: nothing there, nothing in it, or a bundle."""
    _check_name(output)
    check_writable(output)
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; name another folder with --output")
    if output.is_dir() and any(output.iterdir()) and not is_bundle(output):
        raise UserError(f"{output} holds something that is not a bundle; name another folder with --output")


def _check_name(folder: Path) -> None:
    if not is_storable(str(folder.absolute())):  # Arrow, FAISS and tantivy name files in UTF-8
        raise UserError(f"the name of the folder {str(folder)!a} is not UTF-8; give it another name")


def is_bundle(folder: Path) -> bool:
    """Whether a bundle, sound or not, is in ``folder``."""
    try:
        return (folder / MANIFEST_FILE).is_file() and (folder / STATE_FILE).is_file()
    except OSError:  # too long for a path
        return False


def open_bundle(folder: Path, *, verify: bool = True) -> tuple[TwoTowersModel, EmbeddedStore, dict[str, Any]]:
    """(model, store, manifest) of the bundle in ``folder``.

    Raises ``UserError`` when a file is missing or was changed, or the vectors are not that model's. ``verify=False``
    leaves out the sums of the files, which take a second for two gigabytes.
    """
    _check_name(folder)
    manifest = read_sealed(folder / MANIFEST_FILE, "bundle", FORMAT)
    identity = identity_of(folder)
    if verify:
        check_seals(folder, manifest["files"])
    index = manifest["index"]
    if index["kind"] not in get_args(vectors.Kind):
        raise UserError(f"{folder} has an index of kind {index['kind']!r}, which is not known; update two-towers")
    model = TwoTowersModel.load(folder / MODEL_FOLDER)
    table = mapped(folder / TEXTS_FILE)
    base = Base(
        VectorIndex.read(folder, index["kind"], index["quantized"]),
        Texts(table),
        Columns(mapped(folder / FIELDS_FILE), manifest["fields"]),
    )
    if not len(base.index) == len(base.texts) == len(base.columns.table) == manifest["documents"]:
        raise UserError(f"{folder}: its files do not hold the same documents; index the corpus again")
    _check_model(folder, manifest, model, base)
    return model, EmbeddedStore(folder, base, identity, manifest["id"], verify=verify), manifest


def _check_model(folder: Path, manifest: dict[str, Any], model: TwoTowersModel, base: Base) -> None:
    """The vectors must be this model's: by the name of what made them, and by making a few of them again."""
    tokenizer = hashlib.sha256(model.tokenizer.definition.encode()).hexdigest()
    same = manifest["vectors_by"] == sha256_of(folder / WEIGHTS_FILE) and manifest["model"]["tokenizer"] == tokenizer
    same = same and base.index.dim == model.dim
    if same and len(base.texts):
        rows = sorted({int(row) for row in np.linspace(0, len(base.texts) - 1, 8)})
        made = model.encode_documents([base.texts[row].content for row in rows]).cpu().numpy()
        same = bool(np.abs(made - np.stack([base.index.vector(row) for row in rows])).max() < 0.02)
    if not same:
        raise UserError(f"{folder}: the vectors were made by another model than the one beside them; index it again")


def mapped(path: Path) -> pa.Table:
    """The table in an Arrow file, mapped and not read."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read ({reason}); index the corpus again") from error
