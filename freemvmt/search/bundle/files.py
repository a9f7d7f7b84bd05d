"""The files of a bundle: its manifest, and the check of every file against the checksums in it.

A ``FileCheck`` runs in threads of its own, because hashing needs a core and no Python: a search from the command line
begins it first, and imports NumPy and FAISS meanwhile. So this module imports neither.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from freemvmt.errors import UserError
from freemvmt.search.stores.layout import (
    MANIFEST_FILE,
    STATE_FILE,
    STORE_FILE,
    WEIGHT_FILES,
    Identity,
    identity_of,
)
from freemvmt.storage.files import is_storable
from freemvmt.storage.hidden_files import is_stray
from freemvmt.storage.manifest import Shape, check_shape, read_manifest, verify_files
from freemvmt.storage.outputs import check_output_folder

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


def current_identity(folder: Path) -> Identity | None:
    """The identity of the bundle in ``folder``; None where there is none."""
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


class FileCheck:
    """The check of the bundle in ``folder``, which threads begin at once.

    ``verify=False`` skips the checksums, and ``graphs``, which encode in place of the weights, skips those of these.
    """

    def __init__(self, folder: Path, *, verify: bool = True, graphs: bool = False) -> None:
        self.identity = current_identity(folder)
        self.verify = verify
        self._folder, self._graphs = folder, graphs
        pool = ThreadPoolExecutor(1, "two-towers-check")
        self._manifest = pool.submit(self._read)
        self._files = pool.submit(self._compare)
        pool.shutdown(wait=False)

    def manifest(self) -> dict[str, Any]:
        """The manifest; ``UserError`` when it is none, is of another version, or there are links among the files."""
        return self._manifest.result()

    def finish(self) -> None:
        """Return when all files are compared; ``UserError`` when one is missing or was changed."""
        self._files.result()

    def _read(self) -> dict[str, Any]:
        manifest = read(self._folder)
        check_no_links(self._folder)
        return manifest

    def _compare(self) -> None:
        hashes = self.manifest()["files"]
        if self.verify:
            skipped = WEIGHT_FILES if self._graphs else ()
            files = {name: entry for name, entry in hashes.items() if name not in skipped}
            verify_files(self._folder, files, "index the corpus again")
