"""The interface of a store: it holds documents, and ranks them by vectors and by words."""

from collections.abc import Sequence
from typing import Protocol

from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.search.index.ranking import Ranking, Vectors
from freemvmt.search.stores.filters import FieldKind, Filter


class BundleReplaced(UserError):  # noqa: N818 - an event, not a fault
    """The bundle that was to be changed has been replaced by another."""


class Selection:
    """The documents that meet a filter; only the view that made it can read it."""


class View(Protocol):
    """One state of a store, which later changes do not affect. Each document has a number, valid only in this view."""

    def __len__(self) -> int:
        """The number of documents."""
        ...

    @property
    def kinds(self) -> dict[str, FieldKind]:
        """The kind of each metadata field that can be filtered on."""
        ...

    def among(self, conditions: Filter) -> Selection:
        """The documents that meet ``conditions``; ``UserError`` unless they are a filter on ``kinds``."""
        ...

    def dense(self, queries: Vectors, k: int, selection: Selection | None) -> Ranking:
        """The ``k`` documents with the vectors nearest to each of ``queries`` (n, dim), of ``selection`` or of all."""
        ...

    def lexical(self, queries: Sequence[str], k: int, selection: Selection | None) -> Ranking:
        """The ``k`` best documents by BM25, of ``selection`` or of all; a hit shares a word with the query."""
        ...

    def documents(self, numbers: Sequence[int]) -> list[Document]:
        """The documents with these numbers."""
        ...

    def sample(self, most: int) -> list[Document]:
        """At most ``most`` of the documents, from all over the collection where that is cheap."""
        ...

    def ids(self, numbers: Sequence[int]) -> list[str]:
        """The ids of the documents with these numbers."""
        ...

    def number_of(self, name: str) -> int | None:
        """The number of the document with the id ``name``, or None."""
        ...

    def known(self, ids: Sequence[str]) -> int:
        """How many of ``ids`` belong to a document."""
        ...

    def vectors(self, numbers: Sequence[int]) -> Vectors:
        """The vectors of the documents with these numbers, (numbers, dim), as they are stored."""
        ...

    def counts(self, field: str) -> dict[str, int]:
        """The number of documents with each value of a string field; a value has its most frequent spelling."""
        ...


class Store(Protocol):
    """Documents that can be searched through views, and changed if the store is writable."""

    @property
    def writable(self) -> bool:
        """Whether documents can be added and deleted."""
        ...

    @property
    def replaced(self) -> bool:
        """Whether another bundle has replaced this one on disk; this store then answers as it did before."""
        ...

    def refresh(self) -> bool:
        """Load the changes of other processes; True when there were any."""
        ...

    def view(self) -> View:
        """The current state."""
        ...

    def add(self, documents: Sequence[Document], vectors: Vectors) -> int:
        """Add documents, each replacing the one with its id; return how many were replaced.

        When it returns, the change is on disk. When it raises ``UserError``, nothing has changed.
        """
        ...

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Delete documents for good; return the ids of those that existed."""
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...
