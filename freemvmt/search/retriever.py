"""Search by meaning (dense), by words (bm25) or by both (hybrid), over a bundle or over documents in memory.

retriever = Retriever.load("bundles/docs")
for hit in retriever.search("what is a tower", k=3, filter={"source": "debian"}):
    print(hit.score, hit.title)
print(retriever.explain("what is a tower", hit.id))
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from freemvmt.config import HYBRID_WEIGHT, Lexical, Method
from freemvmt.data.documents import Document, distinct
from freemvmt.data.values import id_of, ids_of, texts_of
from freemvmt.errors import NotFound, UserError
from freemvmt.search.encoder import Encoder, plain
from freemvmt.search.explain import Explanation, explain
from freemvmt.search.hits import Added, Hit, hits_of
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.methods import check_k, rank_by
from freemvmt.search.stores.base import Replaced, Store, View
from freemvmt.search.stores.filters import Filter, Kind, count_unseen
from freemvmt.search.stores.memory import MemoryStore

__all__ = ["Added", "Hit", "Retriever"]
logger = logging.getLogger(__name__)

T = TypeVar("T")
_PATIENCE = 30.0  # seconds that a change waits for a bundle that takes this one's place
_Parts = tuple[Encoder | None, Store, dict[str, Any]]


class Retriever:
    """Search over ``documents`` in memory; ``ids`` default to their numbers. ``load`` is the one over a bundle.

    Texts and ids (texts or whole numbers) come in lists, arrays, columns or iterators; else that is a ``TypeError``.
    ``UserError`` unless each document has an id of its own. ``bm25`` is how documents in memory are searched by words:
    as a bundle is, or as in published tables. Several threads may search while others add and delete: each search sees
    one state of the documents.
    """

    def __init__(
        self,
        model: Encoder | None,
        documents: Iterable[str],
        ids: Iterable[str | int] | None = None,
        bm25: Lexical = "served",
    ) -> None:
        documents = texts_of(documents, "documents")
        names = ids_of(ids) if ids is not None else [str(number) for number in range(len(documents))]
        if len(names) != len(documents):
            raise UserError(f"{len(documents)} documents but {len(names)} ids; give one id a document")
        _check_distinct(names)
        self.folder: Path | None = None  # where the bundle is, if there is one
        self._graphs: Path | None = None  # of ONNX, where they encode
        self._reading = threading.Lock()
        self._damaged: tuple[int, int] | None = None
        self._parts: _Parts = (model, MemoryStore(model, documents, names, bm25), {"documents": len(documents)})

    @property
    def model(self) -> Encoder | None:
        """What encodes; None when there are only words to search by."""
        return self._parts[0]

    @property
    def store(self) -> Store:
        """Where the documents are."""
        return self._parts[1]

    @property
    def about(self) -> dict[str, Any]:
        """The manifest of the bundle."""
        return self._parts[2]

    @classmethod
    def load(cls, folder: str | Path, *, verify: bool = True, graphs: str | Path | None = None) -> "Retriever":
        """The retriever over the bundle in ``folder``, whose manifest is ``about``.

        Raises ``UserError`` when it is not a bundle, a file is missing or was changed, or model and vectors do not
        belong together. ``verify=False`` leaves out the sums of the files. ``graphs`` is a folder of the model's ONNX
        graphs, which then encode; PyTorch is not needed.
        """
        from freemvmt.search.bundle.load import open_bundle

        retriever = cls(None, [])
        retriever.folder = Path(folder)
        retriever._graphs = None if graphs is None else Path(graphs)
        retriever._parts = open_bundle(Path(folder), verify=verify, graphs=retriever._graphs)
        return retriever

    def _now(self) -> tuple[Encoder | None, View]:
        """The model, and the documents as they are now; a bundle that took the place of this one is opened."""
        if self.store.replaced and self._reading.acquire(blocking=False):
            try:
                self._reopen()
            finally:
                self._reading.release()
        model, store, _ = self._parts
        return model, store.view()

    def _reopen(self) -> None:
        """Open the bundle that is there now; others search the old one meanwhile."""
        from freemvmt.search.bundle.load import open_bundle
        from freemvmt.search.stores.layout import identity_of

        assert self.folder is not None
        found = None
        try:
            found = identity_of(self.folder)
            if found != self._damaged:
                self._parts = open_bundle(self.folder, graphs=self._graphs)
        except (UserError, OSError) as error:
            with suppress(OSError):
                if identity_of(self.folder) != found:
                    return  # the next one is there already
            self._damaged = found  # not to be tried again at every search
            logger.warning("%s was replaced by what cannot be opened; the old one serves on: %s", self.folder, error)

    @overload  # one text is an iterable of texts too
    def search(  # type: ignore[overload-overlap]
        self, query: str, k: int = 10, method: Method = "hybrid", weight: float = ..., filter: Filter | None = None
    ) -> list[Hit]: ...

    @overload
    def search(
        self,
        query: Iterable[str],
        k: int = 10,
        method: Method = "hybrid",
        weight: float = ...,
        filter: Filter | None = None,
    ) -> list[list[Hit]]: ...

    def search(
        self,
        query: str | Iterable[str],
        k: int = 10,
        method: Method = "hybrid",
        weight: float = HYBRID_WEIGHT,
        filter: Filter | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """The best ``k`` documents for one query, best first, or for each of several; fewer when fewer match.

        ``weight`` is the dense side's share in a hybrid. ``filter`` keeps the documents whose metadata match:
        ``{"source": "debian", "year": {"gte": 1990}}``, of a list one member; it is exact, whatever the index.
        """
        queries = [str(query)] if isinstance(query, str) else texts_of(query, "queries")
        model, view = self._now()
        among = None if filter is None else view.among(filter)
        ranking, parts = rank_by(model, view, queries, k, method, weight, among)
        found = [hits_of(view, ranking, parts, row) for row in range(len(queries))]
        return found[0] if isinstance(query, str) else found

    def rank(self, queries: Iterable[str], k: int, method: Method = "hybrid", weight: float = HYBRID_WEIGHT) -> Ranking:
        """As ``search``, but numbers of documents, for measuring: in memory they count as the documents were given."""
        return rank_by(*self._now(), texts_of(queries, "queries"), k, method, weight, None)[0]

    def check_ids(self, ids: Sequence[str], name: str) -> None:
        """Raise ``UserError`` unless exactly the documents of ``ids`` are here; ``name`` is what they are called."""
        view = self._now()[1]
        missing = len(ids) - view.known(ids)
        if missing or len(view) != len(ids):
            found = f"{len(view):,} documents are indexed, {missing:,} of the {len(ids):,} of {name} are not among them"
            raise UserError(f"{found}; index that collection to measure on it")

    def scores(
        self, queries: Iterable[str], k: int, method: Method = "hybrid", weight: float = HYBRID_WEIGHT
    ) -> list[dict[str, float]]:
        """For each query the scores of its best ``k`` documents by id, best first: what a TREC run holds."""
        model, view = self._now()
        ranking, _ = rank_by(model, view, texts_of(queries, "queries"), k, method, weight, None)
        return [
            dict(zip(view.ids(numbers[numbers >= 0].tolist()), scores[numbers >= 0].tolist(), strict=True))
            for numbers, scores in zip(ranking.documents, ranking.scores, strict=True)
        ]

    def similar(self, id: str | int, k: int = 10, filter: Filter | None = None) -> list[Hit]:
        """The ``k`` documents nearest to a document's own vector, itself left out. Raises ``NotFound``."""
        check_k(k)
        view = self._now()[1]
        number = _number(view, id)
        among = None if filter is None else view.among(filter)
        ranking = view.dense(view.vectors([number]), k + 1, among)
        others = ranking.documents != number
        others &= np.cumsum(others, axis=1) <= k
        dense = Ranking(ranking.documents[others][None], ranking.scores[others][None])
        return hits_of(view, dense, {"dense": dense}, 0)

    def explain(self, query: str, id: str | int) -> Explanation:
        """How much each word of a document adds to its cosine with ``query``. Raises ``NotFound``."""
        model, view = self._now()
        if model is None:
            raise UserError("an explanation needs a model; give one")
        return explain(model, query, view.documents([_number(view, id)])[0])

    def get(self, id: str | int) -> Document:
        """The document of that id. Raises ``NotFound``."""
        view = self._now()[1]
        return view.documents([_number(view, id)])[0]

    def add(self, documents: Iterable[Document]) -> Added:
        """Put documents in, each in the place of one with its id; found at once, and there for good on return.

        Raises ``UserError``, and changes nothing, when the bundle cannot be written to or a field's kind differs.
        """
        kept = distinct(documents)

        def put_in(model: Encoder | None, store: Store) -> Added:
            if model is None:
                raise UserError("adding documents needs a model; give one")
            vectors = plain(model.encode_documents([document.content for document in kept]))
            replaced = store.add(kept, vectors)
            return Added(len(kept) - replaced, replaced, count_unseen(document.metadata for document in kept))

        return self._changed(put_in)

    def delete(self, ids: Iterable[str | int]) -> list[str]:
        """Take documents out, for good; return the ids that were there. ``TypeError`` for what is no list of ids."""
        names = ids_of(ids)
        return self._changed(lambda model, store: store.delete(names))

    def _changed(self, change: Callable[[Encoder | None, Store], T]) -> T:
        """Change what is there now; a bundle that takes its place in that moment is opened, and changed instead."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            self._now()
            try:
                return change(*self._parts[:2])
            except Replaced:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.02)  # another thread is opening it

    def __len__(self) -> int:
        return len(self._now()[1])

    @property
    def fields(self) -> dict[str, Kind]:
        """Metadata fields that can be filtered on, and their kinds."""
        return dict(self._now()[1].kinds)

    def values(self, field: str, most: int = 50) -> list[str]:
        """The values that most documents hold in a string field; spellings that compare equal are one value."""
        counts = self._now()[1].counts(field)
        return sorted(counts, key=lambda value: (-counts[value], value))[:most]

    def refresh(self) -> bool:
        """Take up what other processes have changed, as every search does; True when there was something."""
        before = self._parts
        changed = self.store.refresh()
        self._now()
        return changed or self._parts is not before

    @property
    def writable(self) -> bool:
        """Whether documents can be added and deleted."""
        return self.store.writable

    def close(self) -> None:
        """Let go of the files."""
        self.store.close()


def _number(view: View, id: str | int) -> int:
    try:
        name = id if isinstance(id, str) else id_of(id, "id", "")
    except UserError:
        raise UserError(f"the id is {type(id).__name__}, not text or a whole number; give one") from None
    number = view.number_of(name)
    if number is None:
        raise NotFound(f"there is no document {name[:200]!r}; check the id")
    return number


def _check_distinct(ids: list[str]) -> None:
    if len(set(ids)) == len(ids):
        return
    seen: dict[str, int] = {}
    for number, id in enumerate(ids):
        if (first := seen.setdefault(id, number)) != number:
            raise UserError(f"the id {id[:200]!r} stands twice, at {first} and {number}; give each document its own")
