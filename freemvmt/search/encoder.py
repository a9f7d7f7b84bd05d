"""The interface of a model that encodes: ``TwoTowersModel``, ``LazyModel`` and ``OnnxEncoder`` implement it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, Union

import numpy as np

from freemvmt.config import TowerName
from freemvmt.data.ragged import TokenArray
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.search.index.ranking import Vectors

if TYPE_CHECKING:
    from torch import Tensor

TensorOrArray = Union["Tensor", Vectors]


class Encoder(Protocol):
    """Turns texts into vectors; see ``TwoTowersModel`` for each method."""

    tokenizer: Tokenizer

    @property
    def dim(self) -> int:
        """Size of the vectors."""

    @property
    def document_tokens(self) -> int:
        """The tokens of a document that are read."""

    def encode_queries(self, queries: Iterable[str]) -> TensorOrArray:
        """(n, dim), each of length 1."""

    def encode_documents(self, documents: Iterable[str]) -> TensorOrArray:
        """(n, dim), each of length 1."""

    def encode_query_tokens(self, tokens: TokenArray) -> TensorOrArray:
        """As ``encode_queries``."""

    def encode_document_tokens(self, tokens: TokenArray) -> TensorOrArray:
        """As ``encode_documents``."""

    @property
    def hybrid_weight(self) -> float:
        """The share of the dense side in a hybrid, unless a search names another."""

    @property
    def split_side(self) -> TowerName | None:
        """The side whose score can be split over words, the documents first; None if there is none."""

    def split_documents(self, tokens: TokenArray) -> TensorOrArray:
        """The contribution of each token to its document's vector, (tokens, dim)."""

    def split_queries(self, tokens: TokenArray) -> TensorOrArray:
        """The contribution of each token to its query's vector, (tokens, dim)."""


def to_numpy(vectors: TensorOrArray) -> Vectors:
    """``vectors`` as a numpy array, from any device."""
    return vectors if isinstance(vectors, np.ndarray) else vectors.cpu().numpy()
