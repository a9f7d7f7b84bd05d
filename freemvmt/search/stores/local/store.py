"""Documents in the folder of a bundle: a base that never changes, and what was added to it and deleted since.

The base is mapped from disk: vectors (FAISS), texts and metadata (Arrow). tantivy holds the words of all documents and
is the only thing that changes; its commit is the moment from which a change is there for good. A document that was
added carries text, metadata and vector in tantivy itself, and is searched exactly.

Readers never wait: they hold a ``LiveView``, and a change makes another. Writers take turns by a lock file, so that
several processes may change one bundle; the others see it at their next search.
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
from freemvmt.search.index.lexical import Entry, Words, files_in
from freemvmt.search.index.ranking import Vectors
from freemvmt.search.stores.base import Replaced
from freemvmt.search.stores.filters import Kind, check_kinds, facets_of, kinds_of
from freemvmt.search.stores.layout import LOCK_FILE, MANIFEST_FILE, STATE_FILE, WORDS_FOLDER, Identity, stamp_of
from freemvmt.search.stores.local.view import Base, LiveView, payload_of
from freemvmt.storage.files import put_in_place, share
from freemvmt.storage.locks import NoLocks, locked
from freemvmt.storage.manifest import Seals, Shape, check_seals, read_sealed, seal, write_sealed

logger = logging.getLogger(__name__)

STATE_FORMAT = 1
_SHAPE: Shape = {"id": str, "next_row": int, "pending": bool, "fields": {}, "files": {}}
_PATIENCE = 30.0  # seconds that a writer waits for another


class EmbeddedStore:
    """The documents of the bundle in ``folder``. Raises ``UserError`` when a file is missing or was changed."""

    def __init__(self, folder: Path, base: Base, identity: Identity, id: str, *, verify: bool = True) -> None:
        self._folder = folder
        self._identity = identity
        self._manifest_path, self._state_path = folder / MANIFEST_FILE, folder / STATE_FILE
        self._base = base
        self._writing = threading.Lock()  # one thread changes the bundle
        self._viewing = threading.Lock()  # one thread makes the next view; never held while a writer waits
        self._committing = False
        self._writable, self._barred = True, ""
        with ExitStack() as alone:
            try:
                alone.enter_context(self._alone())
            except NoLocks as error:  # reading needs none
                self._writable, self._barred = False, str(error)
            except OSError:
                self._writable = False
                self._barred = f"{folder} cannot be written to, so it cannot change; copy it to a place that can"
            self._open(id, verify)

    def _open(self, id: str, verify: bool) -> None:
        """Make the first view. Who cannot write takes no turn: what a writer changes meanwhile is looked at again."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            stamp = self._stamp()
            state = self._recovered() if self._writable else self._state()
            if state["id"] != id:
                raise UserError(f"{self._folder}: its words are those of another bundle; index the corpus again")
            try:
                if verify:
                    _check_words(self._folder, state)
                self._words = Words(self._folder / WORDS_FOLDER, writable=self._writable)
                self._seen = self._stamp()
                self._view = LiveView.first(self._base, self._words.snapshot(), state["fields"])
                return
            except UserError:
                still = self._stamp() == stamp and not state["pending"]
                if self._writable or still or time.monotonic() > deadline:
                    raise
                time.sleep(0.002)

    @property
    def writable(self) -> bool:
        """Whether the folder lets itself be written to."""
        return self._writable

    def view(self) -> LiveView:
        """What is there now, changes of other processes included."""
        self.refresh()
        return self._view

    @property
    def replaced(self) -> bool:
        """Whether another bundle has taken this one's place on disk: then nothing is read or written there any more."""
        return self._is_replaced()

    def _is_replaced(self) -> bool:
        try:
            return stamp_of(self._manifest_path) != self._identity
        except OSError:  # taken away: what is mapped stays
            return False

    def refresh(self) -> bool:
        """Take up what another process has committed; True when there was something."""
        if self._stamp() in (None, self._seen) or self.replaced:
            return False
        with self._viewing:
            stamp = self._stamp()
            if stamp in (None, self._seen) or self.replaced:
                return False
            pending = False
            try:
                state = self._state()
                pending = state["pending"]
                if pending and self._committing:
                    return False  # our own change is under way, and what was before it was taken up when it began
                view = self._view.after(self._words.snapshot(), state["fields"])
            except UserError:
                if self._stamp() == stamp and not pending and not self.replaced:
                    raise
                return False  # the next change has begun, and files are gone before they were read
            if self._is_replaced():
                return False  # what was read may be of the other bundle
            self._view, self._seen = view, stamp
            return True

    def add(self, documents: Sequence[Document], vectors: Vectors) -> int:
        """Put documents in, each in the place of one with its id; return how many were replaced."""
        with self._turn() as state:
            view = self._view
            kinds: dict[str, Kind] = {**view.kinds, **state["fields"]}
            for document in documents:
                kinds |= kinds_of(document.metadata, kinds, f"document {document.id!r}")
            replaced = [document.id for document in documents if view.number_of(document.id) is not None]
            first = state["next_row"]
            entries = [
                Entry(
                    first + number,
                    document.id,
                    document.content,
                    facets_of(document.metadata),
                    payload_of(document, vector),
                )
                for number, (document, vector) in enumerate(zip(documents, vectors, strict=True))
            ]
            if entries:
                self._commit(replaced, entries, {**state, "next_row": first + len(entries), "fields": kinds})
            return len(replaced)

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Take documents out, for good; return the ids that were there."""
        with self._turn() as state:
            found = [name for name in dict.fromkeys(ids) if self._view.number_of(name) is not None]
            if found:
                self._commit(found, [], state)
            return found

    def _commit(self, deleted: Sequence[str], added: Sequence[Entry], state: dict[str, Any]) -> None:
        self._committing = True
        try:
            self._write_state({**state, "pending": True})
            view = self._view
            gone = [number for name in deleted if (number := view.number_of(name)) is not None]
            self._words.commit(deleted, added)
            try:
                self._settle(state)
            except (UserError, OSError) as error:  # the change is there for good; whoever writes next will note it
                logger.warning("%s: a change is made but its sums are not noted: %s", self._folder, error)
            with self._viewing:
                if self._view is not view:  # a search has taken the change up already, and numbers may be others
                    gone = []
                self._view = self._view.after(self._words.snapshot(), state["fields"], gone)
                self._seen = self._stamp()
        finally:
            self._committing = False

    def _settle(self, state: dict[str, Any]) -> None:
        """Note what tantivy's files are now; those that were known are not read again, for they never change."""
        words, known = self._folder / WORDS_FOLDER, state["files"]
        names = files_in(words)
        kept = {name: known[name] for name in names if name in known and not name.endswith(".json")}
        for name in set(names) - set(kept):
            share(words / name)  # tantivy makes some that only their owner could read
        files = kept | seal(words, [name for name in names if name not in kept])
        self._write_state({**state, "pending": False, "files": files})

    def _recovered(self) -> dict[str, Any]:
        """The state after a writer died between its first and its last word: what tantivy has committed counts."""
        state = self._state()
        if not state["pending"]:
            return state
        _check_words(self._folder, state)
        self._settle(state)
        return self._state()

    @contextmanager
    def _turn(self) -> Iterator[dict[str, Any]]:
        """Be the only writer, with the newest view; yields the state, which nobody else changes meanwhile."""
        if not self._folder.is_dir():
            raise UserError(f"{self._folder} was taken away; put it back, or open another bundle")
        if not self._writable:
            raise UserError(self._barred)
        with self._alone():
            state = self._recovered()
            self.refresh()
            yield state

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only writer, of this process and of all others."""
        with self._writing, _turn_at(self._folder):
            if self.replaced:
                raise Replaced(f"{self._folder} was replaced by another bundle; open it again")
            yield

    def _state(self) -> dict[str, Any]:
        state = read_sealed(self._folder / STATE_FILE, "words", STATE_FORMAT, _SHAPE)
        check_kinds(self._folder, state["fields"])
        return state

    def _write_state(self, state: dict[str, Any]) -> None:
        write_sealed(self._folder / STATE_FILE, {"words": STATE_FORMAT, **state})

    def _stamp(self) -> Identity | None:
        try:
            return stamp_of(self._state_path)
        except OSError:  # taken away
            return None

    def close(self) -> None:
        """Let go of the files."""
        self._words.close()


def take_place(part: Path, folder: Path) -> None:
    """Let the finished bundle ``part`` take the place of the one in ``folder``, if there is one, between two changes of
    that: who waits to change it is told, and nothing of the old one is written into the new."""
    with ExitStack() as turn:
        with suppress(OSError, NoLocks):  # nothing there yet, or nothing that could be changed
            turn.enter_context(_turn_at(folder))
        put_in_place(part, folder)


def _turn_at(folder: Path) -> AbstractContextManager[None]:
    """Be the only one who changes ``folder``; ``UserError`` when another does for long."""
    return locked(folder / LOCK_FILE, f"another process is writing to {folder}; try again later", _PATIENCE)


def first_state(folder: Path, rows: int) -> str:
    """Write the state of a bundle whose ``words`` hold rows 0 to ``rows``; return the id of this state and its own."""
    words = folder / WORDS_FOLDER
    files = seal(words, files_in(words))
    state = {"id": secrets.token_hex(8), "next_row": rows, "pending": False, "fields": {}, "files": files}
    write_sealed(folder / STATE_FILE, {"words": STATE_FORMAT, **state})
    return str(state["id"])


def _check_words(folder: Path, state: dict[str, Any]) -> None:
    files: Seals = state["files"]
    words = folder / WORDS_FOLDER
    if state["pending"]:
        # A change was under way: files that it let go of may be gone, and tantivy's own lists may be newer.
        files = {name: known for name, known in files.items() if not name.endswith(".json") and (words / name).exists()}
    check_seals(words, files, "index the corpus again")
