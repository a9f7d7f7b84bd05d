import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freemvmt.config import Lexical
from freemvmt.search.index.bm25 import BM25, word_search
from freemvmt.search.index.fusion import fuse
from freemvmt.search.index.ranking import Ranking

DOCUMENTS = ["towers tower high", "a river runs", "rivers and towers and rivers", "nothing else matters here"]


@pytest.mark.parametrize(
    ("kind", "k1", "b", "scale"),
    [("served", 1.2, 0.75, 2.2), ("anserini", 0.9, 0.4, 1.0)],  # tantivy multiplies by k1 + 1, which changes no order
)
def test_scores_are_bm25_written_out(kind: Lexical, k1: float, b: float, scale: float) -> None:
    """Lucene's BM25 over the stems, stop words gone: 'a', 'and' do not count; 'here' does only in ours."""
    lengths = np.array([3, 2, 3, 4])
    frequency = {"tower": np.array([2, 0, 1, 0]), "river": np.array([0, 1, 2, 0])}
    expected = np.zeros(4)
    for counts in frequency.values():
        idf = math.log(1 + (4 - (counts > 0).sum() + 0.5) / ((counts > 0).sum() + 0.5))
        expected += scale * idf * counts / (counts + k1 * (1 - b + b * lengths / lengths.mean()))
    ranking = word_search(kind, DOCUMENTS).rank(["a tower and the river"], k=4)
    order = np.argsort(-expected)
    assert ranking.documents[0, :3].tolist() == order[:3].tolist()
    np.testing.assert_allclose(ranking.scores[0, :3], expected[order[:3]], rtol=1e-5)


@pytest.mark.parametrize("kind", get_args(Lexical))
def test_a_document_that_shares_no_word_is_no_hit(kind: Lexical) -> None:
    ranking = word_search(kind, DOCUMENTS).rank(["river", "the", "zebra", ""], k=10)
    assert ranking.documents.shape == (4, 4)
    assert set(ranking.documents[0]) == {1, 2, -1}
    assert set(ranking.documents[1:].ravel()) == {-1}
    assert word_search(kind, DOCUMENTS).rank([], k=2).documents.shape == (0, 2)


@pytest.mark.parametrize("kind", get_args(Lexical))
def test_a_corpus_without_a_word_has_no_hits(kind: Lexical) -> None:
    for documents in (["the", "a"], ["", " "]):
        assert word_search(kind, documents).rank(["the tower"], k=2).documents.tolist() == [[-1, -1]]
    assert word_search("served", []).rank(["tower"], k=2).documents.shape == (1, 0)


def test_of_equal_scores_the_first_document_comes_first() -> None:
    """Also beyond the last place: a hundred texts alike, of which five are wanted; 'mountain' is the rarer word."""
    words = BM25([*["a river", "mountain"] * 100, "river"])
    assert words.rank(["river mountain", "river"], k=5).documents.tolist() == [[1, 3, 5, 7, 9], [0, 2, 4, 6, 8]]


def ranking(documents: list[int], scores: list[float]) -> Ranking:
    return Ranking(np.array([documents], np.int64), np.array([scores], np.float32))


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_fusion_is_the_convex_sum_of_scaled_scores(weight: float) -> None:
    dense = ranking([4, 2, 0], [0.9, 0.5, 0.1])  # scaled: 1, 0.5, 0
    lexical = ranking([2, 7, -1], [12.0, 3.0, 0.0])  # scaled: 1, 0.25, and no hit
    expected = {4: weight, 2: weight * 0.5 + (1 - weight), 0: 0.0, 7: (1 - weight) * 0.25}
    fused = fuse(dense, lexical, weight, k=10)
    pairs = zip(fused.documents[0].tolist(), fused.scores[0].tolist(), strict=True)
    found = {number: score for number, score in pairs if number >= 0}
    assert found == pytest.approx(expected)
    scores = fused.scores[0][fused.documents[0] >= 0]
    assert (np.diff(scores) <= 0).all()


def test_fusion_keeps_the_best_k_and_survives_equal_scores() -> None:
    fused = fuse(ranking([0, 1, 2], [1.0, 1.0, 1.0]), ranking([-1, -1, -1], [0.0, 0.0, 0.0]), 0.5, k=2)
    assert fused.documents.shape == (1, 2)
    assert np.isfinite(fused.scores).all()


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 10**6), sizes=st.tuples(*[st.integers(0, 30)] * 2), k=st.integers(1, 70))
def test_fusion_is_that_of_a_dictionary(seed: int, sizes: tuple[int, int], k: int) -> None:
    """Few different scores, so that many sums are equal; some hits are missing."""
    draw = np.random.default_rng(seed)
    sides = []
    for size in sizes:
        numbers = draw.permutation(40)[:size]
        numbers[size - int(draw.integers(0, size + 1)) :] = -1
        scores = -np.sort(-draw.integers(0, 5, size).astype(np.float32))
        sides.append(Ranking(numbers[None].astype(np.int64), scores[None]))
    weight = float(draw.choice([0, 0.3, 0.5, 1]))
    sums: dict[int, np.float32] = {}
    for side, share in zip(sides, (weight, 1 - weight), strict=True):
        low, high = (side.scores.min(), side.scores.max()) if side.scores.size else (0, 0)
        for number, score in zip(side.documents[0].tolist(), side.scores[0], strict=True):
            scaled = np.float32((score - low) / (high - low)) if high > low else np.float32(1)
            if number >= 0:
                sums[number] = np.float32(sums.get(number, np.float32(0)) + np.float32(share) * scaled)
    wanted = sorted(sums, key=lambda number: (-sums[number], number))[:k]
    found = fuse(*sides, weight, k)
    assert found.documents[0][: len(wanted)].tolist() == wanted
    assert found.scores[0][: len(wanted)].tolist() == [float(sums[number]) for number in wanted]
    assert (found.documents[0][len(wanted) :] == -1).all()
