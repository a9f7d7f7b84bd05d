"""Every kind of index, quantised or not, against all inner products."""

import threading
from pathlib import Path

import numpy as np
import pytest

from freemvmt.errors import UserError
from freemvmt.search.index.dense import PQ_FROM, IndexKind, Quantization, VectorIndex, index_kind_for
from freemvmt.search.index.ranking import Vectors

KINDS: list[tuple[IndexKind, Quantization]] = [
    (kind, stored) for kind in ("exact", "pq", "ivf", "binary", "hnsw") for stored in ("fp32", "fp16", "int8")
]
TOLERANCE = {"fp32": 0.0, "fp16": 1e-3, "int8": 0.02}


def clustered(count: int, dim: int, seed: int) -> Vectors:
    """Unit vectors in clusters, as texts on some topics are."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(40, dim))
    vectors = centres[draw.integers(40, size=count)] + 0.7 * draw.normal(size=(count, dim))
    found: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    return clustered(3000, 32, seed=0)


@pytest.fixture(scope="module")
def queries() -> Vectors:
    return clustered(50, 32, seed=1)


@pytest.fixture(scope="module", params=KINDS, ids=str)
def index(request: pytest.FixtureRequest, vectors: Vectors) -> VectorIndex:
    kind, stored = request.param
    return VectorIndex.build(kind, stored, 32, [vectors[:1000], vectors[1000:1001], vectors[1001:]])


def best(queries: Vectors, vectors: Vectors, k: int) -> np.ndarray:
    return np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]


def test_recall_and_scores(index: VectorIndex, vectors: Vectors, queries: Vectors) -> None:
    found = index.search(queries, 10)
    true = best(queries, vectors, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.documents.tolist(), true.tolist(), strict=True)])
    least = {"exact": 0.999 if index.stored == "fp32" else 0.9, "binary": 0.85}  # its 32 bits are few
    assert recall > least.get(index.kind, 0.9)
    assert found.documents.dtype == np.int64
    assert found.scores.dtype == np.float32
    scores = np.take_along_axis(queries @ vectors.T, found.documents, 1)
    np.testing.assert_allclose(found.scores, scores, atol=TOLERANCE[index.stored] + 1e-5)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    for number, row in enumerate(found.documents.tolist()):
        assert len(set(row)) == 10
        alone = index.search(queries[number : number + 1], 10)
        assert alone.documents[0].tolist() == row


@pytest.mark.parametrize("share", [0.0, 0.002, 0.3, 1.0])
def test_a_search_among_some_is_exact(index: VectorIndex, vectors: Vectors, queries: Vectors, share: float) -> None:
    draw = np.random.default_rng(2)
    among = draw.random(len(vectors)) < share
    kept = np.flatnonzero(among)
    stored = np.stack([index.vector(number) for number in range(len(index))])
    np.testing.assert_allclose(stored, vectors, atol=TOLERANCE[index.stored])
    for k in (1, 10, 5000):
        found = index.search(queries, k, among)
        assert found.documents.shape == (len(queries), min(k, len(kept)))
        scores = queries @ stored[kept].T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        np.testing.assert_allclose(found.scores, np.take_along_axis(scores, order, 1), atol=1e-5)
        assert np.isin(found.documents, kept).all()
        if index.stored == "fp32" and k == 10:  # no two are equal
            assert found.documents.tolist() == kept[order].tolist()


def test_written_and_read_it_answers_the_same(index: VectorIndex, queries: Vectors, tmp_path: Path) -> None:
    index.write(tmp_path)
    again = VectorIndex.read(tmp_path, index.kind, index.stored)
    assert (len(again), again.dim, again.kind, again.stored) == (3000, 32, index.kind, index.stored)
    among = np.arange(3000) % 7 == 0
    for kept in (None, among):
        before, after = index.search(queries, 20, kept), again.search(queries, 20, kept)
        assert before.documents.tolist() == after.documents.tolist()
        np.testing.assert_array_equal(before.scores, after.scores)
    np.testing.assert_array_equal(index.vector(2999), again.vector(2999))
    size = (tmp_path / "vectors.faiss").stat().st_size
    assert size < 3000 * 32 * {"fp32": 4.2, "fp16": 2.2, "int8": 1.2}[index.stored]
    for name in {path.name for path in tmp_path.iterdir()}:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError, match=r"cannot be read .*; index the corpus again"):
            VectorIndex.read(tmp_path, index.kind, index.stored)
        (tmp_path / name).write_bytes(content)


def test_more_than_there_are_and_nothing_at_all(index: VectorIndex, queries: Vectors) -> None:
    found = index.search(queries[:2], 5000)
    assert found.documents.shape == (2, 3000)
    assert [sorted(row) for row in found.documents.tolist()] == [list(range(3000))] * 2
    nothing = index.search(queries[:0], 10)
    assert nothing.documents.shape == nothing.scores.shape == (0, 10)
    none = index.search(queries, 10, np.zeros(3000, np.bool_))
    assert none.documents.shape == (50, 0)


def test_threads_search_at_once(index: VectorIndex, queries: Vectors) -> None:
    among = np.arange(3000) % 3 == 0
    expected = [index.search(queries, 10, kept).documents.tolist() for kept in (None, among)]
    found: list[bool] = []

    def search() -> None:
        for _ in range(5):
            found.append([index.search(queries, 10, kept).documents.tolist() for kept in (None, among)] == expected)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 20


@pytest.mark.parametrize(("kind", "stored"), KINDS, ids=str)
@pytest.mark.parametrize(("count", "dim"), [(1, 1), (1, 48), (2, 7), (3, 3), (1000, 5), (1000, 2), (1001, 48)])
def test_tiny_sizes_and_odd_dimensions(kind: IndexKind, stored: Quantization, count: int, dim: int) -> None:
    vectors = clustered(count, dim, seed=3)
    if kind in ("pq", "ivf") and (dim % 2 or count < PQ_FROM):
        with pytest.raises(UserError, match=rf"--kind {kind} needs .*; use"):
            VectorIndex.build(kind, stored, dim, [vectors])
        return
    index = VectorIndex.build(kind, stored, dim, [vectors])
    found = index.search(vectors[:3], 5)
    assert found.documents.shape == (min(3, count), min(5, count))
    assert (found.documents >= 0).all()
    np.testing.assert_allclose(found.scores[:, 0], 1, atol=0.05 if stored != "fp32" or count > dim else 1e-5)


def test_zero_vectors_are_vectors(index: VectorIndex) -> None:
    """Of a query without a word, everything is equally near: any will do, but as many as are asked for."""
    found = index.search(np.zeros((2, 32), np.float32), 10)
    assert (found.documents >= 0).all()
    np.testing.assert_allclose(found.scores, 0, atol=1e-6)


def test_the_kind_suits_the_size() -> None:
    assert [index_kind_for(size, 384) for size in (1, 99_999, 100_000, 999_999, 1_000_000)] == [
        "exact",
        "exact",
        "pq",
        "pq",
        "ivf",
    ]
    assert index_kind_for(100_000, 47) == "hnsw"


@pytest.mark.parametrize("kind", ["pq", "ivf"])
def test_texts_without_words_do_not_hide_the_others(kind: IndexKind) -> None:
    """A vector of zeros is nearer to a query than every vector of length 1 with a cosine below 0.5."""
    vectors = np.concatenate([clustered(3000, 32, seed=0), np.zeros((2000, 32), np.float32)])
    queries = np.random.default_rng(5).normal(size=(20, 32)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    true = np.sort(queries @ vectors.T, axis=1)[:, ::-1][:, :10]
    assert (true[:, 9] < 0.5).any()
    found = VectorIndex.build(kind, "fp32", 32, [vectors]).search(queries, 10)
    assert np.mean(found.scores >= true[:, 9:] - 1e-6) > 0.95


@pytest.mark.parametrize(("kind", "least"), [("pq", 0.75), ("ivf", 0.9)])
def test_a_direction_that_all_vectors_share_costs_less_recall(kind: IndexKind, least: float) -> None:
    """Averages of tokens have it. A sketch of inner products finds 0.67 (pq) and 0.85 (ivf) here."""
    draw = np.random.default_rng(6)
    shared = draw.normal(size=64)
    vectors, queries = (
        (1.5 * shared / np.linalg.norm(shared) + clustered(count, 64, seed)).astype(np.float32)
        for count, seed in ((20_000, 7), (100, 8))
    )
    vectors, queries = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (vectors, queries))
    true = np.sort(queries @ vectors.T, axis=1)[:, ::-1][:, 299]
    found = VectorIndex.build(kind, "fp32", 64, [vectors]).search(queries, 300)
    assert np.mean(found.scores >= true[:, None] - 1e-6) > least
