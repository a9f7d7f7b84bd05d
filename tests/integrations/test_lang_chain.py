"""LangChain's own standard tests of embeddings and retrievers, and what they do not ask."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outside import NO_INTEGRATIONS

pytest.importorskip("langchain_tests", reason=NO_INTEGRATIONS)

from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from freemvmt.config import ModelConfig
from freemvmt.data.documents import Document
from freemvmt.integrations.langchain import TwoTowersEmbeddings, TwoTowersRetriever
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.retriever import Retriever

from bundles import write_corpus


@pytest.fixture(scope="session")
def bundle(tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("langchain")
    texts = ["river mountain", "engine kitchen", "river planet", "piano winter", "market soldier", "river doctor"]
    documents = [Document(f"d{n}", text, f"title {n}" if n % 2 else "", {"n": n}) for n, text in enumerate(texts)]
    model = TwoTowersModel(ModelConfig(base=tiny_base))
    build(model, str(write_corpus(home / "corpus.jsonl", documents)), home / "bundle")
    return home / "bundle"


class TestUnits(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return TwoTowersEmbeddings


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return TwoTowersEmbeddings


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _made(self, bundle: Path) -> None:
        self.bundle = bundle

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return TwoTowersRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"bundle": str(self.bundle)}

    @property
    def retriever_query_example(self) -> str:
        return "river"


def test_metadata_of_the_user_stay_as_they_are(tiny_base: str, tmp_path: Path) -> None:
    """Whatever their names: those that others and we might use too."""
    own: dict[str, Any] = {
        "score": 5, "_score": 6, "id": "customer-7", "_id": "x", "title": "kept by the shop", "source": "s",
        "text": "t", "page_content": "p", "metadata": {"a": 1}, "type": "Document", "tags": ["a", "b"],
    }  # fmt: skip
    documents = [
        Document("r1", "tower in Paris", "Ours", own),
        Document("r2", "tower", "Ours", {"score": 1, "id": "customer-8"}),
        Document("r3", "tower", metadata={"two_towers_score": "theirs"}),
    ]
    model = TwoTowersModel(ModelConfig(base=tiny_base))
    build(model, str(write_corpus(tmp_path / "corpus.jsonl", documents)), tmp_path / "bundle")
    retriever = TwoTowersRetriever(bundle=str(tmp_path / "bundle"), k=3, method="bm25")
    found = {one.id: (one, score) for one, score in retriever.similarity_search_with_score("tower")}
    assert list(found) == [one.id for one in retriever.invoke("tower")]
    first, score = found["r1"]
    assert first.metadata == {**own, "two_towers_title": "Ours", "two_towers_score": score}
    second, score = found["r2"]
    assert second.metadata == {"score": 1, "id": "customer-8", "title": "Ours", "two_towers_score": score}
    assert found["r3"][0].metadata == {"two_towers_score": "theirs"}
    (kept,) = retriever.invoke("tower", filter={"score": {"gte": 5}})
    assert (kept.id, kept.metadata["score"]) == ("r1", 5)
    retriever.retriever.close()


def test_roles_of_two_kinds(tiny_encoder: str) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_encoder, query_tower="average", document_tower="transformer"))
    embeddings = TwoTowersEmbeddings(model)
    np.testing.assert_array_equal(embeddings.embed_query("river"), model.encode_queries(["river"])[0])
    np.testing.assert_array_equal(embeddings.embed_documents(["river"]), model.encode_documents(["river"]))
    assert not np.allclose(embeddings.embed_query("river"), embeddings.embed_documents(["river"])[0], atol=0.01)


def test_both_roles_and_the_same_hits(bundle: Path) -> None:
    found = Retriever.load(bundle)
    model = found.model
    assert model is not None
    embeddings = TwoTowersEmbeddings(model)
    np.testing.assert_array_equal(embeddings.embed_query("river"), model.encode_queries(["river"])[0])
    np.testing.assert_array_equal(embeddings.embed_documents(["a", "b"]), model.encode_documents(["a", "b"]))
    retriever = TwoTowersRetriever(bundle=str(bundle), k=3, method="bm25", filter={"n": {"gte": 1}})
    wanted = found.search("river", 3, "bm25", filter={"n": {"gte": 1}})
    documents = retriever.invoke("river")
    assert [(one.id, one.page_content) for one in documents] == [(hit.id, hit.text) for hit in wanted]
    assert [one.metadata["two_towers_score"] for one in documents] == [hit.score for hit in wanted]
    assert documents[0].metadata["n"] >= 1
    found.close()
    retriever.retriever.close()
