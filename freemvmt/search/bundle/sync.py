"""Bring a bundle in step with a folder of files.

The bundle itself says what it has read: the id of a document from a folder is the name of its file, and ``modified``
the time of the file's last change. A file with another time is read again, and encoded again if its text has changed.
All of it is one change of the bundle: a process that is killed leaves the bundle as it was, and the next one begins
anew.
"""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from freemvmt.config import FolderConfig
from freemvmt.data.documents import Document
from freemvmt.data.files.folder import read_folder
from freemvmt.data.files.report import FolderReport
from freemvmt.errors import UserError
from freemvmt.search.retriever import Retriever
from freemvmt.search.stores.local.store import LocalStore

INTERVAL = 2.0  # seconds between two looks at a folder that is watched
_CHUNK = 1024  # documents in memory while the bundle is read


@dataclass(frozen=True)
class SyncCounts:
    """What a sync did: documents ``added``, ``replaced`` and ``deleted``, and files that were as before."""

    added: int
    replaced: int
    deleted: int
    unchanged: int

    @property
    def changes(self) -> int:
        """The number of changes."""
        return self.added + self.replaced + self.deleted


def sync(retriever: Retriever, folder: Path, config: FolderConfig, report: FolderReport) -> SyncCounts:
    """Add the new files of ``folder`` to the bundle, replace the changed ones, and delete those that are gone.

    Documents that do not come from files stay. So does the document of a file that cannot be read any more. Raises
    ``UserError``, and changes nothing, if the folder has nothing to read, or the bundle cannot be changed.
    """
    known = {
        document.id: str(document.metadata.get("modified"))
        for document in _documents(retriever)
        if document.metadata.get("path") == document.id
    }
    changed = list(read_folder(folder, config, report, known))
    gone = known.keys() - report.present
    unchanged = len(report.present) - len(changed)
    if not (changed or gone):
        return SyncCounts(0, 0, 0, unchanged)
    counts = retriever.add(changed, delete=sorted(gone))
    return SyncCounts(counts.added, counts.replaced, counts.deleted, unchanged)


def follow(step: Callable[[], object], note: Callable[[str], object], stop: threading.Event) -> None:
    """Call ``step`` every two seconds until ``stop`` is set. A problem does not end this, since the next look may find
    the folder whole: ``note`` gets its line, once while it lasts."""
    problem = ""
    while not stop.is_set():
        try:
            step()
            problem = ""
        except UserError as error:
            if str(error) != problem:
                problem = str(error)
                note(problem)
        stop.wait(INTERVAL)


def _documents(retriever: Retriever) -> Iterator[Document]:
    """All documents of the bundle."""
    if not isinstance(retriever.store, LocalStore):
        raise UserError("the documents of this bundle are in Milvus, which sync does not change; use add and delete")
    view = retriever.store.view()
    numbers = view.numbers()
    for start in range(0, len(numbers), _CHUNK):
        yield from view.documents(numbers[start : start + _CHUNK])


def folder_of(retriever: Retriever, name: str | None, config: FolderConfig) -> tuple[Path, FolderConfig]:
    """The folder ``name`` or else the one that the bundle was made from, and ``config`` or else the globs of then."""
    source = retriever.about.get("folder")
    source = source if isinstance(source, dict) and isinstance(source.get("path"), str) else {}
    if not (config.include or config.exclude):
        include, exclude = (tuple(map(str, source.get(key, ()))) for key in ("include", "exclude"))
        config = replace(config, include=include, exclude=exclude)
    if name is not None:
        return Path(name), config
    assert retriever.folder is not None
    if not source:
        raise UserError(f"{retriever.folder} was not made from a folder of files; name the folder")
    folder = Path(os.path.normpath(retriever.folder.resolve() / source["path"]))
    if not folder.is_dir():
        raise UserError(f"the folder {folder}, which {retriever.folder} was made from, is not there; name it")
    return folder, config
