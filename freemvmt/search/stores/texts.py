"""The documents of a bundle, read by row from memory-mapped files."""

import json
from collections.abc import Iterable
from pathlib import Path

from freemvmt.data.documents import Document, content_of, unchecked_document
from freemvmt.search.stores.arrays import StoredStrings, damaged, write_strings
from freemvmt.search.stores.layout import TEXTS

_COLUMNS = 4  # strings of a document: id, title, text, metadata (as JSON)


def write_texts(folder: Path, documents: Iterable[Document]) -> None:
    """Write ``documents`` into the bundle in ``folder``; they are not held in memory."""
    write_strings(
        folder / TEXTS,
        (
            text
            for document in documents
            for text in (document.id, document.title, document.text, json.dumps(document.metadata))
        ),
    )


class Texts:
    """The documents that ``write_texts`` wrote into ``folder``.

    Raises ``UserError`` when they are damaged: files that are not of one bundle at once, a damaged row when it is read.
    """

    def __init__(self, folder: Path) -> None:
        self._strings = StoredStrings(folder / TEXTS)
        if len(self._strings) % _COLUMNS:
            raise damaged(self._strings.path, f"{len(self._strings)} texts, not {_COLUMNS} of each document")

    def __len__(self) -> int:
        return len(self._strings) // _COLUMNS

    def __getitem__(self, row: int) -> Document:
        name, title, text, metadata = self._strings.read(_COLUMNS * row, _COLUMNS)
        try:
            return unchecked_document(name, text, title, {} if metadata == "{}" else json.loads(metadata))
        except (ValueError, RecursionError) as error:
            raise damaged(self._strings.path, error) from error

    def id_of(self, row: int) -> str:
        """The id of the document in ``row``, without reading the rest."""
        return self._strings.read(_COLUMNS * row, 1)[0]

    def content_of(self, row: int) -> str:
        """The content (title and text) of the document in ``row``, without parsing its metadata."""
        return content_of(*self._strings.read(_COLUMNS * row + 1, 2))
