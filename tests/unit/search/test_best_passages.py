"""Documents are ranked by their best passage, by every method as if all passages were ranked and then grouped."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from freemvmt.config import Method, ModelConfig
from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search import methods
from freemvmt.search.encoder import TensorOrArray
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.methods import rank_by
from freemvmt.search.retriever import Retriever

QUERIES = ["q0", "q1", "q2"]


def ranked(scores: NDArray[np.float32], k: int) -> Ranking:
    """The ``k`` best of each row; negative scores are no hits."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(scores, order, 1)
    return Ranking(np.where(values < 0, -1, order), np.maximum(values, 0))


class Cut:
    """A view of random passages, and a model whose vectors are the numbers of the queries."""

    is_cut, hybrid_weight = True, 0.5

    def __init__(self, draw: np.random.Generator, passages: int, documents: int) -> None:
        self._owners = np.sort(draw.integers(0, documents, passages))
        self.cosines = draw.random((len(QUERIES), passages), np.float32)
        self.words = draw.random((len(QUERIES), passages), np.float32) - np.float32(0.3)
        self.asked: list[int] = []

    def encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[int(query[1:])] for query in queries], np.float32)

    def dense(self, vectors: NDArray[np.float32], k: int, selection: object) -> Ranking:
        self.asked.append(k)
        return ranked(self.cosines[vectors[:, 0].astype(int)], k)

    def lexical(self, queries: Sequence[str], k: int, selection: object) -> Ranking:
        return ranked(self.words[[int(query[1:]) for query in queries]], k)

    def owners(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(numbers < 0, -1, self._owners[numbers])


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 10**6),
    passages=st.integers(1, 60),
    documents=st.integers(1, 12),
    k=st.integers(1, 15),
    method=st.sampled_from(["dense", "bm25", "hybrid"]),
)
def test_every_method_groups_the_ranking_of_all_passages(
    seed: int, passages: int, documents: int, k: int, method: Method
) -> None:
    view: Any = Cut(np.random.default_rng(seed), passages, documents)
    ranking, sides = rank_by(view, view, QUERIES, k, method, None)
    everything, _ = rank_by(view, view, QUERIES, passages * 2, method, None, methods.Search(passages=True))
    for row in range(len(QUERIES)):
        best: dict[int, tuple[int, float]] = {}
        for number, score in zip(everything.documents[row].tolist(), everything.scores[row].tolist(), strict=True):
            if number >= 0:
                best.setdefault(int(view.owners(np.array([number]))[0]), (number, score))
        wanted = list(best.values())[:k]
        found = ranking.documents[row] >= 0
        assert ranking.documents[row][found].tolist() == [number for number, _ in wanted]
        assert ranking.scores[row][found].tolist() == [score for _, score in wanted]
        for side in sides.values():
            assert len(side.documents) == len(QUERIES)


def test_a_query_of_a_batch_is_answered_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores of a fusion depend on its depth: another query that needs a deeper one does not change it."""
    monkeypatch.setattr(methods, "DEPTH", 6)
    view: Any = Cut(np.random.default_rng(3), 300, 40)
    view.cosines[1, :200] += 1  # of few documents
    view._owners[:200] = 0
    together, _ = rank_by(view, view, QUERIES, 5, "hybrid", None)
    assert max(view.asked) > 6
    for row, query in enumerate(QUERIES):
        alone, _ = rank_by(view, view, [query], 5, "hybrid", None)
        assert alone.documents[0].tolist() == together.documents[row].tolist()
        assert alone.scores[0].tolist() == together.scores[row].tolist()


@pytest.fixture(scope="module")
def short_model(tiny_base: str) -> TwoTowersModel:
    return TwoTowersModel(ModelConfig(base=tiny_base, max_length=8))


LONG = "walls of stone. " * 6 + "\nwater runs to the sea.\n" + "money and bonds. " * 6
TEXTS = [LONG, "water and the sea", "a tower"]


def test_a_long_text_in_memory_is_found_by_its_end(short_model: TwoTowersModel) -> None:
    retriever = Retriever(short_model, TEXTS, ["long", "short", "tower"])
    assert (len(retriever), retriever.passage_count > 6) == (3, True)
    for method in ("dense", "bm25", "hybrid"):
        hits = retriever.search("water runs to the sea", 3, method)  # type: ignore[arg-type]
        assert hits[0].id == "long"
        assert len({hit.id for hit in hits}) == len(hits)
        place = hits[0].place
        assert place is not None
        assert LONG[place.start : place.stop] == hits[0].text
        assert "water runs" in hits[0].text
        assert place.lines == (2, 2)
        assert str(place) == "line 2"
    assert retriever.search("tower", 1, "bm25")[0].place is None
    assert retriever.get("long").text == LONG
    assert retriever.rank(["tower", "water runs"], 3, "bm25").documents[:, 0].tolist() == [2, 0]
    assert [list(run) for run in retriever.scores(["tower", "seas"], 3, "bm25")] == [["tower"], ["short", "long"]]
    several = retriever.search("stone", 5, "bm25", passages=True)
    assert len(several) > 1
    assert {hit.id for hit in several} == {"long"}


def test_an_explanation_is_that_of_the_passage(short_model: TwoTowersModel) -> None:
    retriever = Retriever(short_model, TEXTS)
    for hit in retriever.search("stone water money", 9, "dense", passages=True):
        explanation = retriever.explain("stone water money", hit.id, hit.place and hit.place.start)
        assert explanation.score == pytest.approx(hit.score, abs=1e-5)
        assert "".join(piece.text for piece in explanation.text) == hit.text
    best = retriever.search("stone water money", 1, "dense")[0]
    assert retriever.explain("stone water money", best.id).score == pytest.approx(best.score, abs=1e-5)


def test_similar_documents_have_the_nearest_pair_of_passages(short_model: TwoTowersModel) -> None:
    retriever = Retriever(short_model, TEXTS)
    vectors = np.asarray(retriever.store.all_vectors)  # type: ignore[attr-defined]
    cosines = vectors[:-2] @ vectors[-2:].T
    hits = retriever.similar("0", 5)
    assert {hit.id for hit in hits} == {"1", "2"}
    for hit in hits:
        assert hit.score == pytest.approx(cosines[:, int(hit.id) - 1].max(), abs=1e-5)
    best = retriever.similar("1", 1)[0]
    assert best.score >= cosines[:, 0].max() - 1e-5


def test_the_title_stands_before_each_passage_and_never_twice(short_model: TwoTowersModel) -> None:
    titled = Retriever(short_model, [f"Bonds {LONG}", "Sea"], titles=["Bonds", "Sea"])
    hits = titled.search("bonds stone", 9, "dense", passages=True)
    assert {(hit.title, hit.text.count("Bonds")) for hit in hits if hit.id == "0"} == {("Bonds", 0)}
    assert titled.get("1") == Document("1", "Sea")
    served = short_model.encode_documents([f"Bonds {hits[0].text}"])
    assert hits[0].score == pytest.approx(float(served[0] @ short_model.encode_queries(["bonds stone"])[0]), abs=1e-5)


def test_whole_documents_are_what_they_were(short_model: TwoTowersModel) -> None:
    whole = Retriever(short_model, TEXTS, cut=False)
    assert whole.passage_count == 3
    vectors = short_model.encode_documents(TEXTS)
    for retriever in (whole, Retriever(short_model, TEXTS, vectors=vectors)):
        assert [hit.place for hit in retriever.search("sea", 3, "dense")] == [None] * 3
    made: list[int] = []

    def encode(texts: Sequence[str]) -> TensorOrArray:
        made.append(len(texts))
        return short_model.encode_documents(texts)

    cut = Retriever(short_model, TEXTS, vectors=encode)
    assert cut.search("water runs to the sea", 1, "dense")[0].id == "0"
    assert made == [cut.passage_count]
    with pytest.raises(UserError, match="3 documents but 2 vectors"):
        Retriever(short_model, TEXTS, vectors=vectors[:2])
