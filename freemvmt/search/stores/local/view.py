"""One state of a bundle's documents: the base, what was added to it, and which of both are still there.

A document's number is its row in the base, or the size of the base and its place among those that were added.
"""

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from freemvmt.data.documents import Document, stored_document
from freemvmt.search.index.dense import VectorIndex
from freemvmt.search.index.lexical import Found, Snapshot, ranking_of
from freemvmt.search.index.ranking import Ranking, Vectors
from freemvmt.search.stores import filters as fields
from freemvmt.search.stores.base import Among
from freemvmt.search.stores.columns import Columns
from freemvmt.search.stores.filters import Filter, Kind, kinds_of
from freemvmt.search.stores.texts import Texts

_WORTH_CLEARING = 256  # added documents from which the deleted ones among them are let go of
_NAMED = 1000  # matching documents up to which a filter names them to the search for words


@dataclass(frozen=True, eq=False)
class Kept(Among):
    """The documents that a filter keeps: ``mask`` by number.

    ``facets``: of each list every one of them has a facet; ``whole``: and every document that has is one of them.
    """

    mask: NDArray[np.bool_]
    facets: list[list[str]]
    whole: bool


@dataclass(frozen=True, eq=False)
class Base:
    """What the first indexing wrote, row by row."""

    index: VectorIndex
    texts: Texts
    columns: Columns


@dataclass(frozen=True, eq=False)
class Added:
    """Documents that were added to the base, by row. Those deleted again stay until they are half of all."""

    rows: NDArray[np.int64]
    documents: list[Document]
    vectors: Vectors
    kinds: dict[str, Kind]

    @functools.cached_property
    def columns(self) -> Columns:
        """Their metadata."""
        return Columns.of([document.metadata for document in self.documents], self.kinds)

    def __len__(self) -> int:
        return len(self.documents)


class LiveView:
    """See ``View``. ``first`` is what is on disk, ``after`` the state that follows this one."""

    def __init__(self, base: Base, snapshot: Snapshot, added: Added, alive: NDArray[np.bool_], next_row: int) -> None:
        self._base, self._snapshot, self._added = base, snapshot, added
        self._alive = alive  # (base and added,)
        self._next_row = next_row  # every document of a lower row has been seen
        self._size = len(base.texts)
        self._dead_in_base = self._size - int(alive[: self._size].sum())

    @classmethod
    def first(cls, base: Base, snapshot: Snapshot, kinds: Mapping[str, Kind]) -> "LiveView":
        """The state that ``snapshot`` holds; ``kinds``: those of fields that any added document has had."""
        size, dim = len(base.texts), base.index.dim
        nothing = Added(np.empty(0, np.int64), [], np.empty((0, dim), np.float32), dict(base.columns.kinds))
        return cls(base, snapshot, nothing, np.ones(size, np.bool_), size).after(snapshot, kinds)

    def after(self, snapshot: Snapshot, kinds: Mapping[str, Kind], gone: Sequence[int] = ()) -> "LiveView":
        """The state that ``snapshot`` holds; ``gone`` are numbers of this view known to be deleted in it."""
        found = [(row, *unpacked(payload)) for row, payload in snapshot.payloads(self._next_row)]
        added = self._added
        kinds = {**added.kinds, **kinds}
        if found or kinds != added.kinds:
            for _, document, _ in found:
                kinds |= kinds_of(document.metadata, kinds, f"document {document.id!r}")
            added = Added(
                np.concatenate([added.rows, np.array([row for row, _, _ in found], np.int64)]),
                added.documents + [document for _, document, _ in found],
                np.concatenate([added.vectors, *(vector[None] for _, _, vector in found)]),
                kinds,
            )
        alive = np.concatenate([self._alive, np.ones(len(found), np.bool_)])
        alive[list(gone)] = False
        if int(alive.sum()) != len(snapshot):  # another process has deleted too
            alive = np.isin(np.concatenate([np.arange(self._size), added.rows]), snapshot.rows())
        next_row = max(self._next_row, *(row + 1 for row, *_ in found), 0)
        kept = alive[self._size :]
        if len(added) >= _WORTH_CLEARING and 2 * int(kept.sum()) < len(added):
            documents = [document for document, keep in zip(added.documents, kept, strict=True) if keep]
            added = Added(added.rows[kept], documents, added.vectors[kept], added.kinds)
            alive = np.concatenate([alive[: self._size], np.ones(len(added), np.bool_)])
        return LiveView(self._base, snapshot, added, alive, next_row)

    def __len__(self) -> int:
        return len(self._snapshot)

    @property
    def kinds(self) -> dict[str, Kind]:
        """Metadata fields that can be filtered on."""
        return self._added.kinds

    def among(self, conditions: Filter) -> Kept:
        """The documents that are there and meet ``conditions``."""
        fields.check(conditions, self.kinds)
        parts = [self._base.columns.mask(conditions), self._added.columns.mask(conditions)]
        facets = fields.facets_wanted(conditions)
        return Kept(np.concatenate(parts) & self._alive, facets, whole=len(facets) == len(conditions))

    def counts(self, field: str) -> dict[str, int]:
        """How often each value of a string field occurs, under its most frequent spelling."""
        found = Counter(self._base.columns.counts(field, self._alive[: self._size]))
        found.update(self._added.columns.counts(field, self._alive[self._size :]))
        return fields.folded(found)

    def numbers(self) -> list[int]:
        """The numbers of all documents, in order."""
        found: list[int] = np.flatnonzero(self._alive).tolist()
        return found

    def documents(self, numbers: Sequence[int]) -> list[Document]:
        """The documents of those numbers."""
        size = self._size
        return [
            self._base.texts[number] if number < size else self._added.documents[number - size] for number in numbers
        ]

    def ids(self, numbers: Sequence[int]) -> list[str]:
        """The ids of the documents of those numbers."""
        size = self._size
        return [
            self._base.texts.id_of(number) if number < size else self._added.documents[number - size].id
            for number in numbers
        ]

    def number_of(self, name: str) -> int | None:
        """The number of the document with that id, or None."""
        row = self._snapshot.row_of(name)
        return None if row is None else int(self._numbers(np.array([row]))[0])

    def known(self, ids: Sequence[str]) -> int:
        """How many of ``ids`` are those of a document."""
        return sum(self.number_of(id) is not None for id in ids)

    def vectors(self, numbers: Sequence[int]) -> Vectors:
        """(numbers, dim), as they are stored."""
        size = self._size
        rows = [
            self._base.index.vector(number) if number < size else self._added.vectors[number - size]
            for number in numbers
        ]
        return np.stack(rows) if rows else np.empty((0, self._base.index.dim), np.float32)

    def _numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(rows < self._size, rows, self._size + np.searchsorted(self._added.rows, rows))

    def dense(self, queries: Vectors, k: int, among: Among | None) -> Ranking:
        """The nearest documents; exactly those, where ``among`` keeps only some."""
        assert among is None or isinstance(among, Kept)
        kept = self._alive if among is None else among.mask
        k = min(k, int(kept.sum()))
        if among is None:
            base = self._nearest_in_base(queries, k)
        else:
            base = self._base.index.search(queries, k, kept[: self._size])
        added = np.flatnonzero(kept[self._size :])
        if not len(added) and base.documents.shape[1] == k and (base.documents >= 0).all():
            return base
        scores = queries @ self._added.vectors[added].T
        numbers = np.broadcast_to(added + self._size, scores.shape)
        return _best(np.hstack([base.documents, numbers]), np.hstack([base.scores, scores]), k)

    def _nearest_in_base(self, queries: Vectors, k: int) -> Ranking:
        index, dead = self._base.index, self._dead_in_base
        if not dead:
            return index.search(queries, k)
        alive = self._alive[: self._size]
        if index.kind == "exact":
            return index.search(queries, k, alive)
        wanted = k + min(k, dead)
        while True:  # what was deleted takes up places: ask for more until enough are left
            found = index.search(queries, wanted)
            there = (found.documents >= 0) & alive[found.documents]
            if wanted >= self._size or there.sum(axis=1).min(initial=k) >= min(k, self._size - dead):
                return Ranking(np.where(there, found.documents, -1), found.scores)
            wanted = min(4 * wanted, self._size)

    def lexical(self, queries: Sequence[str], k: int, among: Among | None) -> Ranking:
        """The best documents by their words."""
        assert among is None or isinstance(among, Kept)
        k = min(k, len(self) if among is None else int(among.mask.sum()))
        return ranking_of([self._matching(query, k, among) for query in queries], k)

    def _matching(self, query: str, k: int, among: Kept | None) -> Found:
        """Numbers in the place of rows."""
        if among is None or among.whole:
            found = self._snapshot.rank(query, k, facets=() if among is None else among.facets)
            return Found(self._numbers(found.rows), found.scores)
        count = int(among.mask.sum())
        if count <= _NAMED:
            rows = np.concatenate([np.arange(self._size), self._added.rows])[among.mask]
            found = self._snapshot.rank(query, k, rows)
            return Found(self._numbers(found.rows), found.scores)
        wanted = k + k * len(self) // count
        while True:  # what does not match takes up places: ask for more until enough do, or all were seen
            found = self._snapshot.rank(query, wanted, facets=among.facets)
            numbers = self._numbers(found.rows)
            match = among.mask[numbers]
            if match.sum() >= k or len(numbers) < wanted:
                return Found(numbers[match][:k], found.scores[match][:k])
            wanted *= 4


def _best(numbers: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> Ranking:
    """The ``k`` best of each row; number -1 is no document, and comes last with the score of the last that is one."""
    worth = np.where(numbers >= 0, scores, -np.inf)
    order = np.argsort(-worth, axis=1, kind="stable")[:, :k]
    numbers, worth = np.take_along_axis(numbers, order, 1), np.take_along_axis(worth, order, 1)
    lowest = np.where(numbers >= 0, worth, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    return Ranking(numbers, np.where(numbers >= 0, worth, np.where(np.isfinite(lowest), lowest, 0)).astype(np.float32))


def payload_of(document: Document, vector: Vectors) -> bytes:
    """A document and its vector as bytes: a line of JSON, then float32, little-endian."""
    plain = {"id": document.id, "text": document.text, "title": document.title, "metadata": document.metadata}
    return json.dumps(plain).encode() + b"\n" + vector.astype("<f4").tobytes()


def unpacked(payload: bytes) -> tuple[Document, Vectors]:
    """What ``payload_of`` made."""
    line, _, numbers = payload.partition(b"\n")
    return stored_document(**json.loads(line)), np.frombuffer(numbers, "<f4")
