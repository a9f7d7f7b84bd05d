"""The interface of a store: it holds documents, and ranks them by vectors and by words."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from freemvmt.data.documents import Document
from freemvmt.data.passages import Passage
from freemvmt.errors import UserError
from freemvmt.search.index.ranking import Ranking, Vectors
from freemvmt.search.stores.filters import FieldKind, Filter

Cuts = Sequence[Sequence[Passage]]


class BundleReplaced(UserError):  # noqa: N818 - an event, not a fault
    """The bundle that was to be changed has been replaced by another."""


class Selection:
    """The documents that meet a filter; only the view that made it can read it."""


class View(Protocol):
    """One state of a store, which later changes do not affect. Numbers are valid only in this view.

    A document has a number, and each of its passages has one: ``dense`` and ``lexical`` rank passages. A document that
    is not cut is one passage; where none is cut (``is_cut`` is false) its two numbers are equal.
    """

    def __len__(self) -> int:
        """The number of documents."""

    @property
    def kinds(self) -> dict[str, FieldKind]:
        """The kind of each metadata field that can be filtered on."""

    @property
    def is_cut(self) -> bool:
        """Whether a document is cut into passages."""

    @property
    def passage_count(self) -> int:
        """The number of passages."""

    def owners(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the documents of these passages; -1 for -1."""

    def passages(self, numbers: Sequence[int]) -> list[Passage | None]:
        """The passages with these numbers; None where a whole document is one."""

    def passages_of(self, number: int) -> range:
        """The numbers of the passages of the document with this number, in the order of its text."""

    def among(self, conditions: Filter) -> Selection:
        """The documents that meet ``conditions``; ``UserError`` unless they are a filter on ``kinds``."""

    def dense(self, queries: Vectors, k: int, selection: Selection | None) -> Ranking:
        """The ``k`` passages with the vectors nearest to each of ``queries`` (n, dim), of ``selection`` or of all."""

    def lexical(self, queries: Sequence[str], k: int, selection: Selection | None) -> Ranking:
        """The ``k`` best passages by BM25, of ``selection`` or of all; a hit shares a word with the query."""

    def documents(self, numbers: Sequence[int]) -> list[Document]:
        """The documents with these numbers."""

    def sample(self, most: int) -> list[Document]:
        """At most ``most`` of the documents, from all over the collection where that is cheap."""

    def ids(self, numbers: Sequence[int]) -> list[str]:
        """The ids of the documents with these numbers."""

    def numbers_of(self, names: Sequence[str]) -> list[int | None]:
        """The numbers of the documents with these ids; None where there is none."""

    def vectors(self, numbers: Sequence[int]) -> Vectors:
        """The vectors of the passages with these numbers, (numbers, dim), as they are stored."""

    def counts(self, field: str) -> dict[str, int]:
        """The number of documents with each value of a string field; a value has its most frequent spelling."""


class Store(Protocol):
    """Documents that can be searched through views, and changed if the store is writable."""

    @property
    def writable(self) -> bool:
        """Whether documents can be added and deleted."""

    @property
    def replaced(self) -> bool:
        """Whether another bundle has replaced this one on disk; this store then answers as it did before."""

    def refresh(self) -> bool:
        """Load the changes of other processes; True when there were any."""

    def view(self) -> View:
        """The current state."""

    def add(self, documents: Sequence[Document], vectors: Vectors, cuts: Cuts = (), deleted: Sequence[str] = ()) -> int:
        """Add documents, each replacing the one with its id; return how many were replaced. Delete ``deleted``.

        ``cuts`` are the passages of each document, none of one that is whole; where it is empty, all are whole.
        ``vectors`` has a row for each passage and each whole document, in order. When it returns, the change is on
        disk. When it raises ``UserError``, nothing has changed.
        """

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Delete documents for good; return the ids of those that existed."""

    def close(self) -> None:
        """Close files and connections."""
