"""Classes for LlamaIndex: embeddings by both towers, and a retriever over a bundle.

from freemvmt.integrations.llama_index import TwoTowersEmbedding, TwoTowersRetriever

TwoTowersEmbedding(model="models/pydocs").get_query_embedding("how tall is the tower")
TwoTowersRetriever("bundles/pydocs", k=5).retrieve("how tall is the tower")
"""

from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from freemvmt.config import Method
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.optional import require
from freemvmt.search.hits import with_title
from freemvmt.search.retriever import Retriever

require("llama_index.core")


class TwoTowersEmbedding(BaseEmbedding):
    """Embeddings of length 1; ``model`` is a folder, a name on the Hub, ``untrained``, or a model."""

    _model: TwoTowersModel = PrivateAttr()

    def __init__(self, model: str | Path | TwoTowersModel = "untrained", **settings: Any) -> None:
        loaded = model if isinstance(model, TwoTowersModel) else TwoTowersModel.load(model)
        super().__init__(model_name=loaded.config.base if isinstance(model, TwoTowersModel) else str(model), **settings)
        self._model = loaded

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vectors([query], queries=True)[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vectors([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._vectors(texts)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _vectors(self, texts: list[str], queries: bool = False) -> list[list[float]]:
        encoded = (self._model.encode_queries if queries else self._model.encode_documents)(texts)
        vectors: list[list[float]] = encoded.tolist()
        return vectors


class TwoTowersRetriever(BaseRetriever):
    """A retriever that returns the best ``k`` documents of ``bundle``, as `two-towers search` does, as scored nodes.

    The metadata of a node are the document's own, with its title as ``title`` (``two_towers_title`` if the metadata
    have a ``title``).
    """

    def __init__(
        self,
        bundle: str | Path,
        k: int = 10,
        method: Method = "hybrid",
        weight: float | None = None,
        filter: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.retriever = Retriever.load(bundle)
        self._k, self._method, self._weight, self._filter = k, method, weight, filter
        super().__init__(**settings)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self.retriever.search(query_bundle.query_str, self._k, self._method, self._weight, self._filter)
        return [
            NodeWithScore(node=TextNode(id_=hit.id, text=hit.text, metadata=with_title(hit)), score=hit.score)
            for hit in hits
        ]
