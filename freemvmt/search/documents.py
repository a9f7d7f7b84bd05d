"""What is searched: documents with an id, a text, and perhaps a title and metadata.

A tower and BM25 read a document's ``content``, its title and text as one.
"""

import json
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from freemvmt.errors import UserError

LONGEST_ID = 512  # bytes of UTF-8
LARGEST_METADATA = 65_536  # bytes of JSON

Metadata = dict[str, Any]  # of JSON values; text, numbers, booleans and lists of these can be filtered on


@dataclass(frozen=True)
class Document:
    """One thing that can be found. ``UserError`` unless the id is 1 to 512 bytes and all of it is storable text."""

    id: str
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("id", "text", "title"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise UserError(f'"{name}" holds {type(value).__name__}, not text; give text')
            if not is_storable(value):
                raise UserError(f'"{name}" holds half of a surrogate pair, which is no text; mend the encoding')
        if not self.id or len(self.id.encode()) > LONGEST_ID:
            raise UserError(f"an id has 1 to {LONGEST_ID} bytes, not {len(self.id.encode())}; give another id")
        _check_metadata(self.metadata)

    @property
    def content(self) -> str:
        """What is encoded and indexed: title and text."""
        return content_of(self.title, self.text)


def content_of(title: str, text: str) -> str:
    """What is encoded and indexed of a document."""
    return f"{title} {text}" if title else text


def stored_document(id: str, text: str, title: str, metadata: Metadata) -> Document:
    """A document from where only sound ones are stored: nothing is checked again."""
    document = object.__new__(Document)
    for name, value in (("id", id), ("text", text), ("title", title), ("metadata", metadata)):
        object.__setattr__(document, name, value)
    return document


def is_storable(text: str) -> bool:
    """Whether ``text`` is text: half of a surrogate pair is not, and no UTF-8 holds it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(key, str) and key for key in metadata):
        raise UserError('"metadata" is no object with names; give {"name": value}')
    try:
        stored = json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f'"metadata" cannot be stored as JSON ({error}); give plain JSON values') from error
    if len(stored) > LARGEST_METADATA:
        raise UserError(f'"metadata" has {len(stored):,} bytes; give {LARGEST_METADATA:,} at most')


def distinct(documents: Iterable[Document]) -> list[Document]:
    """The documents, of those with one id only the last."""
    return list({document.id: document for document in documents}.values())


class Ids:
    """Finds an id that stands twice among millions: eight bytes of memory for each."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def __len__(self) -> int:
        return len(self._hashes)

    def see(self, name: str) -> None:
        """Take note of the next id."""
        self._hashes.append(hash(name))

    def check(self, again: Iterable[str], where: str) -> None:
        """Raise ``UserError``, beginning with ``where``, if an id stands twice; ``again`` are the ids once more."""
        hashes = np.sort(np.frombuffer(self._hashes, np.int64))
        if not (twice := set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())):
            return
        seen: set[str] = set()
        for name in again:
            if hash(name) in twice:
                if name in seen:
                    raise UserError(f"{where}: the id {name!r} stands twice; give each document its own")
                seen.add(name)
