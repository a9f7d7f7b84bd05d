"""Classes for LangChain: embeddings by both towers, and a retriever over a bundle.

from freemvmt.integrations.langchain import TwoTowersEmbeddings, TwoTowersRetriever

TwoTowersEmbeddings("models/pydocs").embed_query("how tall is the tower")
TwoTowersRetriever(bundle="bundles/pydocs", k=5).invoke("how tall is the tower")
"""

import functools
from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever

from freemvmt.config import Method
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.optional import require
from freemvmt.search.hits import with_title
from freemvmt.search.retriever import Retriever

require("langchain_core")


SCORE = "two_towers_score"  # key in the metadata of a document, which also has the user's keys


class TwoTowersEmbeddings(Embeddings):
    """Embeddings of length 1; ``model`` is a folder, a name on the Hub, ``untrained``, or a model."""

    def __init__(self, model: str | Path | TwoTowersModel = "untrained") -> None:
        self.model = model if isinstance(model, TwoTowersModel) else TwoTowersModel.load(model)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of documents, by the document tower."""
        vectors: list[list[float]] = self.model.encode_documents(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query, by the query tower."""
        vector: list[float] = self.model.encode_queries([text])[0].tolist()
        return vector


class TwoTowersRetriever(BaseRetriever):
    """A retriever that returns the best ``k`` documents of the folder ``bundle``, as `two-towers search` does.

    The metadata of a document are its own, with its score as ``two_towers_score`` and its title as ``title``
    (``two_towers_title`` if the metadata have a ``title``). Its id is ``Document.id``.
    """

    bundle: str
    k: int = 10
    method: Method = "hybrid"
    weight: float | None = None
    filter: dict[str, Any] | None = None

    @functools.cached_property
    def retriever(self) -> Retriever:
        """The bundle, opened at first use."""
        return Retriever.load(self.bundle)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **overrides: Any
    ) -> list[Document]:
        return [document for document, _ in self.similarity_search_with_score(query, **overrides)]

    def similarity_search_with_score(self, query: str, **overrides: Any) -> list[tuple[Document, float]]:
        """As ``invoke``, but with scores; ``overrides`` are settings of this search, such as ``k`` or ``filter``."""
        settings = {name: getattr(self, name) for name in ("k", "method", "weight", "filter")} | overrides
        return [
            (
                Document(id=hit.id, page_content=hit.text, metadata={SCORE: hit.score} | with_title(hit)),
                hit.score,
            )
            for hit in self.retriever.search(query, **settings)
        ]
