import pytest

from freemvmt.config import ModelConfig
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search.retriever import Retriever

DOCUMENTS = [
    "The tower of the cathedral is 160 metres high.",
    "A neural network is trained with gradients.",
    "Rivers carry water to the sea.",
]


@pytest.fixture(scope="module")
def retriever(tiny_base: str) -> Retriever:
    return Retriever(TwoTowersModel(ModelConfig(base=tiny_base)), DOCUMENTS, ["tower", "network", "river"])


@pytest.mark.parametrize("method", ["dense", "bm25", "hybrid"])
def test_every_method_finds_the_document(retriever: Retriever, method: str) -> None:
    hits = retriever.search("how is a neural network trained", k=2, method=method)
    assert hits[0].id == "network"
    assert hits[0].text == DOCUMENTS[1]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_bm25_needs_no_model_and_the_others_say_that_they_do() -> None:
    retriever = Retriever(None, DOCUMENTS)
    assert retriever.search("river", method="bm25")[0].id == "2"
    for method in ("dense", "hybrid"):
        with pytest.raises(UserError, match="need a model"):
            retriever.search("river", method=method)


def test_a_batch_is_its_queries_one_by_one(retriever: Retriever) -> None:
    queries = ["high tower", "water", "sea of gradients"]
    for method in ("dense", "bm25", "hybrid"):
        batch = retriever.rank(queries, 3, method)
        for number, query in enumerate(queries):
            assert retriever.rank([query], 3, method).documents[0].tolist() == batch.documents[number].tolist()


@pytest.mark.parametrize(("k", "weight", "what"), [(0, 0.5, "k is 0"), (3, 1.5, "weight"), (3, -0.1, "weight")])
def test_impossible_numbers_are_refused(retriever: Retriever, k: int, weight: float, what: str) -> None:
    with pytest.raises(UserError, match=what):
        retriever.rank(["tower"], k, "hybrid", weight)


def test_ids_must_match_documents() -> None:
    with pytest.raises(UserError, match="3 documents but 2 ids"):
        Retriever(None, DOCUMENTS, ["a", "b"])
