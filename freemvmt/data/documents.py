"""A document to index and search: an id, a text, and optionally a title and metadata.

The document tower and BM25 read its ``content``: title and text joined.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from freemvmt.data.values import (
    MAX_ID_BYTES,
    FirstPlaces,
    Metadata,
    check_document,
    content_of,
    first_duplicate,
)

__all__ = [
    "MAX_ID_BYTES",
    "NO_OUTLINE",
    "Document",
    "DuplicateFinder",
    "Heading",
    "Metadata",
    "Outline",
    "check_distinct",
    "content_of",
    "unchecked_document",
]


@dataclass(frozen=True)
class Heading:
    """A heading of a text: ``level`` 1 is the outermost. Its section begins at the character ``start``, with itself."""

    start: int
    level: int
    title: str


@dataclass(frozen=True)
class Outline:
    """Where a text may be cut: at its headings, in order. ``pages`` are the first characters of its pages, if any."""

    headings: tuple[Heading, ...] = ()
    pages: tuple[int, ...] = ()


NO_OUTLINE = Outline()


@dataclass(frozen=True)
class Document:
    """A document of an index. Raises ``UserError`` as ``check_document`` does.

    ``outline`` is not stored: it says where ``text`` is cut, if it is longer than the document tower reads.
    """

    id: str
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict)
    outline: Outline = field(default=NO_OUTLINE, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_document(self.id, self.title, self.text, self.metadata)

    @property
    def content(self) -> str:
        """Title and text joined, which is encoded and indexed."""
        return content_of(self.title, self.text)


def unchecked_document(id: str, text: str, title: str, metadata: Metadata, outline: Outline = NO_OUTLINE) -> Document:
    """A document that was checked before it was stored. It is not checked again."""
    document = object.__new__(Document)
    fields = (("id", id), ("text", text), ("title", title), ("metadata", metadata), ("outline", outline))
    for name, value in fields:
        object.__setattr__(document, name, value)
    return document


def check_distinct(documents: Iterable[Document]) -> list[Document]:
    """The documents as a list. Raises ``UserError`` if two have the same id, ``TypeError`` for anything else."""
    document_list = list(documents)
    kinds = {type(item).__name__ for item in document_list if not isinstance(item, Document)}
    if kinds:
        raise TypeError(f"documents must be a list of Document, not of {min(kinds)}; give [Document(id, text)]")
    places = FirstPlaces("document")
    for number, document in enumerate(document_list):
        places.see(document.id, f"documents[{number}]")
    return document_list


class DuplicateFinder:
    """Finds a duplicate among millions of ids, with eight bytes of memory for each."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def __len__(self) -> int:
        return len(self._hashes)

    def see(self, id: str) -> None:
        """Add an id."""
        self._hashes.append(hash(id))

    def repeat(self, ids: Iterable[str]) -> str | None:
        """An id that was added twice, or None. ``ids`` are all ids in a second pass."""
        hashes = np.sort(np.frombuffer(self._hashes, np.int64))
        if not (duplicates := set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())):
            return None
        return first_duplicate(id for id in ids if hash(id) in duplicates)
