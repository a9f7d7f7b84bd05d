"""A store in memory: exact vector search, and BM25."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from freemvmt.config import Lexical
from freemvmt.data.documents import Document
from freemvmt.data.passages import Passage, Splitter
from freemvmt.errors import UserError
from freemvmt.search.encoder import Encoder, TensorOrArray, to_numpy
from freemvmt.search.index.bm25 import WordSearch, word_search
from freemvmt.search.index.ranking import Ranking, Vectors, evenly_spaced
from freemvmt.search.stores import filters as fields
from freemvmt.search.stores.base import Cuts, Selection, View
from freemvmt.search.stores.filters import FieldKind, Filter

EncodeContents = Callable[[Sequence[str]], TensorOrArray]


class MemoryStore:
    """A store of ``documents`` with ``ids`` and no metadata. It never changes; each index is built at its first use.

    ``splitter`` cuts long documents; None keeps all whole. ``vectors`` are those of whole documents, or the function
    that makes those of contents. ``titles``, if any, are those with which the documents begin. The only valid filter is
    the empty one.
    """

    def __init__(
        self,
        model: Encoder | None,
        documents: Sequence[str],
        ids: Sequence[str],
        lexical: Lexical = "served",
        vectors: TensorOrArray | EncodeContents | None = None,
        splitter: Splitter | None = None,
        titles: Sequence[str] = (),
    ) -> None:
        self._model, self._vectors, self._splitter = model, vectors, splitter
        self._documents, self._titles = documents, titles
        self._ids = ids
        self._lexical = lexical

    @functools.cached_property
    def _rows(self) -> list[tuple[int, Passage | None]]:
        """The document of each passage, and where in it the passage is; empty if no document is cut."""
        cuts = [] if self._splitter is None else self._splitter.split_all(self.documents(range(len(self))))
        if not any(cuts):
            return []
        return [(number, passage) for number, own in enumerate(cuts) for passage in (own or (None,))]

    @functools.cached_property
    def _owners(self) -> NDArray[np.int64]:
        return np.array([number for number, _ in self._rows], np.int64)

    def _texts(self, read: Callable[[Passage, Document], str]) -> Sequence[str]:
        """What ``read`` reads of each passage, or the documents where none is cut."""
        return [
            self._documents[number] if passage is None else read(passage, self.documents([number])[0])
            for number, passage in self._rows
        ] or self._documents

    @functools.cached_property
    def all_vectors(self) -> TensorOrArray:
        """The vectors of all passages, (passages, dim), each of length 1, on the model's device."""
        if self._model is None:
            raise UserError("dense and hybrid search need a model; give one, or search with bm25")
        if self._vectors is not None and not callable(self._vectors):
            return self._vectors
        return (self._vectors or self._model.encode_documents)(self._texts(Passage.content))

    @functools.cached_property
    def bm25(self) -> WordSearch:
        """The BM25 index of all passages."""
        return word_search(self._lexical, self._texts(Passage.words))

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
    def is_cut(self) -> bool:
        """Whether a document is cut into passages."""
        return bool(self._rows)

    @property
    def passage_count(self) -> int:
        """The number of passages."""
        return len(self._rows) or len(self)

    def owners(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the documents of these passages; -1 for -1."""
        return np.where(numbers < 0, -1, self._owners[numbers]) if self.is_cut else numbers

    def passages(self, numbers: Sequence[int]) -> list[Passage | None]:
        """The passages with these numbers; None where a whole document is one."""
        return [self._rows[number][1] if self.is_cut else None for number in numbers]

    def passages_of(self, number: int) -> range:
        """The numbers of the passages of the document with this number, in the order of its text."""
        if not self.is_cut:
            return range(number, number + 1)
        return range(*np.searchsorted(self._owners, [number, number + 1]).tolist())

    @property
    def kinds(self) -> dict[str, FieldKind]:
        """Empty: there is no metadata."""
        return {}

    def among(self, conditions: Filter) -> Selection:
        """All documents; ``UserError`` when there is a condition."""
        fields.check(conditions, {})
        return Selection()

    def dense(self, queries: Vectors, k: int, selection: Selection | None) -> Ranking:
        """The nearest passages, by exact search."""
        import torch  # bundles are served without torch

        from freemvmt.search.index.exact import top_k

        vectors = torch.as_tensor(self.all_vectors)
        return top_k(torch.from_numpy(queries).to(vectors.device), vectors, k)

    def lexical(self, queries: Sequence[str], k: int, selection: Selection | None) -> Ranking:
        """The best passages by BM25."""
        return self.bm25.rank(queries, k)

    def documents(self, numbers: Sequence[int]) -> list[Document]:
        """The documents with these numbers."""
        return [self._document(number) for number in numbers]

    def _document(self, number: int) -> Document:
        content, title = self._documents[number], self._titles[number] if self._titles else ""
        if title and content.startswith(f"{title} "):
            return Document(self._ids[number], content[len(title) + 1 :], title)
        return Document(self._ids[number], content)

    def sample(self, most: int) -> list[Document]:
        """Documents, evenly spaced."""
        return self.documents(evenly_spaced(len(self), most))

    def ids(self, numbers: Sequence[int]) -> list[str]:
        """The ids of the documents with these numbers."""
        return [self._ids[number] for number in numbers]

    def numbers_of(self, names: Sequence[str]) -> list[int | None]:
        """The numbers of the documents with these ids; None where there is none."""
        return [self._numbers.get(name) for name in names]

    def vectors(self, numbers: Sequence[int]) -> Vectors:
        """The vectors of the passages with these numbers, (numbers, dim)."""
        return to_numpy(self.all_vectors[list(numbers)])

    def counts(self, field: str) -> dict[str, int]:
        """Empty: there is no metadata."""
        return {}

    def add(self, documents: Sequence[Document], vectors: Vectors, cuts: Cuts = (), deleted: Sequence[str] = ()) -> int:
        """Raises ``UserError``: the store never changes."""
        raise UserError("documents in memory are fixed; index them with `two-towers index` and add to the bundle")

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Raises ``UserError``: the store never changes."""
        raise UserError("documents in memory are fixed; index them with `two-towers index` and delete from the bundle")

    def close(self) -> None:
        """Do nothing."""
