"""The model of a bundle: light towers encode in NumPy; PyTorch is loaded at the first text for a transformer.

A server over a transformer's documents starts in the time and the memory of its light query tower. It pays for the
heavy one only if somebody adds a document.
"""

import threading
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from freemvmt.config import TowerName
from freemvmt.data.ragged import TokenArray
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.data.values import texts_of
from freemvmt.errors import UserError
from freemvmt.search.encoder import to_numpy
from freemvmt.search.index.ranking import Vectors
from freemvmt.towers.model_folder import TOKENIZER, read_description, stored_config, stored_files
from freemvmt.towers.numpy_towers import QueryRows, light_towers

if TYPE_CHECKING:
    from freemvmt.model import TwoTowersModel


class LazyModel:
    """An ``Encoder`` over the model in ``folder``, whose checksums the caller verified.

    ``query_rows`` int8 holds the query tower's token vectors in a byte a number. Raises ``UserError`` when the files do
    not fit together. Several threads may use it.
    """

    def __init__(self, folder: Path, query_rows: QueryRows = "fp32") -> None:
        description = read_description(folder / "config.json")
        self.config = stored_config(description, folder)
        self.tokenizer = Tokenizer.from_file(folder / TOKENIZER, self.config.max_length, description.get("tokenizer"))
        self._towers = light_towers(folder, stored_files(description, self.config), self.config, query_rows)
        self._folder = folder
        self._whole: TwoTowersModel | None = None
        self._loading = threading.Lock()

    @property
    def whole(self) -> "TwoTowersModel":
        """Both towers in PyTorch, loaded at the first use; ``UserError`` where PyTorch is not installed."""
        with self._loading:
            if self._whole is None:
                try:
                    from freemvmt.model import TwoTowersModel
                except ModuleNotFoundError as error:
                    raise UserError(
                        f"a transformer needs {error.name}, which is not installed; install two-towers whole"
                    ) from error
                self._whole = TwoTowersModel.load(self._folder)
            return self._whole

    @cached_property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        return next((tower.dim for tower in self._towers.values()), None) or self.whole.dim

    @cached_property
    def document_tokens(self) -> int:
        """As ``TwoTowersModel.document_tokens``."""
        return self.config.max_length if "document" in self._towers else self.whole.document_tokens

    @property
    def hybrid_weight(self) -> float:
        """The share of the dense side in a hybrid, unless a search names another."""
        return self.config.hybrid_weight

    @property
    def split_side(self) -> TowerName | None:
        """The side whose score can be split over words, the documents first; None if both are transformers."""
        return self.config.split_side

    def encode_queries(self, queries: Iterable[str]) -> Vectors:
        """As ``TwoTowersModel.encode_queries``."""
        return self.encode_query_tokens(self.tokenizer.encode(texts_of(queries)))

    def encode_documents(self, documents: Iterable[str]) -> Vectors:
        """As ``TwoTowersModel.encode_documents``."""
        return self.encode_document_tokens(self.tokenizer.encode(texts_of(documents)))

    def encode_query_tokens(self, tokens: TokenArray) -> Vectors:
        """As ``TwoTowersModel.encode_query_tokens``."""
        tower = self._towers.get("query")
        return tower.encode(tokens) if tower else to_numpy(self.whole.encode_query_tokens(tokens))

    def encode_document_tokens(self, tokens: TokenArray) -> Vectors:
        """As ``TwoTowersModel.encode_document_tokens``."""
        tower = self._towers.get("document")
        return tower.encode(tokens) if tower else to_numpy(self.whole.encode_document_tokens(tokens))

    def split_queries(self, tokens: TokenArray) -> Vectors:
        """As ``TwoTowersModel.split_queries``."""
        tower = self._towers.get("query")
        return tower.split(tokens) if tower else to_numpy(self.whole.split_queries(tokens))

    def split_documents(self, tokens: TokenArray) -> Vectors:
        """As ``TwoTowersModel.split_documents``."""
        tower = self._towers.get("document")
        return tower.split(tokens) if tower else to_numpy(self.whole.split_documents(tokens))
