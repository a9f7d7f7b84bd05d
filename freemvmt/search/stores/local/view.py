"""One state of a bundle's documents: those of the first indexing (the base), and those added and deleted since.

The number of a base document is its position. The number of an added document is the size of the base plus its position
among the added documents. Passages are numbered in the same way: the number of a passage of the base is its row.
"""

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freemvmt.data.documents import Document, unchecked_document
from freemvmt.data.passages import Passage
from freemvmt.search.index.dense import VectorIndex
from freemvmt.search.index.lexical import LexicalHits, LexicalSnapshot, ranking_of
from freemvmt.search.index.ranking import Ranking, Vectors, evenly_spaced
from freemvmt.search.stores import filters as fields
from freemvmt.search.stores.base import Selection
from freemvmt.search.stores.columns import Columns
from freemvmt.search.stores.filters import FieldKind, Filter, kinds_of
from freemvmt.search.stores.rows import Rows

_WORTH_CLEARING = 256  # added passages; with fewer, the deleted ones among them stay in memory
_NAMED = 1000  # matching documents; up to here the lexical search gets a list of their rows


@dataclass(frozen=True, eq=False)
class MaskSelection(Selection):
    """The passages of documents that meet a filter: those whose number is true in ``mask``.

    Each of them has one facet of each list in ``facets``. ``exact`` says that no other passage has.
    """

    mask: NDArray[np.bool_]
    facets: list[list[str]]
    exact: bool


@dataclass(frozen=True, eq=False)
class IndexedDocuments:
    """The documents of the first indexing: ``index`` has a vector for each row, ``columns`` a value a document."""

    index: VectorIndex
    rows: Rows
    columns: Columns


@dataclass(frozen=True, eq=False)
class AddedDocuments:
    """Documents added since the first indexing. Deleted ones are removed when they are more than half.

    ``rows``, ``owners``, ``passages`` and ``vectors`` have an element for each passage, in the order of the rows:
    ``owners`` are positions in ``documents``.
    """

    rows: NDArray[np.int64]
    owners: NDArray[np.int64]
    passages: list[Passage | None]
    vectors: Vectors
    documents: list[Document]
    kinds: dict[str, FieldKind]

    @classmethod
    def none(cls, dim: int, kinds: Mapping[str, FieldKind]) -> "AddedDocuments":
        """No document."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), [], np.empty((0, dim), np.float32), [], dict(kinds))

    def with_new(self, new: Sequence["StoredRow"], kinds: dict[str, FieldKind]) -> "AddedDocuments":
        """These and the documents of ``new``, in order; a row without a document belongs to the document before."""
        documents, owners = list(self.documents), list[int]()
        for row in new:
            if row.document is not None:
                documents.append(row.document)
            owners.append(len(documents) - 1)
        return AddedDocuments(
            np.concatenate([self.rows, np.array([row.row for row in new], np.int64)]),
            np.concatenate([self.owners, np.array(owners, np.int64)]),
            self.passages + [row.passage for row in new],
            np.concatenate([self.vectors, *(row.vector[None] for row in new)]),
            documents,
            kinds,
        )

    def only(self, keep: NDArray[np.bool_]) -> "AddedDocuments":
        """The documents of the passages where ``keep`` is true, which is so for all passages of a document or none."""
        kept, owners = np.unique(self.owners[keep], return_inverse=True)
        passages = [passage for passage, is_kept in zip(self.passages, keep.tolist(), strict=True) if is_kept]
        documents = [self.documents[owner] for owner in kept.tolist()]
        return AddedDocuments(self.rows[keep], owners, passages, self.vectors[keep], documents, self.kinds)

    @functools.cached_property
    def is_cut(self) -> bool:
        """Whether a document is cut into passages."""
        return any(passage is not None for passage in self.passages)

    @property
    def firsts(self) -> NDArray[np.int64]:
        """The position of the first passage of each document."""
        return np.searchsorted(self.owners, np.arange(len(self.documents)))

    @functools.cached_property
    def columns(self) -> Columns:
        """The metadata of these documents."""
        return Columns.of([document.metadata for document in self.documents], self.kinds)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class StoredRow:
    """What the index of words stores in the row of an added passage; ``document`` is None in all but the first of a
    document."""

    row: int
    document: Document | None
    passage: Passage | None
    vector: Vectors


class LocalView:
    """The ``View`` of a ``LocalStore``: ``first`` makes the first view, ``after`` the next."""

    def __init__(
        self,
        base: IndexedDocuments,
        snapshot: LexicalSnapshot,
        added: AddedDocuments,
        alive: NDArray[np.bool_],
        next_row: int,
    ) -> None:
        self._base, self._snapshot, self._added = base, snapshot, added
        self._alive = alive  # (base and added passages,)
        self._next_row = next_row  # the passages in lower rows have already been loaded
        self._size, self._documents = len(base.rows), len(base.rows.texts)  # of the base
        self.is_cut = base.rows.is_cut or added.is_cut
        self._deleted_in_base = self._size - int(alive[: self._size].sum())

    @classmethod
    def first(cls, base: IndexedDocuments, snapshot: LexicalSnapshot, kinds: Mapping[str, FieldKind]) -> "LocalView":
        """The state of ``snapshot``; ``kinds`` are those of the fields of all documents ever added."""
        size, empty = len(base.rows), AddedDocuments.none(base.index.dim, base.columns.kinds)
        return cls(base, snapshot, empty, np.ones(size, np.bool_), size).after(snapshot, kinds)

    def after(
        self, snapshot: LexicalSnapshot, kinds: Mapping[str, FieldKind], deleted: Sequence[int] = ()
    ) -> "LocalView":
        """The state of ``snapshot``; ``deleted`` are numbers of this view, of documents deleted meanwhile."""
        new = [row_of(row, payload) for row, payload in snapshot.payloads(self._next_row)]
        added = self._added
        kinds = {**added.kinds, **kinds}
        if new or kinds != added.kinds:
            for document in (row.document for row in new if row.document is not None):
                kinds |= kinds_of(document.metadata, kinds, f"document {document.id!r}")
            added = added.with_new(new, kinds)
        alive = np.concatenate([self._alive, np.ones(len(new), np.bool_)])
        alive[[passage for number in deleted for passage in self.passages_of(number)]] = False
        if int(alive.sum()) != len(snapshot):  # another process has deleted documents too
            alive = np.isin(np.concatenate([np.arange(self._size), added.rows]), snapshot.rows())
        next_row = max(self._next_row, *(row.row + 1 for row in new), 0)
        added_alive = alive[self._size :]
        if len(added) >= _WORTH_CLEARING and 2 * int(added_alive.sum()) < len(added):
            added = added.only(added_alive)
            alive = np.concatenate([alive[: self._size], np.ones(len(added), np.bool_)])
        return LocalView(self._base, snapshot, added, alive, next_row)

    def __len__(self) -> int:
        return int(self._alive_documents.sum()) if self.is_cut else len(self._snapshot)

    @property
    def passage_count(self) -> int:
        """The number of passages."""
        return len(self._snapshot)

    @functools.cached_property
    def _alive_documents(self) -> NDArray[np.bool_]:
        """Whether each document is there, (base and added documents,)."""
        if not self.is_cut:
            return self._alive
        firsts = np.concatenate([self._base.rows.firsts, self._size + self._added.firsts])
        alive: NDArray[np.bool_] = self._alive[firsts]
        return alive

    def owners(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the documents of these passages; -1 for -1."""
        if not self.is_cut:
            return numbers
        owners, added = numbers.copy(), numbers >= self._size
        in_base = (numbers >= 0) & ~added
        owners[in_base] = self._base.rows.owners(numbers[in_base])
        owners[added] = self._documents + self._added.owners[numbers[added] - self._size]
        return owners

    def passages(self, numbers: Sequence[int]) -> list[Passage | None]:
        """The passages with these numbers; None where a whole document is one."""
        size = self._size
        return [
            self._base.rows.passage(number) if number < size else self._added.passages[number - size]
            for number in numbers
        ]

    def passages_of(self, number: int) -> range:
        """The numbers of the passages of the document with this number, in the order of its text."""
        if number < self._documents:
            return self._base.rows.of(number)
        position = number - self._documents
        first, stop = np.searchsorted(self._added.owners, [position, position + 1]).tolist()
        return range(self._size + first, self._size + stop)

    @property
    def kinds(self) -> dict[str, FieldKind]:
        """The kind of each metadata field that can be filtered on."""
        return self._added.kinds

    def among(self, conditions: Filter) -> MaskSelection:
        """The documents that meet ``conditions``."""
        fields.check(conditions, self.kinds)
        masks = [self._base.columns.mask(conditions), self._added.columns.mask(conditions)]
        if self.is_cut:
            masks = [masks[0][self._base.rows.owners(np.arange(self._size))], masks[1][self._added.owners]]
        facets = fields.facet_groups(conditions)
        return MaskSelection(np.concatenate(masks) & self._alive, facets, exact=len(facets) == len(conditions))

    def counts(self, field: str) -> dict[str, int]:
        """The number of documents with each value of a string field; a value has its most frequent spelling."""
        alive, size = self._alive_documents, self._documents
        spellings = Counter(self._base.columns.counts(field, alive[:size]))
        spellings.update(self._added.columns.counts(field, alive[size:]))
        return fields.merge_spellings(spellings)

    def numbers(self) -> list[int]:
        """The numbers of all documents, in order."""
        numbers: list[int] = np.flatnonzero(self._alive_documents).tolist()
        return numbers

    def documents(self, numbers: Sequence[int]) -> list[Document]:
        """The documents with these numbers."""
        size, texts = self._documents, self._base.rows.texts
        return [texts[number] if number < size else self._added.documents[number - size] for number in numbers]

    def sample(self, most: int) -> list[Document]:
        """Documents, evenly spaced."""
        numbers = np.flatnonzero(self._alive_documents)
        return self.documents(numbers[evenly_spaced(len(numbers), most)].tolist())

    def ids(self, numbers: Sequence[int]) -> list[str]:
        """The ids of the documents with these numbers."""
        size, texts = self._documents, self._base.rows.texts
        return [texts.id_of(number) if number < size else self._added.documents[number - size].id for number in numbers]

    def number_of(self, name: str) -> int | None:
        """The number of the document with the id ``name``, or None."""
        row = self._snapshot.row_of(name)
        return None if row is None else int(self.owners(self._numbers(np.array([row])))[0])

    def numbers_of(self, names: Sequence[str]) -> list[int | None]:
        """The numbers of the documents with these ids; None where there is none."""
        return [self.number_of(name) for name in names]

    def vectors(self, numbers: Sequence[int]) -> Vectors:
        """The vectors of the passages with these numbers, (numbers, dim), as they are stored."""
        size = self._size
        rows = [
            self._base.index.vector(number) if number < size else self._added.vectors[number - size]
            for number in numbers
        ]
        return np.stack(rows) if rows else np.empty((0, self._base.index.dim), np.float32)

    def _numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(rows < self._size, rows, self._size + np.searchsorted(self._added.rows, rows))

    def dense(self, queries: Vectors, k: int, selection: Selection | None) -> Ranking:
        """The nearest passages; the search is exact when there is a ``selection``."""
        assert selection is None or isinstance(selection, MaskSelection)
        mask = self._alive if selection is None else selection.mask
        k = min(k, len(self._snapshot) if selection is None else int(mask.sum()))
        if selection is None:
            base = self._nearest_in_base(queries, k)
        else:
            base = self._base.index.search(queries, k, mask[: self._size])
        added = np.flatnonzero(mask[self._size :])
        if not len(added) and base.documents.shape[1] == k and (base.documents >= 0).all():
            return base
        scores = queries @ self._added.vectors[added].T
        numbers = np.broadcast_to(added + self._size, scores.shape)
        return _best(np.hstack([base.documents, numbers]), np.hstack([base.scores, scores]), k)

    def _nearest_in_base(self, queries: Vectors, k: int) -> Ranking:
        index, deleted = self._base.index, self._deleted_in_base
        if not deleted:
            return index.search(queries, k)
        alive = self._alive[: self._size]
        if index.kind == "exact":
            return index.search(queries, k, alive)
        limit = k + min(k, deleted)
        while True:  # deleted passages are among the hits: ask for more until enough others are left
            ranking = index.search(queries, limit)
            valid = (ranking.documents >= 0) & alive[ranking.documents]
            if limit >= self._size or valid.sum(axis=1).min(initial=k) >= min(k, self._size - deleted):
                return Ranking(np.where(valid, ranking.documents, -1), ranking.scores)
            limit = min(4 * limit, self._size)

    def lexical(self, queries: Sequence[str], k: int, selection: Selection | None) -> Ranking:
        """The best passages by BM25."""
        assert selection is None or isinstance(selection, MaskSelection)
        k = min(k, len(self._snapshot) if selection is None else int(selection.mask.sum()))
        return ranking_of([self._lexical_hits(query, k, selection) for query in queries], k)

    def _lexical_hits(self, query: str, k: int, selection: MaskSelection | None) -> LexicalHits:
        """The hits of one query, with the numbers of passages instead of rows."""
        if selection is None or selection.exact:
            hits = self._snapshot.rank(query, k, facets=() if selection is None else selection.facets)
            return LexicalHits(self._numbers(hits.rows), hits.scores)
        count = int(selection.mask.sum())
        if count <= _NAMED:
            rows = np.concatenate([np.arange(self._size), self._added.rows])[selection.mask]
            hits = self._snapshot.rank(query, k, rows)
            return LexicalHits(self._numbers(hits.rows), hits.scores)
        limit = k + k * len(self._snapshot) // count
        while True:  # some hits do not match: ask for more until enough match or there are no more
            hits = self._snapshot.rank(query, limit, facets=selection.facets)
            numbers = self._numbers(hits.rows)
            match = selection.mask[numbers]
            if match.sum() >= k or len(numbers) < limit:
                return LexicalHits(numbers[match][:k], hits.scores[match][:k])
            limit *= 4


def _best(numbers: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> Ranking:
    """The ``k`` best of each row. Missing hits (number -1) come last and get the lowest score of the row."""
    values = np.where(numbers >= 0, scores, -np.inf)
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    numbers, values = np.take_along_axis(numbers, order, 1), np.take_along_axis(values, order, 1)
    lowest = np.where(numbers >= 0, values, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    return Ranking(numbers, np.where(numbers >= 0, values, np.where(np.isfinite(lowest), lowest, 0)).astype(np.float32))


def payload_of(document: Document | None, passage: Passage | None, vector: Vectors) -> bytes:
    """A row as bytes: a line of JSON, then little-endian float32. Only the first row of a document has its text."""
    content: dict[str, Any] = {}
    if document is not None:
        content = {"id": document.id, "text": document.text, "title": document.title, "metadata": document.metadata}
    if passage is not None:
        content["passage"] = asdict(passage)
    return json.dumps(content).encode() + b"\n" + vector.astype("<f4").tobytes()


def row_of(row: int, payload: bytes) -> StoredRow:
    """The inverse of ``payload_of``."""
    line, _, numbers = payload.partition(b"\n")
    content = json.loads(line)
    passage = content.pop("passage", None)
    return StoredRow(
        row,
        unchecked_document(**content) if content else None,
        None if passage is None else Passage(**passage),
        np.frombuffer(numbers, "<f4"),
    )
