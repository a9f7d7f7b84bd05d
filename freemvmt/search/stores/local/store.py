"""The store in the folder of a bundle: a base that never changes, and the documents added and deleted since.

The base is memory-mapped: vectors (FAISS), texts and metadata (NumPy). Only the tantivy index changes. It holds the
words of all documents, and the text, metadata and vector of each added document, which is searched exactly. A change is
permanent from the moment of its tantivy commit.

Readers never wait: each holds a ``LocalView``, and a change makes a new one. Writers take turns with a lock file, so
several processes may change one bundle; each sees the changes of the others at its next search.
"""

import logging
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.runtime.threads import behind_others
from freemvmt.search.index.lexical import IndexedDocument, LexicalIndex, files_in
from freemvmt.search.index.ranking import Vectors
from freemvmt.search.stores.base import BundleReplaced, Cuts
from freemvmt.search.stores.filters import FieldKind, check_kinds, facets_of, kinds_of
from freemvmt.search.stores.layout import LOCK_FILE, MANIFEST_FILE, STATE_FILE, WORDS_FOLDER, Identity, stamp_of
from freemvmt.search.stores.local.view import IndexedDocuments, LocalView, payload_of
from freemvmt.storage.files import replace_folder, widen_permissions
from freemvmt.storage.locks import NoLocks, locked
from freemvmt.storage.manifest import FileHashes, Shape, hash_files, read_manifest, verify_files, write_manifest

logger = logging.getLogger(__name__)

STATE_FORMAT = 1
_SHAPE: Shape = {"id": str, "next_row": int, "pending": bool, "fields": {}, "files": {}}
_TIMEOUT = 30.0  # seconds that a writer waits for another writer


class LocalStore:
    """The documents of the bundle in ``folder``; ``UserError`` when a file is missing or was changed."""

    def __init__(
        self, folder: Path, base: IndexedDocuments, identity: Identity, id: str, *, verify: bool = True
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._manifest_path, self._state_path = folder / MANIFEST_FILE, folder / STATE_FILE
        self._base = base
        self._write_lock = threading.Lock()  # for changing the bundle
        self._view_lock = threading.Lock()  # for making the next view; never held while a writer waits
        self._is_committing = False
        self._writable, self._refusal = True, ""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._lock())
            except NoLocks as error:  # reading needs no lock
                self._writable, self._refusal = False, str(error)
            except OSError:
                self._writable = False
                self._refusal = f"{folder} cannot be written to, so it cannot change; copy it to a place that can"
            self._open(id, verify)

    def _open(self, id: str, verify: bool) -> None:
        """Make the first view. A read-only store has no lock, so it tries again if a writer changes files meanwhile."""
        deadline = time.monotonic() + _TIMEOUT
        while True:
            stamp = self._stamp()
            state = self._recovered_state() if self._writable else self._read_state()
            if state["id"] != id:
                raise UserError(f"{self._folder}: its words are those of another bundle; index the corpus again")
            try:
                if verify:
                    _check_words(self._folder, state)
                self._index = LexicalIndex(
                    self._folder / WORDS_FOLDER, writable=self._writable, base=len(self._base.rows)
                )
                self._view_stamp = self._stamp()
                self._view = LocalView.first(self._base, self._index.snapshot(), state["fields"])
                return
            except UserError:
                unchanged = self._stamp() == stamp and not state["pending"]
                if self._writable or unchanged or time.monotonic() > deadline:
                    raise
                time.sleep(0.002)

    @property
    def writable(self) -> bool:
        """Whether documents can be added and deleted."""
        return self._writable

    def view(self) -> LocalView:
        """The current state, with the changes of other processes."""
        self.refresh()
        return self._view

    @property
    def replaced(self) -> bool:
        """Whether another bundle has replaced this one on disk; then no file is read or written any more."""
        return self._is_replaced()

    def _is_replaced(self) -> bool:
        try:
            return stamp_of(self._manifest_path) != self._identity
        except OSError:  # deleted; the mapped files can still be read
            return False

    def refresh(self) -> bool:
        """Load what other processes have committed; True when there was anything.

        While this store commits, no other process can, and the writer makes the next view: searches leave it to that.
        """
        if self._is_committing or self._stamp() in (None, self._view_stamp) or self.replaced:
            return False
        with self._view_lock:
            stamp = self._stamp()
            if self._is_committing or stamp in (None, self._view_stamp) or self.replaced:
                return False
            pending = False
            try:
                state = self._read_state()
                pending = state["pending"]
                view = self._view.after(self._index.snapshot(), state["fields"])
            except UserError:
                if self._stamp() == stamp and not pending and not self.replaced:
                    raise
                return False  # another change began and deleted files before they were read
            if self._is_replaced():
                return False  # the state may be that of the other bundle
            self._view, self._view_stamp = view, stamp
            return True

    def add(self, documents: Sequence[Document], vectors: Vectors, cuts: Cuts = (), deleted: Sequence[str] = ()) -> int:
        """Add documents, each replacing the one with its id; return how many were replaced. Delete ``deleted``.

        All of it is one change.
        """
        with self._exclusive() as state:
            view = self._view
            kinds: dict[str, FieldKind] = {**view.kinds, **state["fields"]}
            for document in documents:
                kinds |= kinds_of(document.metadata, kinds, f"document {document.id!r}")
            replaced = [document.id for document in documents if view.number_of(document.id) is not None]
            gone = [name for name in dict.fromkeys(deleted) if view.number_of(name) is not None]
            first = state["next_row"]
            entries = list(_entries(documents, vectors, cuts, first))
            if entries or gone:
                self._commit(replaced + gone, entries, {**state, "next_row": first + len(entries), "fields": kinds})
            return len(replaced)

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Delete documents for good; return the ids of those that existed."""
        with self._exclusive() as state:
            existing = [name for name in dict.fromkeys(ids) if self._view.number_of(name) is not None]
            if existing:
                self._commit(existing, [], state)
            return existing

    @behind_others()
    def _commit(self, deleted: Sequence[str], added: Sequence[IndexedDocument], state: dict[str, Any]) -> None:
        self._is_committing = True
        try:
            self._write_state({**state, "pending": True})
            view = self._view
            deleted_numbers = [number for name in deleted if (number := view.number_of(name)) is not None]
            self._index.commit(deleted, added)
            try:
                self._finish_change(state)
            except (UserError, OSError) as error:  # the change is permanent; the next writer notes the hashes
                logger.warning("%s: a change is made but its sums are not noted: %s", self._folder, error)
            with self._view_lock:
                self._view = view.after(self._index.snapshot(), state["fields"], deleted_numbers)
                self._view_stamp = self._stamp()
        finally:
            self._is_committing = False

    def _finish_change(self, state: dict[str, Any]) -> None:
        """Write the hashes of tantivy's files into the state; those with a known hash never change, so it stays."""
        words, hashes = self._folder / WORDS_FOLDER, state["files"]
        names = files_in(words)
        unchanged = {name: hashes[name] for name in names if name in hashes and not name.endswith(".json")}
        for name in set(names) - set(unchanged):
            widen_permissions(words / name)  # tantivy makes some files that only their owner can read
        files = unchanged | hash_files(words, [name for name in names if name not in unchanged])
        self._write_state({**state, "pending": False, "files": files})

    def _recovered_state(self) -> dict[str, Any]:
        """The state; if a writer died in the middle of a change, it becomes that of tantivy's last commit."""
        state = self._read_state()
        if not state["pending"]:
            return state
        _check_words(self._folder, state)
        self._finish_change(state)
        return self._read_state()

    @contextmanager
    def _exclusive(self) -> Iterator[dict[str, Any]]:
        """Hold the lock and the newest view; yields the state, which nobody else can change meanwhile."""
        if not self._folder.is_dir():
            raise UserError(f"{self._folder} was taken away; put it back, or open another bundle")
        if not self._writable:
            raise UserError(self._refusal)
        with self._lock():
            state = self._recovered_state()
            self.refresh()
            yield state

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the locks that make this thread the only writer of all processes."""
        with self._write_lock, folder_lock(self._folder):
            if self.replaced:
                raise BundleReplaced(f"{self._folder} was replaced by another bundle; open it again")
            yield

    def _read_state(self) -> dict[str, Any]:
        state = read_manifest(self._folder / STATE_FILE, "words", STATE_FORMAT, _SHAPE)
        check_kinds(self._folder, state["fields"])
        return state

    def _write_state(self, state: dict[str, Any]) -> None:
        write_manifest(self._folder / STATE_FILE, {"words": STATE_FORMAT, **state})

    def _stamp(self) -> Identity | None:
        try:
            return stamp_of(self._state_path)
        except OSError:  # deleted
            return None

    def close(self) -> None:
        """Close the files."""
        self._index.close()


def _entries(documents: Sequence[Document], vectors: Vectors, cuts: Cuts, first: int) -> Iterator[IndexedDocument]:
    """What the index of words holds of added documents: an entry for each passage, the first one in row ``first``."""
    pairs = zip(documents, cuts or [()] * len(documents), strict=True)
    parts = [(document, passage) for document, own in pairs for passage in (own or (None,))]
    previous = None
    for row, ((document, passage), vector) in enumerate(zip(parts, vectors, strict=True), first):
        words = document.content if passage is None else passage.words(document)
        stored = None if document is previous else document
        payload = payload_of(stored, passage, vector)
        yield IndexedDocument(row, document.id, words, facets_of(document.metadata), payload)
        previous = document


def replace_bundle(part: Path, folder: Path) -> None:
    """Replace the bundle in ``folder``, if there is one, by the finished bundle ``part``.

    This holds the lock of the old bundle. A writer that waits for it gets ``BundleReplaced``, so no change of the old
    bundle is written into the new one.
    """
    with ExitStack() as stack:
        with suppress(OSError, NoLocks):  # no bundle yet, or one that cannot be changed
            stack.enter_context(folder_lock(folder))
        replace_folder(part, folder)


def folder_lock(folder: Path) -> AbstractContextManager[None]:
    """The lock of the writers of ``folder``; ``UserError`` when another holds it for more than ``_TIMEOUT``."""
    return locked(folder / LOCK_FILE, f"another process is writing to {folder}; try again later", _TIMEOUT)


def first_state(folder: Path, rows: int) -> str:
    """Write the state of a new bundle with ``rows`` passages; return the bundle's id, which the state names."""
    words = folder / WORDS_FOLDER
    files = hash_files(words, files_in(words))
    state = {"id": secrets.token_hex(8), "next_row": rows, "pending": False, "fields": {}, "files": files}
    write_manifest(folder / STATE_FILE, {"words": STATE_FORMAT, **state})
    return str(state["id"])


def _check_words(folder: Path, state: dict[str, Any]) -> None:
    files: FileHashes = state["files"]
    words = folder / WORDS_FOLDER
    if state["pending"]:
        # A change was in progress: it may have deleted files, and tantivy's JSON files may be newer.
        files = {name: entry for name, entry in files.items() if not name.endswith(".json") and (words / name).exists()}
    verify_files(words, files, "index the corpus again")
