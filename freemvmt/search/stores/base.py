"""What every store can do: hold documents, and rank them by vectors and by words."""

from collections.abc import Sequence
from typing import Protocol

from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.search.index.ranking import Ranking, Vectors
from freemvmt.search.stores.filters import Filter, Kind


class Replaced(UserError):  # noqa: N818 - what has happened, and no fault
    """Another bundle has taken the place of the one that was to be changed."""


class Among:
    """The documents that a filter keeps, as the view that made it knows them."""


class View(Protocol):
    """One state of a store, which stays as it is while it is read; documents are known by numbers of this view."""

    def __len__(self) -> int:
        """Documents that can be found."""
        ...

    @property
    def kinds(self) -> dict[str, Kind]:
        """Metadata fields that can be filtered on."""
        ...

    def among(self, conditions: Filter) -> Among:
        """The documents that meet ``conditions``; ``UserError`` when they are no filter on ``kinds``."""
        ...

    def dense(self, queries: Vectors, k: int, among: Among | None) -> Ranking:
        """The ``k`` documents whose vectors are nearest to each of ``queries`` (n, dim), of those in ``among``."""
        ...

    def lexical(self, queries: Sequence[str], k: int, among: Among | None) -> Ranking:
        """The best ``k`` documents of each query by BM25; one that shares no word with it is no hit."""
        ...

    def documents(self, numbers: Sequence[int]) -> list[Document]:
        """The documents of those numbers."""
        ...

    def ids(self, numbers: Sequence[int]) -> list[str]:
        """The ids of the documents of those numbers."""
        ...

    def number_of(self, name: str) -> int | None:
        """The number of the document with that id, or None."""
        ...

    def known(self, ids: Sequence[str]) -> int:
        """How many of ``ids`` are those of a document."""
        ...

    def vectors(self, numbers: Sequence[int]) -> Vectors:
        """(numbers, dim), as they are stored."""
        ...

    def counts(self, field: str) -> dict[str, int]:
        """In how many documents each value of a string field occurs, under its most frequent spelling."""
        ...


class Store(Protocol):
    """Where documents live."""

    @property
    def writable(self) -> bool:
        """Whether documents can be added and deleted."""
        ...

    @property
    def replaced(self) -> bool:
        """Whether another bundle has taken the place of this one, which only answers as it did until then."""
        ...

    def refresh(self) -> bool:
        """Take up what other processes have changed; True when there was something."""
        ...

    def view(self) -> View:
        """What is there now."""
        ...

    def add(self, documents: Sequence[Document], vectors: Vectors) -> int:
        """Put documents in, each in the place of one with its id; return how many were replaced.

        They are there for good when it returns. Raises ``UserError`` and changes nothing when it cannot.
        """
        ...

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Take documents out, for good; return the ids that were there."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...
