from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from freemvmt.config import ModelConfig
from freemvmt.data.documents import Document
from freemvmt.errors import NotFound, UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search.index.bm25 import BM25
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


CONTAINERS: dict[str, Callable[[list[str]], Any]] = {
    "list": list,
    "tuple": tuple,
    "numpy text": np.array,
    "numpy objects": lambda texts: np.array(texts, object),
    "list of numpy text": lambda texts: list(np.array(texts)),
    "iterator": iter,
    "generator": lambda texts: (text for text in texts),
    "values of a dictionary": lambda texts: dict(enumerate(texts)).values(),
    "pandas column with a gap": lambda texts: pd.DataFrame({"text": ["dropped", *texts]}).drop(index=0)["text"],
    "pandas categories": lambda texts: pd.Series(texts, dtype="category"),
    "pandas index": pd.Index,
    "arrow": lambda texts: pa.chunked_array([texts[:1], texts[1:]]),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_texts_come_in_any_container(kind: str, retriever: Retriever) -> None:
    held, model = CONTAINERS[kind], retriever.model
    assert model is not None
    for encode in (model.encode_queries, model.encode_documents):
        assert encode(held(DOCUMENTS)).equal(encode(DOCUMENTS))  # type: ignore[arg-type, union-attr]
    over = Retriever(model, held(DOCUMENTS), held(["tower", "network", "river"]))
    queries = ["sea water", "gradients", "how high"]
    for method in ("dense", "bm25", "hybrid"):
        found = over.search(held(queries), k=np.int64(2), method=method)
        assert found == retriever.search(queries, k=2, method=method)
    assert over.scores(held(queries), 3) == retriever.scores(queries, 3)
    assert (over.rank(held(queries), 3).documents == retriever.rank(queries, 3).documents).all()
    assert (BM25(held(DOCUMENTS)).rank(held(queries), 2).documents == BM25(DOCUMENTS).rank(queries, 2).documents).all()


def test_a_text_of_numpy_is_one_text(retriever: Retriever) -> None:
    word = np.array(["sea water"])[0]
    assert retriever.search(word) == retriever.search("sea water")
    assert retriever.get(np.array(["river"])[0]).id == "river"


@pytest.mark.parametrize(
    "ids", [[7, 8, 9], (7, 8, 9), np.array([7, 8, 9]), list(np.array([7, 8, 9], np.uint8)), range(7, 10)]
)
def test_whole_numbers_as_ids_become_their_digits(ids: Any) -> None:
    retriever = Retriever(None, DOCUMENTS, ids)
    assert [hit.id for hit in retriever.search("rivers", method="bm25")] == ["9"]
    for name in (9, np.int32(9), "9"):
        assert retriever.get(name).text == DOCUMENTS[2]


@pytest.mark.parametrize("ids", [["a", "b", "a"], [1, "2", "1"], np.array(["a", "b", "a"]), iter(["a", "b", "a"])])
def test_an_id_that_stands_twice_is_refused(ids: Any) -> None:
    with pytest.raises(UserError, match=r"ids\[2\]: the id '[a1]' stands twice, first at ids\[0\]; keep one"):
        Retriever(None, DOCUMENTS, ids)


@pytest.mark.parametrize(
    "wrong", ["one text", b"bytes", 5, None, {"a": "b"}, {"a"}, [1], ["a", None], [float("nan")], np.array([["a"]]),
    np.array([b"a"]), pd.DataFrame({"text": ["a"]}), pd.Series(["a", None]), np.array("a")], ids=repr,
)  # fmt: skip
def test_what_holds_no_texts_is_one_type_error(wrong: Any, retriever: Retriever) -> None:
    model = retriever.model
    assert model is not None
    for take in (model.encode_queries, model.encode_documents, BM25, lambda texts: Retriever(model, texts)):
        with pytest.raises(TypeError, match=r"(texts|documents) must be a list of texts, .*; give"):
            take(wrong)


def test_what_is_no_query_is_refused(retriever: Retriever) -> None:
    wrong: list[Any] = [None, 5, b"river", {"river": 1}, ["river", 5], ["river", None], np.array("river"), {"river"}]
    for query in wrong:
        for method in ("dense", "bm25", "hybrid"):
            with pytest.raises(TypeError, match="queries must be a list of texts, "):
                retriever.search(query, method=method)
    k: Any
    for k in ("3", 2.5, None, -1):
        with pytest.raises(UserError, match=r"k is .*; ask for 1 document or more"):
            retriever.search("river", k)
        with pytest.raises(UserError, match=r"k is .*; ask for 1 document or more"):
            retriever.similar("river", k)
    weight: Any
    for weight in ("a", float("nan")):
        with pytest.raises(UserError, match=r"the weight is .*; give"):
            retriever.search("river", weight=weight)
    method: Any = "sparse"
    with pytest.raises(UserError, match="there is no method 'sparse'; give dense, bm25 or hybrid"):
        retriever.search("river", method=method)


def test_what_is_no_id_is_refused(retriever: Retriever) -> None:
    for wrong in (1.0, True, None, b"river"):
        ask: Any
        for ask in (retriever.get, retriever.similar, lambda id: retriever.explain("river", id)):
            with pytest.raises(UserError, match=r"the id is .*, not text or a whole number; give"):
                ask(wrong)
    ids: Any
    for ids in ("river", [1.0], [None], {"river": 1}, 5, np.array([True]), pd.DataFrame({"river": ["a"]})):
        with pytest.raises(TypeError, match=r"ids must be a list of ids \(texts or whole numbers\), "):
            retriever.delete(ids)
        with pytest.raises(TypeError, match=r"ids must be a list of ids \(texts or whole numbers\), "):
            Retriever(None, DOCUMENTS, ids)
    for id in ("", "nobody", "\ud800", "x" * 100_000):
        with pytest.raises(NotFound, match=r"there is no document .*; check the id") as refused:
            retriever.get(id)
        assert len(str(refused.value)) < 300


def test_documents_in_memory_stay_as_they_are(retriever: Retriever) -> None:
    for change in (lambda: retriever.add([Document("a", "b")]), lambda: retriever.delete(["river"])):
        with pytest.raises(UserError, match="documents in memory are fixed; index them"):
            change()
    assert not retriever.writable
    assert len(retriever) == 3
    assert retriever.fields == {}
    with pytest.raises(UserError, match="no field 'year'"):
        retriever.search("river", filter={"year": 1})
    assert {hit.id for hit in retriever.search("river", filter={})} == {"tower", "network", "river"}
    assert {hit.id for hit in retriever.similar("river")} == {"tower", "network"}
    assert retriever.get("river").text == DOCUMENTS[2]
    assert retriever.explain("water", "river").score == pytest.approx(
        next(hit.score for hit in retriever.search("water", method="dense") if hit.id == "river"), abs=1e-5
    )


def test_hits_carry_both_scores(retriever: Retriever) -> None:
    dense = {hit.id: hit for hit in retriever.search("neural towers", method="dense")}
    lexical = {hit.id: hit for hit in retriever.search("neural towers", method="bm25")}
    assert lexical.keys() == {"tower", "network"}
    for hit in retriever.search("neural towers"):
        assert hit.dense == pytest.approx(dense[hit.id].score)
        assert hit.bm25 == (pytest.approx(lexical[hit.id].score) if hit.id in lexical else None)
