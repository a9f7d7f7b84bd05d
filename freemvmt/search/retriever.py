"""Search by meaning (dense), by words (bm25) or by both (hybrid), over a bundle or over documents in memory.

retriever = Retriever.load("bundles/docs")
for hit in retriever.search("what is a tower", k=3, filter={"source": "debian"}):
    print(hit.score, hit.title)
print(retriever.explain("what is a tower", hit.id))
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from freemvmt.config import RERANK_DEPTH, Lexical, Method
from freemvmt.data.documents import Document, check_distinct
from freemvmt.data.passages import Splitter
from freemvmt.data.values import FirstPlaces, content_of, id_of, ids_of, texts_of
from freemvmt.errors import NotFound, UserError
from freemvmt.runtime.console import count_of
from freemvmt.search.encoder import Encoder, TensorOrArray, to_numpy
from freemvmt.search.explain import Explanation, explain
from freemvmt.search.hits import AddedCounts, Hit, Place, hits_of
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.methods import Search, check_k, neighbours, rank_by
from freemvmt.search.new_documents import encode_new
from freemvmt.search.stores.base import BundleReplaced, Store, View
from freemvmt.search.stores.filters import FieldKind, Filter, count_ignored
from freemvmt.search.stores.memory import EncodeContents, MemoryStore
from freemvmt.towers.numpy_towers import QueryRows

if TYPE_CHECKING:
    from freemvmt.search.bundle.files import FileCheck
    from freemvmt.search.reranker import Reranker

__all__ = ["AddedCounts", "Hit", "Place", "Retriever"]
logger = logging.getLogger(__name__)

T = TypeVar("T")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?!\d)", re.ASCII)  # how a date of ISO 8601 begins
_TIMEOUT = 30.0  # seconds that a change waits until a replaced bundle is open
_State = tuple[Encoder | None, Store, dict[str, Any]]


class Retriever:
    """Search over ``documents`` in memory; ``ids`` default to their numbers. ``load`` makes a retriever over a bundle.

    Texts and ids (texts or whole numbers) may be lists, arrays, columns or iterators; anything else is a
    ``TypeError``. ``UserError`` unless each document has an id of its own. ``bm25`` selects the BM25 of documents in
    memory: the one that bundles use, or the one of published tables. ``vectors`` (documents, dim), each of length 1,
    are those of ``documents``, if they were made before, or the function that makes those of the texts it gets.
    ``cut``: documents that are longer than the document tower reads are cut into passages and ranked by their best one;
    else, without a model, and with ``vectors`` of documents, they stay whole. ``titles`` are those with which the
    documents begin, if they are known; they stand before each passage. Several threads may search while others add and
    delete: each search sees one state of the documents.
    """

    def __init__(
        self,
        model: Encoder | None,
        documents: Iterable[str],
        ids: Iterable[str | int] | None = None,
        bm25: Lexical = "served",
        vectors: TensorOrArray | EncodeContents | None = None,
        cut: bool = True,
        titles: Sequence[str] = (),
    ) -> None:
        documents = texts_of(documents, "documents")
        document_ids = ids_of(ids) if ids is not None else [str(number) for number in range(len(documents))]
        size = count_of(len(documents), "document")
        if len(document_ids) != len(documents):
            raise UserError(f"{size} but {count_of(len(document_ids), 'id')}; give one id a document")
        given = None if callable(vectors) else vectors
        if given is not None and len(given) != len(documents):
            raise UserError(f"{size} but {count_of(len(given), 'vector')}; give one vector a document")
        _check_distinct(document_ids)
        self.folder: Path | None = None  # of the bundle; None for documents in memory
        self.reranker: Reranker | None = None  # scores the best hits of a search again
        self._graphs: Path | None = None  # folder of ONNX graphs that encode in place of the towers
        self._query_rows: QueryRows = "fp32"
        self._reopening = threading.Lock()
        self._broken: tuple[int, int] | None = None  # identity of a bundle that could not be opened
        splitter = Splitter(model.tokenizer, model.document_tokens) if model and cut and given is None else None
        self._state: _State = (
            model,
            MemoryStore(model, documents, document_ids, bm25, vectors, splitter, titles),
            {"documents": len(documents)},
        )

    @property
    def model(self) -> Encoder | None:
        """The model that encodes; None if only bm25 is possible."""
        return self._state[0]

    @property
    def store(self) -> Store:
        """The store that holds the documents."""
        return self._state[1]

    @property
    def about(self) -> dict[str, Any]:
        """The manifest of the bundle; for documents in memory, their number."""
        return self._state[2]

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        verify: "bool | FileCheck" = True,
        graphs: str | Path | None = None,
        query_rows: QueryRows = "fp32",
    ) -> "Retriever":
        """The retriever over the bundle in ``folder``, whose manifest is ``about``.

        Raises ``UserError`` when it is not a bundle, a file is missing or was changed, or the vectors are not from the
        bundle's model. ``verify=False`` skips the checksums of the files; a ``FileCheck`` is one that was begun before.
        ``graphs`` is a folder with the model's ONNX graphs, which encode in place of the model. ``query_rows`` int8
        holds the query tower's token vectors in a byte a number, a quarter of the memory. PyTorch is loaded when a
        transformer encodes, else never.
        """
        from freemvmt.search.bundle.load import open_bundle

        retriever = cls(None, [])
        retriever.folder = Path(folder)
        retriever._graphs = None if graphs is None else Path(graphs)
        retriever._query_rows = query_rows
        retriever._state = open_bundle(Path(folder), verify=verify, graphs=retriever._graphs, query_rows=query_rows)
        return retriever

    def _snapshot(self) -> tuple[Encoder | None, View]:
        """The model and the current documents; a bundle that was replaced on disk is reopened first."""
        if self.store.replaced and self._reopening.acquire(blocking=False):
            try:
                self._reopen()
            finally:
                self._reopening.release()
        model, store, _ = self._state
        return model, store.view()

    def _reopen(self) -> None:
        """Open the bundle that is in the folder now; other threads search the old one in the meantime."""
        from freemvmt.search.bundle.load import open_bundle
        from freemvmt.search.stores.layout import identity_of

        assert self.folder is not None
        identity = None
        try:
            identity = identity_of(self.folder)
            if identity != self._broken:
                self._state = open_bundle(self.folder, graphs=self._graphs, query_rows=self._query_rows)
        except (UserError, OSError) as error:
            with suppress(OSError):
                if identity_of(self.folder) != identity:
                    return  # it was replaced once more: the next search opens that bundle
            self._broken = identity  # do not try again at every search
            logger.warning("%s was replaced by what cannot be opened; the old one serves on: %s", self.folder, error)

    @overload  # a str is an iterable of str, too
    def search(  # type: ignore[overload-overlap]
        self,
        query: str,
        k: int = 10,
        method: Method = "hybrid",
        weight: float | None = ...,
        filter: Filter | None = None,
        passages: bool = False,
        rerank: int | None = None,
    ) -> list[Hit]: ...

    @overload
    def search(
        self,
        query: Iterable[str],
        k: int = 10,
        method: Method = "hybrid",
        weight: float | None = ...,
        filter: Filter | None = None,
        passages: bool = False,
        rerank: int | None = None,
    ) -> list[list[Hit]]: ...

    def search(
        self,
        query: str | Iterable[str],
        k: int = 10,
        method: Method = "hybrid",
        weight: float | None = None,
        filter: Filter | None = None,
        passages: bool = False,
        rerank: int | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """The best ``k`` documents for one query, best first, or for each of several queries; fewer if fewer match.

        ``weight`` is the share of the dense score in a hybrid; None: the model's own. ``filter`` limits the search to
        documents whose metadata match, such as ``{"source": "debian", "year": {"gte": 1990}}``; a list matches if one
        of its members does. The filter is exact with every index. A document that is cut is ranked by its best passage,
        which is the hit's text; with ``passages``, each of its passages can be a hit. ``rerank`` is how many of the
        best hits ``reranker`` scores again; None: 50 if there is a reranker, else 0.
        """
        depth = _rerank_depth(self.reranker, rerank)
        queries = [str(query)] if isinstance(query, str) else texts_of(query, "queries")
        model, view = self._snapshot()
        check_k(k)
        search = Search(None if filter is None else view.among(filter), passages)
        ranking, rankings = rank_by(model, view, queries, max(k, depth), method, weight, search)
        hits = [hits_of(view, ranking, rankings, row) for row in range(len(queries))]
        if self.reranker is not None and depth:
            from freemvmt.search.reranker import rerank_hits

            hits = [rerank_hits(self.reranker, *found, depth)[:k] for found in zip(queries, hits, strict=True)]
        return hits[0] if isinstance(query, str) else hits

    def rank(self, queries: Iterable[str], k: int, method: Method = "hybrid", weight: float | None = None) -> Ranking:
        """As ``search``, but document numbers in place of hits; in memory, they are positions in ``documents``."""
        return self._ranking(queries, k, method, weight)[1]

    def _ranking(self, queries: Iterable[str], k: int, method: Method, weight: float | None) -> tuple[View, Ranking]:
        """The current documents, and their ranking by numbers."""
        model, view = self._snapshot()
        ranking, _ = rank_by(model, view, texts_of(queries, "queries"), k, method, weight)
        return view, Ranking(view.owners(ranking.documents), ranking.scores)

    def check_ids(self, ids: Sequence[str], name: str) -> None:
        """Raise ``UserError`` unless the documents are exactly those of ``ids``; ``name`` is their collection."""
        view = self._snapshot()[1]
        missing = view.numbers_of(ids).count(None)
        if missing or len(view) != len(ids):
            size = count_of(len(view), "document")
            problem = f"{size} indexed, and {missing:,} of the {len(ids):,} of {name} not among them"
            raise UserError(f"{problem}; index that collection to measure on it")

    def scores(
        self, queries: Iterable[str], k: int, method: Method = "hybrid", weight: float | None = None
    ) -> list[dict[str, float]]:
        """For each query, the scores of its best ``k`` documents by id, best first, as in a TREC run."""
        view, ranking = self._ranking(queries, k, method, weight)
        return [
            dict(zip(view.ids(numbers[numbers >= 0].tolist()), scores[numbers >= 0].tolist(), strict=True))
            for numbers, scores in zip(ranking.documents, ranking.scores, strict=True)
        ]

    def contents(
        self, query: str, ids: Sequence[str], k: int, method: Method = "hybrid", weight: float | None = None
    ) -> list[str]:
        """What a reranker reads of documents: the title and the best passage, where they are among the best ``k``.

        Of other documents it reads the whole text. Raises ``NotFound``.
        """
        model, view = self._snapshot()
        numbers = [_number_of(view, id) for id in ids]
        ranking = rank_by(model, view, [query], k, method, weight)[0]
        wanted = np.isin(view.owners(ranking.documents), numbers)
        hits = hits_of(view, Ranking(ranking.documents[wanted][None], ranking.scores[wanted][None]), {}, 0)
        found = {hit.id: content_of(hit.title, hit.text) for hit in hits}
        return [found.get(id, document.content) for id, document in zip(ids, view.documents(numbers), strict=True)]

    def similar(self, id: str | int, k: int = 10, filter: Filter | None = None) -> list[Hit]:
        """The ``k`` other documents whose vectors are nearest to that of ``id``, of two that are cut those of their
        nearest passages. Raises ``NotFound``."""
        check_k(k)
        view = self._snapshot()[1]
        number = _number_of(view, id)
        selection = None if filter is None else view.among(filter)
        dense = neighbours(view, number, k, selection)
        return hits_of(view, dense, {"dense": dense}, 0)

    def explain(self, query: str, id: str | int, start: int | None = None) -> Explanation:
        """How much each word adds to the cosine of a document with ``query``: the document's words, or over a
        transformer's documents the query's. Raises ``NotFound``.

        Of a document that is cut, this explains the passage at ``start`` (see ``Hit.place``), or else the nearest one.
        """
        model, view = self._snapshot()
        if model is None:
            raise UserError("an explanation needs a model; give one")
        number = _number_of(view, id)
        document, numbers = view.documents([number])[0], view.passages_of(number)
        best = numbers[0]
        if len(numbers) > 1:
            starts = [passage.start for passage in view.passages(numbers) if passage is not None]
            nearest = int((view.vectors(numbers) @ to_numpy(model.encode_queries([query]))[0]).argmax())
            best = numbers[starts.index(start) if start in starts else nearest]
        if (passage := view.passages([best])[0]) is not None:
            document = passage.alone(document)
        return explain(model, query, document, lambda: view.vectors([best])[0])

    def get(self, id: str | int) -> Document:
        """The document with that id. Raises ``NotFound``."""
        view = self._snapshot()[1]
        return view.documents([_number_of(view, id)])[0]

    def sample(self, most: int) -> list[Document]:
        """At most ``most`` of the documents, to show what there is."""
        return self._snapshot()[1].sample(most)

    def add(self, documents: Iterable[Document], delete: Iterable[str | int] = ()) -> AddedCounts:
        """Add documents; each replaces the document with the same id, if there is one. Delete others.

        In a bundle all of it is one change. A document whose text is as before keeps its vectors.
        On return the documents can be found, and those of a bundle are safe on disk. Raises ``UserError``, and changes
        nothing, when the bundle cannot be written to or a field has another kind.
        """
        unique, deleted = check_distinct(documents), ids_of(delete)

        def insert(model: Encoder | None, store: Store, about: dict[str, Any]) -> AddedCounts:
            from freemvmt.search.bundle.load import tokens_of

            if model is None:
                raise UserError("adding documents needs a model; give one")
            view = store.view()
            cuts, vectors = encode_new(model, view, unique, tokens_of(about))
            gone = len(deleted) - view.numbers_of(deleted).count(None)
            replaced = store.add(unique, vectors, cuts, deleted)
            unseen = count_ignored(document.metadata for document in unique)
            return AddedCounts(len(unique) - replaced, replaced, unseen, gone)

        return self._apply(insert)

    def delete(self, ids: Iterable[str | int]) -> list[str]:
        """Delete documents; return the ids that existed. ``TypeError`` if ``ids`` is no list of ids."""
        document_ids = ids_of(ids)
        return self._apply(lambda _model, store, _about: store.delete(document_ids))

    def _apply(self, change: Callable[[Encoder | None, Store, dict[str, Any]], T]) -> T:
        """Call ``change`` with the model, the store and the manifest; again if the bundle was replaced meanwhile."""
        deadline = time.monotonic() + _TIMEOUT
        while True:
            self._snapshot()
            try:
                return change(*self._state)
            except BundleReplaced:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.02)  # another thread is opening it

    def __len__(self) -> int:
        return len(self._snapshot()[1])

    @property
    def passage_count(self) -> int:
        """The number of passages: a document that is not cut is one."""
        return self._snapshot()[1].passage_count

    @property
    def fields(self) -> dict[str, FieldKind]:
        """The metadata fields that a filter can use, and their kinds."""
        return dict(self._snapshot()[1].kinds)

    def values(self, field: str, most: int = 50) -> list[str]:
        """The most frequent values of a string field, at most ``most``; spellings that compare equal are one value.

        Empty where there are more and none occurs twice, as of paths: no choice among them would help.
        """
        counts = self._snapshot()[1].counts(field)
        if len(counts) > most and max(counts.values()) == 1:
            return []
        return sorted(counts, key=lambda value: (-counts[value], value))[:most]

    def years(self, field: str) -> list[str]:
        """The years of a string field whose values are all dates of ISO 8601, the last one first; else empty."""
        values = self._snapshot()[1].counts(field)
        return sorted({value[:4] for value in values}, reverse=True) if all(map(_DATE.match, values)) else []

    def refresh(self) -> bool:
        """Load the changes of other processes, as every search does; return whether there were any."""
        before = self._state
        changed = self.store.refresh()
        self._snapshot()
        return changed or self._state is not before

    @property
    def writable(self) -> bool:
        """Whether documents can be added and deleted."""
        return self.store.writable

    def close(self) -> None:
        """Close the files."""
        self.store.close()


def _number_of(view: View, id: str | int) -> int:
    try:
        document_id = id if isinstance(id, str) else id_of(id, "id", "")
    except UserError:
        raise UserError(f"the id is {type(id).__name__}, not text or a whole number; give one") from None
    (number,) = view.numbers_of([document_id])
    if number is None:
        raise NotFound(f"there is no document {document_id[:200]!r}; check the id")
    return number


def _rerank_depth(reranker: "Reranker | None", rerank: object) -> int:
    """The number of hits that the reranker reads; ``UserError`` for a wrong one, or when there is no reranker."""
    if rerank is None and reranker is None:
        return 0
    depth = RERANK_DEPTH if rerank is None or rerank is True else rerank
    if not isinstance(depth, Integral) or int(depth) < 0:
        raise UserError(f"rerank is {rerank!r}; give a number of hits, or 0")
    if depth and reranker is None:
        raise UserError("rerank needs a cross-encoder; give the retriever a reranker")
    return int(depth)


def _check_distinct(ids: list[str]) -> None:
    if len(set(ids)) < len(ids):
        places = FirstPlaces("id")
        for number, id in enumerate(ids):
            places.see(id, f"ids[{number}]")
