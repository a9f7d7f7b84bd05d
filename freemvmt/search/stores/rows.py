"""The rows of a bundle's indexes: the passages of its documents, in order.

A document that is not cut is one row. Where no document is cut, the row of a document is its number, and no file says
so. Else ``passages.npy`` holds the numbers of each row, and ``trails`` its headings.
"""

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from freemvmt.data.documents import Document
from freemvmt.data.passages import Passage
from freemvmt.search.stores.arrays import StoredStrings, damaged, read_array, write_array, write_strings
from freemvmt.search.stores.layout import PASSAGES, TRAILS
from freemvmt.search.stores.texts import Texts

_NAMES = ("document", "start", "stop", "page", "headed")  # ``stop`` is 0 in a row that is a whole document
_ROW = np.dtype([(name, "<i8") for name in _NAMES])


class RowWriter:
    """Collects the passages of documents, one document after the other, and writes them if any document is cut.

    Documents that are not cut take no memory.
    """

    def __init__(self) -> None:
        self._numbers, self._trails = array("q"), list[str]()  # of the passages of documents that are cut
        self._documents = 0
        self.cut = 0  # documents that are cut

    def add(self, passages: Sequence[Passage]) -> None:
        """Add the passages of the next document; none where it is not cut."""
        for passage in passages:
            page = passage.page or 0
            self._numbers.extend((self._documents, passage.start, passage.stop, page, passage.headed))
            self._trails.append(passage.trail)
        self._documents += 1
        self.cut += bool(passages)

    def write(self, folder: Path) -> None:
        """Write the files of the bundle in ``folder``."""
        if not self.cut:
            return
        passages = np.frombuffer(self._numbers, _ROW)
        documents, counts = np.unique(passages["document"], return_counts=True)
        rows = np.ones(self._documents, np.int64)  # of each document
        rows[documents] = counts
        table = np.zeros(rows.sum(), _ROW)
        table["document"] = np.repeat(np.arange(self._documents), rows)
        is_passage = np.isin(table["document"], documents)
        table[is_passage] = passages
        write_array(folder / f"{PASSAGES}.npy", table)
        trails = iter(self._trails)
        write_strings(folder / TRAILS, (next(trails) if is_one else "" for is_one in is_passage.tolist()))


class Rows:
    """The rows of the bundle in ``folder``, whose documents are ``texts``; ``UserError`` when they do not fit."""

    def __init__(self, folder: Path, texts: Texts) -> None:
        self.texts = texts
        self._last: tuple[int, Document] | None = None
        path = folder / f"{PASSAGES}.npy"
        self.is_cut = path.exists()
        if not self.is_cut:
            return
        self._table = read_array(path, _ROW)
        self._trails = StoredStrings(folder / TRAILS)
        self._owners = np.ascontiguousarray(self._table["document"])
        self._firsts = np.flatnonzero(np.diff(self._owners, prepend=-1))
        if len(self._trails) != len(self._owners) or not np.array_equal(
            self._owners[self._firsts], np.arange(len(texts))
        ):
            raise damaged(path, "its passages are those of other documents")

    def __len__(self) -> int:
        return len(self._owners) if self.is_cut else len(self.texts)

    def owners(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the documents of ``rows``."""
        return self._owners[rows] if self.is_cut else rows

    @property
    def firsts(self) -> NDArray[np.int64]:
        """The first row of each document."""
        return self._firsts if self.is_cut else np.arange(len(self.texts))

    def of(self, document: int) -> range:
        """The rows of a document."""
        if not self.is_cut:
            return range(document, document + 1)
        end = len(self._owners) if document + 1 == len(self._firsts) else int(self._firsts[document + 1])
        return range(int(self._firsts[document]), end)

    def passage(self, row: int) -> Passage | None:
        """The passage in ``row``; None if it is a whole document."""
        if not self.is_cut or not self._table["stop"][row]:
            return None
        _, start, stop, page, headed = self._table[row].tolist()
        return Passage(start, stop, self._trails.read(row, 1)[0], page or None, bool(headed))

    def document(self, row: int) -> Document:
        """The document of ``row``. The last one is kept: the rows of a long document follow one another."""
        number = int(self._owners[row]) if self.is_cut else row
        last = self._last
        if last is None or last[0] != number:
            self._last = last = (number, self.texts[number])
        return last[1]

    def content(self, row: int) -> str:
        """What the document tower reads of ``row``."""
        passage = self.passage(row)
        if passage is not None:
            return passage.content(self.document(row))
        return self.texts.content_of(int(self._owners[row]) if self.is_cut else row)

    def words(self, row: int) -> str:
        """What BM25 reads of ``row``."""
        passage, document = self.passage(row), self.document(row)
        return document.content if passage is None else passage.words(document)
