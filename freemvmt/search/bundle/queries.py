"""Swap the query tower of a bundle, whose vectors, texts and indexes stay the files that they are.

The document tower spans the space of a bundle's vectors. Every query tower that was trained beside that same document
tower searches them. The bundle is put together in a hidden folder beside it, out of links to the files that stay, and
replaces the old bundle in one step, as after indexing: a server opens it at its next search.

The query tower that was installed before stays in the bundle, in the folder ``previous``.
"""

import datetime
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle import files as bundle
from freemvmt.search.stores.layout import (
    LOCK_FILE,
    MANIFEST_FILE,
    MODEL_FOLDER,
    PREVIOUS_FOLDER,
    identity_of,
    weight_ids,
)
from freemvmt.search.stores.local.store import folder_lock
from freemvmt.storage.files import as_user_error, atomic_folder
from freemvmt.storage.hidden_files import is_stray
from freemvmt.storage.manifest import hash_files, verify_files, write_manifest
from freemvmt.storage.outputs import check_writable


def check_swappable(folder: Path) -> None:
    """Raise ``UserError`` unless ``folder`` is a bundle that can be replaced."""
    bundle.read(folder)
    bundle.check_no_links(folder)
    check_writable(folder)
    if folder.is_mount():
        raise UserError(f"{folder} is the root of a file system, which cannot be replaced; mount the folder above it")


def install(folder: Path, model: TwoTowersModel, by: str, card: str | None = None) -> dict[str, Any]:
    """Install the query tower of ``model``, and keep the one before; return the new manifest.

    ``by`` says in the manifest where the tower comes from, ``card`` is the README.md of the new model folder. Where the
    bundle keeps fewer dimensions (``index --dim``), those of ``model`` are reduced in the same way. Raises
    ``UserError``, and changes nothing, unless the document tower of ``model`` is that of the bundle.
    """
    with _locked(folder.resolve()) as (manifest, installed):
        if (fitting := _in_space_of(installed, model)) is None:
            raise UserError(
                f"{folder} holds the vectors of another document tower, which this query tower cannot search; "
                "give a model that was trained over the bundle's own, or index the corpus again"
            )
        model = fitting
        id = model.space("query")
        if (present := _entry(manifest, "installed")) is not None and present["id"] == id:
            return manifest  # the tower before stays the one to go back to
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        entry = {"id": id, "since": now, "by": by, "training": model.record}
        return _replace(folder.resolve(), manifest, installed, (model, entry, card))


def _in_space_of(installed: TwoTowersModel, model: TwoTowersModel) -> TwoTowersModel | None:
    """``model``, if its document tower is that of ``installed``, or its cut to the dimensions that ``index --dim`` left
    of it; else None."""
    space = installed.space("document")
    if model.space("document") == space:
        return model
    if installed.dim >= model.dim:
        return None
    cut_head = installed.tensors()["document.head"]  # (dim, width)
    # Over a head of the model's own, only the first dimensions can be recognised.
    has_head = "document.head" in model.tensors()
    reduced = model.cut(torch.eye(installed.dim, model.dim) if has_head else cut_head)
    return reduced if reduced.space("document") == space else None


def go_back(folder: Path) -> dict[str, Any]:
    """Install the query tower that was installed before, and keep the present one; return the new manifest.

    Going back twice ends where it began. Raises ``UserError`` when the bundle has never had another query tower.
    """
    with _locked(folder.resolve()) as (manifest, installed):
        entry = _entry(manifest, "previous")
        if entry is None:
            raise UserError(
                f"{folder} has had no other query tower; train one with --dataset, or give one by --queries"
            )
        previous = folder.resolve() / PREVIOUS_FOLDER
        model = installed.with_queries(previous)
        readme = previous / "README.md"
        card = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else None
        return _replace(folder.resolve(), manifest, installed, (model, entry, card))


def _entry(manifest: dict[str, Any], which: str) -> dict[str, Any] | None:
    """What the manifest says of the query tower that is ``installed``, or was before (``previous``), if it does."""
    entries = manifest.get("queries")
    entry = entries.get(which) if isinstance(entries, dict) else None
    return entry if isinstance(entry, dict) and {"id", "since", "by"} <= entry.keys() else None


@contextmanager
def _locked(folder: Path) -> Iterator[tuple[dict[str, Any], TwoTowersModel]]:
    """Hold the lock of the bundle's writers; yields the manifest and the model, which nobody changes meanwhile."""
    while True:
        check_swappable(folder)
        identity = identity_of(folder)
        with as_user_error(folder), folder_lock(folder):
            if identity_of(folder) != identity:  # this may be the lock of a bundle that was replaced
                continue
            manifest = bundle.read(folder)
            own = {name: entry for name, entry in manifest["files"].items() if name.startswith(f"{MODEL_FOLDER}/")}
            verify_files(folder, own, "index the corpus again")
            yield manifest, TwoTowersModel.load(folder / MODEL_FOLDER, verify=False)
            return


def _replace(
    folder: Path,
    manifest: dict[str, Any],
    installed: TwoTowersModel,
    new: tuple[TwoTowersModel, dict[str, Any], str | None],
) -> dict[str, Any]:
    """Replace the bundle by one with the query tower ``new`` (its model, entry and card); return the new manifest."""
    model, entry, card = new
    first = {"id": installed.space("query"), "since": manifest["created"], "by": "index", "training": installed.record}
    old_entry = _entry(manifest, "installed") or first
    with atomic_folder(folder) as part:
        shutil.copytree(folder, part, copy_function=_link, ignore=_what_changes(folder), dirs_exist_ok=True)
        installed.save_queries(part / PREVIOUS_FOLDER)
        shutil.copy2(folder / MODEL_FOLDER / "README.md", part / PREVIOUS_FOLDER)
        model.save(part / MODEL_FOLDER, card)
        names = [f"{MODEL_FOLDER}/{file.name}" for file in (part / MODEL_FOLDER).iterdir()]
        files = {name: hashes for name, hashes in manifest["files"].items() if not name.startswith(f"{MODEL_FOLDER}/")}
        files |= hash_files(part, names)
        ids = weight_ids(files)
        assert ids is not None  # the model is saved by now
        public = {key: value for key, value in entry.items() if key != "training"}
        kind = model.config.kind_of("query")
        manifest = manifest | {
            "files": files,
            "vectors_by": ids[1],
            "model": manifest["model"] | {"id": ids[0], "tower": kind, "queries": public},
            "queries": {"installed": entry, "previous": old_entry},
        }
        write_manifest(part / MANIFEST_FILE, manifest)
    return manifest


def _what_changes(folder: Path) -> Any:
    """For ``copytree``: the names in a folder of the bundle that the new bundle does not share with the old one."""
    own = {MODEL_FOLDER, PREVIOUS_FOLDER, MANIFEST_FILE, LOCK_FILE}

    def ignored(parent: str, names: list[str]) -> set[str]:
        return {name for name in names if is_stray(name) or (Path(parent) == folder and name in own)}

    return ignored


def _link(source: str, target: str) -> None:
    """Give a file a second name, or copy it where the file system knows no such links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
