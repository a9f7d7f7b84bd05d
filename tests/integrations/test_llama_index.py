"""LlamaIndex's own machinery over our embeddings and our retriever."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outside import NO_INTEGRATIONS

pytest.importorskip("llama_index.core", reason=NO_INTEGRATIONS)

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

from freemvmt.config import ModelConfig
from freemvmt.data.documents import Document
from freemvmt.integrations.llama_index import TwoTowersEmbedding, TwoTowersRetriever
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.retriever import Retriever

from bundles import write_corpus

TEXTS = ["river mountain", "engine kitchen", "river planet", "piano winter", "market soldier", "river doctor"]


@pytest.mark.parametrize("document_tower", ["average", "transformer"])
def test_an_index_of_theirs_by_our_vectors(document_tower: Any, tiny_encoder: str) -> None:
    config = ModelConfig(base=tiny_encoder, query_tower="average", document_tower=document_tower, separate_towers=True)
    model = TwoTowersModel(config)
    embedding = TwoTowersEmbedding(model)
    index = VectorStoreIndex([TextNode(id_=f"d{n}", text=text) for n, text in enumerate(TEXTS)], embed_model=embedding)
    found = index.as_retriever(similarity_top_k=3).retrieve("river")
    scores = (model.encode_documents(TEXTS) @ model.encode_queries(["river"])[0]).numpy()
    assert [one.node.node_id for one in found] == [f"d{n}" for n in np.argsort(-scores)[:3]]
    np.testing.assert_allclose([one.score for one in found], np.sort(scores)[::-1][:3], atol=1e-6)


def test_a_bundle_is_a_retriever(tiny_base: str, tmp_path: Path) -> None:
    documents = [Document(f"d{n}", text, f"title {n}", {"n": n}) for n, text in enumerate(TEXTS)]
    model = TwoTowersModel(ModelConfig(base=tiny_base))
    build(model, str(write_corpus(tmp_path / "corpus.jsonl", documents)), tmp_path / "bundle")
    retriever = TwoTowersRetriever(tmp_path / "bundle", k=2, filter={"n": {"lt": 5}})
    found = retriever.retrieve("river")
    wanted = Retriever.load(tmp_path / "bundle").search("river", 2, filter={"n": {"lt": 5}})
    assert [(one.node.node_id, one.score, one.node.metadata["title"]) for one in found] == [
        (hit.id, hit.score, hit.title) for hit in wanted
    ]


def test_metadata_of_the_user_stay_as_they_are(tiny_base: str, tmp_path: Path) -> None:
    own = {"score": 5, "id": "customer-7", "title": "kept by the shop", "text": "t", "_node_content": "x"}
    documents = [Document("r1", TEXTS[0], "Ours", own), Document("r2", TEXTS[1], "", {"score": 1})]
    model = TwoTowersModel(ModelConfig(base=tiny_base))
    build(model, str(write_corpus(tmp_path / "corpus.jsonl", documents)), tmp_path / "bundle")
    (found,) = TwoTowersRetriever(tmp_path / "bundle", filter={"score": {"gte": 5}}).retrieve("river")
    assert (found.node.node_id, found.node.metadata) == ("r1", {**own, "two_towers_title": "Ours"})
