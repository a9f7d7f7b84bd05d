"""Search by meaning (dense), by words (bm25) or by both (hybrid), over a bundle or over documents in memory.

retriever = Retriever.load("bundles/docs")
for hit in retriever.search("what is a tower", k=3, filter={"source": "debian"}):
    print(hit.score, hit.title)
print(retriever.explain("what is a tower", hit.id))
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from freemvmt.config import HYBRID_WEIGHT, Method
from freemvmt.errors import NotFound, UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search.documents import Document, Metadata, distinct
from freemvmt.search.exact import Ranking
from freemvmt.search.explain import Explanation, explain
from freemvmt.search.fields import Filter, Kind
from freemvmt.search.lexical import DEPTH, fuse
from freemvmt.search.stores.memory import MemoryStore
from freemvmt.search.stores.protocol import Store, Vectors, View


@dataclass(frozen=True)
class Hit:
    """One answer.

    ``score`` is a cosine (dense), a BM25 score, or a fused score between 0 and 1 (hybrid). ``dense`` and ``bm25`` are
    its parts: the cosine, and the BM25 score; None where that side was not asked or did not rank the document.
    """

    id: str
    score: float
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict)
    dense: float | None = None
    bm25: float | None = None


@dataclass(frozen=True)
class Added:
    """How many documents were new, and how many took the place of one with their id."""

    added: int
    replaced: int


class Retriever:
    """Search over ``documents`` in memory; ``ids`` default to their numbers. ``load`` is the one over a bundle.

    Several threads may search while others add and delete: each search sees one state of the documents.
    """

    def __init__(
        self, model: TwoTowersModel | None, documents: Sequence[str], ids: Sequence[str] | None = None
    ) -> None:
        names = ids if ids is not None else [str(number) for number in range(len(documents))]
        if len(names) != len(documents):
            raise UserError(f"{len(documents)} documents but {len(names)} ids; give one id a document")
        self._set(model, MemoryStore(model, documents, names), {"documents": len(documents)})

    def _set(self, model: TwoTowersModel | None, store: Store, about: dict[str, Any]) -> None:
        self.model = model
        self.store = store
        self.about = about

    @classmethod
    def load(cls, folder: str | Path, *, verify: bool = True) -> "Retriever":
        """The retriever over the bundle in ``folder``, whose manifest is ``about``.

        Raises ``UserError`` when it is not a bundle, a file is missing or was changed, or model and vectors do not
        belong together. ``verify=False`` leaves out the sums of the files.
        """
        from freemvmt.search.bundle import open_bundle

        retriever = cls.__new__(cls)
        retriever._set(*open_bundle(Path(folder), verify=verify))
        return retriever

    @overload
    def search(
        self, query: str, k: int = 10, method: Method = "hybrid", weight: float = ..., filter: Filter | None = None
    ) -> list[Hit]: ...

    @overload
    def search(
        self,
        query: list[str],
        k: int = 10,
        method: Method = "hybrid",
        weight: float = ...,
        filter: Filter | None = None,
    ) -> list[list[Hit]]: ...

    def search(
        self,
        query: str | list[str],
        k: int = 10,
        method: Method = "hybrid",
        weight: float = HYBRID_WEIGHT,
        filter: Filter | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """The best ``k`` documents for one query, best first, or for each of several; fewer when fewer match.

        ``weight`` is the dense side's share in a hybrid. ``filter`` keeps the documents whose metadata match:
        ``{"source": "debian", "year": {"gte": 1990}}``; it is exact, whatever the index.
        """
        queries = [query] if isinstance(query, str) else query
        view = self.store.view()
        among = None if filter is None else view.mask(filter)
        ranking, parts = self._rank(view, queries, k, method, weight, among)
        found = [self._hits(view, ranking, parts, row) for row in range(len(queries))]
        return found[0] if isinstance(query, str) else found

    def rank(self, queries: Sequence[str], k: int, method: Method = "hybrid", weight: float = HYBRID_WEIGHT) -> Ranking:
        """As ``search``, but numbers of documents, for measuring: in memory they count as the documents were given."""
        return self._rank(self.store.view(), queries, k, method, weight, None)[0]

    def _rank(
        self, view: View, queries: Sequence[str], k: int, method: Method, weight: float, among: Any
    ) -> tuple[Ranking, dict[str, Ranking]]:
        if k < 1:
            raise UserError(f"k is {k}; ask for 1 document or more")
        if not 0 <= weight <= 1:
            raise UserError(f"the weight is {weight:g}; give the dense side a share between 0 and 1")
        if method == "bm25":
            lexical = view.lexical(queries, k, among)
            return lexical, {"bm25": lexical}
        depth = k if method == "dense" else max(k, DEPTH)
        dense = view.dense(self._encoded(queries), depth, among)
        if method == "dense":
            return dense, {"dense": dense}
        if method != "hybrid":
            raise UserError(f"there is no method {method!r}; give dense, bm25 or hybrid")
        lexical = view.lexical(queries, depth, among)
        return fuse(dense, lexical, weight, k), {"dense": dense, "bm25": lexical}

    def _encoded(self, queries: Sequence[str]) -> Vectors:
        if self.model is None:
            raise UserError("dense and hybrid search need a model; give one, or search with bm25")
        vectors: Vectors = self.model.encode_queries(queries).cpu().numpy()
        return vectors

    def _hits(self, view: View, ranking: Ranking, parts: dict[str, Ranking], row: int) -> list[Hit]:
        kept = ranking.documents[row] >= 0
        numbers = ranking.documents[row][kept].tolist()
        scores = {name: _scores_of(part, row, numbers) for name, part in parts.items()}
        nothing = [None] * len(numbers)
        return [
            Hit(document.id, score, document.text, document.title, document.metadata, dense, bm25)
            for document, score, dense, bm25 in zip(
                view.documents(numbers),
                ranking.scores[row][kept].tolist(),
                scores.get("dense", nothing),
                scores.get("bm25", nothing),
                strict=True,
            )
        ]

    def similar(self, id: str, k: int = 10, filter: Filter | None = None) -> list[Hit]:
        """The ``k`` documents nearest to a document's own vector, itself left out. Raises ``NotFound``."""
        if k < 1:
            raise UserError(f"k is {k}; ask for 1 document or more")
        view = self.store.view()
        number = _number(view, id)
        among = None if filter is None else view.mask(filter)
        ranking = view.dense(view.vectors([number]), k + 1, among)
        others = ranking.documents != number
        others &= np.cumsum(others, axis=1) <= k
        dense = Ranking(ranking.documents[others][None], ranking.scores[others][None])
        return self._hits(view, dense, {"dense": dense}, 0)

    def explain(self, query: str, id: str) -> Explanation:
        """How much each word of a document adds to its cosine with ``query``. Raises ``NotFound``."""
        if self.model is None:
            raise UserError("an explanation needs a model; give one")
        return explain(self.model, query, self.get(id))

    def get(self, id: str) -> Document:
        """The document of that id. Raises ``NotFound``."""
        view = self.store.view()
        return view.documents([_number(view, id)])[0]

    def add(self, documents: Iterable[Document]) -> Added:
        """Put documents in, each in the place of one with its id; found at once, and there for good on return.

        Raises ``UserError``, and changes nothing, when the bundle cannot be written to or a field's kind differs.
        """
        if self.model is None:
            raise UserError("adding documents needs a model; give one")
        kept = distinct(documents)
        vectors = self.model.encode_documents([document.content for document in kept]).cpu().numpy()
        replaced = self.store.add(kept, vectors)
        return Added(len(kept) - replaced, replaced)

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Take documents out, for good; return the ids that were there."""
        return self.store.delete(ids)

    def __len__(self) -> int:
        return len(self.store.view())

    @property
    def fields(self) -> dict[str, Kind]:
        """Metadata fields that can be filtered on, and their kinds."""
        return dict(self.store.view().kinds)

    def values(self, field: str, most: int = 50) -> list[str]:
        """The most frequent values of a string field."""
        counts = self.store.view().counts(field)
        return sorted(counts, key=lambda value: (-counts[value], value))[:most]

    def refresh(self) -> bool:
        """Take up what other processes have changed, as every search does; True when there was something."""
        return self.store.refresh()

    @property
    def writable(self) -> bool:
        """Whether documents can be added and deleted."""
        return self.store.writable

    def close(self) -> None:
        """Let go of the files."""
        self.store.close()


def _number(view: View, id: str) -> int:
    number = view.number_of(id)
    if number is None:
        raise NotFound(f"there is no document {id[:200]!r}; check the id")
    return number


def _scores_of(part: Ranking, row: int, numbers: list[int]) -> list[float | None]:
    """The scores that ``part`` gives to those documents; None where it does not rank one."""
    documents, wanted = part.documents[row], np.array(numbers, np.int64)
    order = np.argsort(documents, kind="stable")
    places = np.minimum(np.searchsorted(documents, wanted, sorter=order), max(len(documents) - 1, 0))
    if not len(documents):
        return [None] * len(numbers)
    found = order[places]
    same = documents[found] == wanted
    return [score if hit else None for score, hit in zip(part.scores[row][found].tolist(), same.tolist(), strict=True)]
