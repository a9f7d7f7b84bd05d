"""Keeps a served bundle in step with its folder of files (``serve --sync``)."""

import logging
import threading
from types import TracebackType

from freemvmt.config import FolderConfig
from freemvmt.data.files.report import FolderReport
from freemvmt.runtime.console import count_of
from freemvmt.search.bundle.sync import folder_of, follow, sync
from freemvmt.search.retriever import Retriever

logger = logging.getLogger(__name__)


class Follower:
    """A thread that brings the bundle of ``retriever`` in step every few seconds, between ``with`` and its end.

    Raises ``UserError`` at once if the bundle has no folder. What goes wrong later is logged, and tried again.
    """

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self._folder, self._config = folder_of(retriever, None, FolderConfig())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        def step() -> None:
            counts = sync(self._retriever, self._folder, self._config, FolderReport())
            if counts.changes:
                changes = count_of(counts.changes, "document")
                logger.info("%s: %s added, replaced or deleted", self._folder, changes)

        follow(step, lambda problem: logger.warning("%s", problem), self._stop)
