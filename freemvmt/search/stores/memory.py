"""Documents in memory for as long as the program runs: exact search, and BM25 as a bundle has it."""

import functools
from collections.abc import Sequence

from freemvmt.config import Lexical
from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.search.encoder import Encoder, Made, plain
from freemvmt.search.index.bm25 import ByWords, by_words
from freemvmt.search.index.ranking import Ranking, Vectors
from freemvmt.search.stores import filters as fields
from freemvmt.search.stores.base import Among, View
from freemvmt.search.stores.filters import Filter, Kind


class MemoryStore:
    """``documents`` under ``ids``, without metadata; each index is made when it is first needed. It never changes.

    The only filter is the empty one, which keeps all.
    """

    def __init__(
        self, model: Encoder | None, documents: Sequence[str], ids: Sequence[str], lexical: Lexical = "served"
    ) -> None:
        self._model = model
        self._documents = documents
        self._ids = ids
        self._lexical = lexical

    @functools.cached_property
    def all_vectors(self) -> Made:
        """(documents, dim), each of length 1, on the model's device."""
        if self._model is None:
            raise UserError("dense and hybrid search need a model; give one, or search with bm25")
        return self._model.encode_documents(self._documents)

    @functools.cached_property
    def bm25(self) -> ByWords:
        """The documents by their words."""
        return by_words(self._lexical, self._documents)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self._ids)}

    @property
    def writable(self) -> bool:
        """No."""
        return False

    @property
    def replaced(self) -> bool:
        """Never."""
        return False

    def refresh(self) -> bool:
        """Nothing ever changes."""
        return False

    def view(self) -> View:
        """This, which never changes."""
        return self

    def __len__(self) -> int:
        return len(self._documents)

    @property
    def kinds(self) -> dict[str, Kind]:
        """None: there is no metadata."""
        return {}

    def among(self, conditions: Filter) -> Among:
        """All documents, if there is no condition; there is no field to set one on."""
        fields.check(conditions, {})
        return Among()

    def dense(self, queries: Vectors, k: int, among: Among | None) -> Ranking:
        """The nearest documents, exactly."""
        import torch  # a bundle is served without it

        from freemvmt.search.index.exact import top_k

        vectors = torch.as_tensor(self.all_vectors)
        return top_k(torch.from_numpy(queries).to(vectors.device), vectors, k)

    def lexical(self, queries: Sequence[str], k: int, among: Among | None) -> Ranking:
        """The best documents by their words."""
        return self.bm25.rank(queries, k)

    def documents(self, numbers: Sequence[int]) -> list[Document]:
        """The documents of those numbers."""
        return [Document(self._ids[number], self._documents[number]) for number in numbers]

    def ids(self, numbers: Sequence[int]) -> list[str]:
        """Their ids."""
        return [self._ids[number] for number in numbers]

    def number_of(self, name: str) -> int | None:
        """The number of the document with that id."""
        return self._numbers.get(name)

    def known(self, ids: Sequence[str]) -> int:
        """How many of ``ids`` are those of a document."""
        return sum(self.number_of(id) is not None for id in ids)

    def vectors(self, numbers: Sequence[int]) -> Vectors:
        """(numbers, dim)."""
        return plain(self.all_vectors[list(numbers)])

    def counts(self, field: str) -> dict[str, int]:
        """None: there is no metadata."""
        return {}

    def add(self, documents: Sequence[Document], vectors: Vectors) -> int:
        """Refused."""
        raise UserError("documents in memory are fixed; index them with `two-towers index` and add to the bundle")

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Refused."""
        raise UserError("documents in memory are fixed; index them with `two-towers index` and delete from the bundle")

    def close(self) -> None:
        """Nothing to let go of."""
