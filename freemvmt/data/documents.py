"""What is searched: documents with an id, a text, and perhaps a title and metadata.

A tower and BM25 read a document's ``content``, its title and text as one.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from freemvmt.data.values import LONGEST_ID, Metadata, Places, check_document, content_of, is_storable

__all__ = ["LONGEST_ID", "Document", "Ids", "Metadata", "content_of", "distinct", "is_storable", "stored_document"]


@dataclass(frozen=True)
class Document:
    """One thing that can be found. Raises ``UserError`` as ``check_document``."""

    id: str
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_document(self.id, self.title, self.text, self.metadata)

    @property
    def content(self) -> str:
        """What is encoded and indexed: title and text."""
        return content_of(self.title, self.text)


def stored_document(id: str, text: str, title: str, metadata: Metadata) -> Document:
    """A document from where only sound ones are stored: nothing is checked again."""
    document = object.__new__(Document)
    for name, value in (("id", id), ("text", text), ("title", title), ("metadata", metadata)):
        object.__setattr__(document, name, value)
    return document


def distinct(documents: Iterable[Document]) -> list[Document]:
    """The documents as a list. Raises ``UserError`` for an id that stands twice among them: which one is meant?"""
    listed = list(documents)
    places = Places("document")
    for number, document in enumerate(listed):
        places.see(document.id, f"documents[{number}]")
    return listed


class Ids:
    """Finds an id that stands twice among millions: eight bytes of memory for each."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def __len__(self) -> int:
        return len(self._hashes)

    def see(self, name: str) -> None:
        """Take note of the next id."""
        self._hashes.append(hash(name))

    def repeat(self, again: Iterable[str]) -> str | None:
        """An id that stands twice, if there is one; ``again`` are the ids once more."""
        hashes = np.sort(np.frombuffer(self._hashes, np.int64))
        if not (twice := set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())):
            return None
        seen: set[str] = set()
        for name in again:
            if hash(name) in twice:
                if name in seen:
                    return name
                seen.add(name)
        return None
