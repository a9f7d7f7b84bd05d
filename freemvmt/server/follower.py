"""Keeps a served bundle in step with its folder of files (``serve --sync``)."""

import logging
import threading
from types import TracebackType

from freemvmt.config import FolderConfig
from freemvmt.data.files.report import FolderReport
from freemvmt.errors import UserError
from freemvmt.search.bundle.sync import INTERVAL, folder_of, sync
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
        problem = ""
        while not self._stop.is_set():
            try:
                counts = sync(self._retriever, self._folder, self._config, FolderReport())
                problem = ""
                if counts.changes:
                    logger.info("%s: %d documents added, replaced or deleted", self._folder, counts.changes)
            except UserError as error:
                if str(error) != problem:  # a folder that stays away is one line
                    problem = str(error)
                    logger.warning("%s", problem)
            self._stop.wait(INTERVAL)
