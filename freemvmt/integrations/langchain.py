"""For LangChain: embeddings with the roles of both towers, and a retriever over a bundle.

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

from freemvmt.config import HYBRID_WEIGHT, Method
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.optional import needed
from freemvmt.search.hits import with_title
from freemvmt.search.retriever import Retriever

needed("langchain_core")


SCORE = "two_towers_score"  # in a document's metadata, where users have keys of their own


class TwoTowersEmbeddings(Embeddings):
    """Vectors of length 1 by ``model``: a folder, a name on the Hub, ``untrained``, or the model itself."""

    def __init__(self, model: str | Path | TwoTowersModel = "untrained") -> None:
        self.model = model if isinstance(model, TwoTowersModel) else TwoTowersModel.load(model)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """By the document tower."""
        vectors: list[list[float]] = self.model.encode_documents(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """By the query tower."""
        vector: list[float] = self.model.encode_queries([text])[0].tolist()
        return vector


class TwoTowersRetriever(BaseRetriever):
    """The best ``k`` documents of the bundle in ``bundle``, as `two-towers search` finds them.

    A document's metadata are its own, each under its name, with ``two_towers_score``, and its title as ``title``, or as
    ``two_towers_title`` where the metadata have a ``title``. Its id is ``Document.id``.
    """

    bundle: str
    k: int = 10
    method: Method = "hybrid"
    weight: float = HYBRID_WEIGHT
    filter: dict[str, Any] | None = None

    @functools.cached_property
    def retriever(self) -> Retriever:
        """The bundle, opened when it is first asked."""
        return Retriever.load(self.bundle)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **given: Any
    ) -> list[Document]:
        return [document for document, _ in self.similarity_search_with_score(query, **given)]

    def similarity_search_with_score(self, query: str, **given: Any) -> list[tuple[Document, float]]:
        """The same documents, each with its score; ``given`` are settings of this search: ``k``, ``filter``."""
        settings = {name: getattr(self, name) for name in ("k", "method", "weight", "filter")} | given
        return [
            (
                Document(id=hit.id, page_content=hit.text, metadata={SCORE: hit.score} | with_title(hit)),
                hit.score,
            )
            for hit in self.retriever.search(query, **settings)
        ]
