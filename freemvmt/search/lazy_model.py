"""A model that loads its transformer when the first document is encoded: a search needs only the query tower.

A server over such a bundle starts in the time and the memory of its light tower, and pays for the heavy one only if
somebody adds a document.
"""

import threading
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from freemvmt.config import TowerName
from freemvmt.data.ragged import TokenArray
from freemvmt.model import TwoTowersModel


class LazyModel:
    """An ``Encoder`` over the model in ``folder``: a light query tower, and a transformer for documents."""

    is_lazy = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._queries = TwoTowersModel.load_query_tower(folder)
        self._documents: TwoTowersModel | None = None
        self._loading = threading.Lock()
        self.tokenizer = self._queries.tokenizer

    @property
    def whole(self) -> TwoTowersModel:
        """Both towers, loaded at the first use."""
        with self._loading:
            if self._documents is None:
                self._documents = TwoTowersModel.load(self._folder)
            return self._documents

    @property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        return self._queries.dim

    @property
    def hybrid_weight(self) -> float:
        """The share of the dense side in a hybrid over a transformer's documents."""
        return self._queries.hybrid_weight

    @property
    def split_side(self) -> TowerName | None:
        """The queries: a transformer's documents cannot be split."""
        return None if self._queries.split_side is None else "query"

    def encode_queries(self, queries: Iterable[str]) -> Tensor:
        """As ``TwoTowersModel.encode_queries``."""
        return self._queries.encode_queries(queries)

    def encode_query_tokens(self, tokens: TokenArray) -> Tensor:
        """As ``TwoTowersModel.encode_query_tokens``."""
        return self._queries.encode_query_tokens(tokens)

    def split_queries(self, tokens: TokenArray) -> Tensor:
        """As ``TwoTowersModel.split_queries``."""
        return self._queries.split_queries(tokens)

    def encode_documents(self, documents: Iterable[str]) -> Tensor:
        """As ``TwoTowersModel.encode_documents``."""
        return self.whole.encode_documents(documents)

    def encode_document_tokens(self, tokens: TokenArray) -> Tensor:
        """As ``TwoTowersModel.encode_document_tokens``."""
        return self.whole.encode_document_tokens(tokens)

    def split_documents(self, tokens: TokenArray) -> Tensor:
        """As ``TwoTowersModel.split_documents``."""
        return self.whole.split_documents(tokens)
