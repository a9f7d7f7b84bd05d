"""What a search needs of a model: PyTorch's towers have it, and so have their graphs in ONNX."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, Union

import numpy as np

from freemvmt.data.ragged import TokenArray
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.search.index.ranking import Vectors

if TYPE_CHECKING:
    from torch import Tensor

Made = Union["Tensor", Vectors]


class Encoder(Protocol):
    """Texts become vectors; see ``TwoTowersModel`` for what each gives."""

    tokenizer: Tokenizer

    @property
    def dim(self) -> int:
        """Size of the vectors."""
        ...

    def encode_queries(self, queries: Iterable[str]) -> Made:
        """(n, dim), each of length 1."""
        ...

    def encode_documents(self, documents: Iterable[str]) -> Made:
        """(n, dim), each of length 1."""
        ...

    def encode_query_tokens(self, tokens: TokenArray) -> Made:
        """As ``encode_queries``."""
        ...

    def encode_document_tokens(self, tokens: TokenArray) -> Made:
        """As ``encode_documents``."""
        ...

    def split_documents(self, tokens: TokenArray) -> Made:
        """What each token adds to its document's vector, (tokens, dim)."""
        ...


def plain(made: Made) -> Vectors:
    """Vectors as numpy has them, wherever they were made."""
    return made if isinstance(made, np.ndarray) else made.cpu().numpy()
