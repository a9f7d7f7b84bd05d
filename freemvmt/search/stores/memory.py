"""A store in memory: exact vector search, and BM25."""

import functools
from collections.abc import Sequence

from freemvmt.config import Lexical
from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.search.encoder import Encoder, TensorOrArray, to_numpy
from freemvmt.search.index.bm25 import WordSearch, word_search
from freemvmt.search.index.ranking import Ranking, Vectors, evenly_spaced
from freemvmt.search.stores import filters as fields
from freemvmt.search.stores.base import Selection, View
from freemvmt.search.stores.filters import FieldKind, Filter


class MemoryStore:
    """A store of ``documents`` with ``ids`` and no metadata. It never changes; each index is built at its first use.

    The only valid filter is the empty one.
    """

    def __init__(
        self,
        model: Encoder | None,
        documents: Sequence[str],
        ids: Sequence[str],
        lexical: Lexical = "served",
        vectors: TensorOrArray | None = None,
    ) -> None:
        self._model, self._vectors = model, vectors
        self._documents = documents
        self._ids = ids
        self._lexical = lexical

    @functools.cached_property
    def all_vectors(self) -> TensorOrArray:
        """The document vectors, (documents, dim), each of length 1, on the model's device."""
        if self._model is None:
            raise UserError("dense and hybrid search need a model; give one, or search with bm25")
        return self._model.encode_documents(self._documents) if self._vectors is None else self._vectors

    @functools.cached_property
    def bm25(self) -> WordSearch:
        """The BM25 index of the documents."""
        return word_search(self._lexical, self._documents)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self._ids)}

    @property
    def writable(self) -> bool:
        """Always false."""
        return False

    @property
    def replaced(self) -> bool:
        """Always false."""
        return False

    def refresh(self) -> bool:
        """Always false: the store never changes."""
        return False

    def view(self) -> View:
        """The store itself."""
        return self

    def __len__(self) -> int:
        return len(self._documents)

    @property
    def kinds(self) -> dict[str, FieldKind]:
        """Empty: there is no metadata."""
        return {}

    def among(self, conditions: Filter) -> Selection:
        """All documents; ``UserError`` when there is a condition."""
        fields.check(conditions, {})
        return Selection()

    def dense(self, queries: Vectors, k: int, selection: Selection | None) -> Ranking:
        """The nearest documents, by exact search."""
        import torch  # bundles are served without torch

        from freemvmt.search.index.exact import top_k

        vectors = torch.as_tensor(self.all_vectors)
        return top_k(torch.from_numpy(queries).to(vectors.device), vectors, k)

    def lexical(self, queries: Sequence[str], k: int, selection: Selection | None) -> Ranking:
        """The best documents by BM25."""
        return self.bm25.rank(queries, k)

    def documents(self, numbers: Sequence[int]) -> list[Document]:
        """The documents with these numbers."""
        return [Document(self._ids[number], self._documents[number]) for number in numbers]

    def sample(self, most: int) -> list[Document]:
        """Documents, evenly spaced."""
        return self.documents(evenly_spaced(len(self), most))

    def ids(self, numbers: Sequence[int]) -> list[str]:
        """The ids of the documents with these numbers."""
        return [self._ids[number] for number in numbers]

    def number_of(self, name: str) -> int | None:
        """The number of the document with the id ``name``, or None."""
        return self._numbers.get(name)

    def known(self, ids: Sequence[str]) -> int:
        """How many of ``ids`` belong to a document."""
        return sum(self.number_of(id) is not None for id in ids)

    def vectors(self, numbers: Sequence[int]) -> Vectors:
        """The vectors of the documents with these numbers, (numbers, dim)."""
        return to_numpy(self.all_vectors[list(numbers)])

    def counts(self, field: str) -> dict[str, int]:
        """Empty: there is no metadata."""
        return {}

    def add(self, documents: Sequence[Document], vectors: Vectors) -> int:
        """Raises ``UserError``: the store never changes."""
        raise UserError("documents in memory are fixed; index them with `two-towers index` and add to the bundle")

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Raises ``UserError``: the store never changes."""
        raise UserError("documents in memory are fixed; index them with `two-towers index` and delete from the bundle")

    def close(self) -> None:
        """Do nothing."""
