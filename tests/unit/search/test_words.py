"""BM25 by tantivy: its scores written out, its snapshots, and queries that mean nothing but their words."""

import math
import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from freemvmt.errors import UserError
from freemvmt.search.index.lexical import IndexedDocument, LexicalIndex, LexicalSnapshot
from freemvmt.search.retriever import Retriever

from bundles import VOCABULARY, MakeBundle

K1, B = 1.2, 0.75


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Up to 39 words each: tantivy stores so short lengths exactly."""
    draw = random.Random(0)
    return [" ".join(draw.choices(VOCABULARY, k=draw.randint(0, 39))) for _ in range(500)]


@pytest.fixture(scope="module")
def snapshot(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> LexicalSnapshot:
    folder = tmp_path_factory.mktemp("words")
    LexicalIndex.create(folder, (IndexedDocument(row, f"d{row}", text) for row, text in enumerate(texts)))
    return LexicalIndex(folder, writable=True).snapshot()


def bm25(texts: list[str], query: str) -> np.ndarray:
    """Robertson's BM25 with Lucene's idf, a term counted as often as it stands in the query."""
    counts = [Counter(text.split()) for text in texts]
    lengths = np.array([len(text.split()) for text in texts])
    scores = np.zeros(len(texts))
    for word, times in Counter(query.split()).items():
        frequency = np.array([count[word] for count in counts])
        holding = (frequency > 0).sum()
        idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        scores += times * idf * frequency * (K1 + 1) / (frequency + K1 * (1 - B + B * lengths / lengths.mean()))
    return scores


@pytest.mark.parametrize("words", [1, 2, 5, 30])
def test_scores_are_bm25_written_out(snapshot: LexicalSnapshot, texts: list[str], words: int) -> None:
    draw = random.Random(words)
    for _ in range(20):
        query = " ".join(draw.choices(VOCABULARY[:20], k=words))
        expected = bm25(texts, query)
        found = snapshot.rank(query, 500)
        assert set(found.rows.tolist()) == set(np.flatnonzero(expected).tolist())
        np.testing.assert_allclose(found.scores, expected[found.rows], rtol=1e-4)
        assert (np.diff(found.scores) <= 0).all()
        few = snapshot.rank(query, 7)
        np.testing.assert_array_equal(few.scores, found.scores[:7])
        among = np.array(sorted(draw.sample(range(500), 60)))
        kept = snapshot.rank(query, 500, among)
        assert set(kept.rows.tolist()) == set(found.rows.tolist()) & set(among.tolist())
        np.testing.assert_allclose(kept.scores, expected[kept.rows], rtol=1e-4)


def test_long_texts_rank_as_they_should(tmp_path: Path) -> None:
    """Lengths are stored in a byte; a text twice as long still counts for less."""
    texts = [" ".join(["river"] + ["opera"] * length) for length in (10, 50, 200, 1000, 5000)]
    LexicalIndex.create(tmp_path, (IndexedDocument(row, f"d{row}", text) for row, text in enumerate(reversed(texts))))
    assert LexicalIndex(tmp_path, writable=True).snapshot().rank("river", 5).rows.tolist() == [4, 3, 2, 1, 0]


HOSTILE = {
    "*": False,
    "(river": True,
    "river AND nothing": True,
    "NOT river": True,
    "+opera -river": True,
    "words:river": True,
    "id:d1": False,
    "row:[0 TO 9]": False,
    'title:"river': True,
    '"river mountain"~3^2': True,
    "river*": True,
    "RIVER Rivers": True,
    "riv": False,
    "\\": False,
    "river\0": True,
    "\0": False,
    "🦓 river 🦓": True,
    "日本": False,
    "": False,
    " \t\n": False,
    "the and of": False,
    "\ud800 river": True,
    "x" * 10_000: False,
    "river " * 10_000: True,
    "/.*/": False,
    "{!func}": False,
}


@pytest.mark.parametrize("query", HOSTILE, ids=lambda query: ascii(query[:20]))
def test_a_query_is_never_parsed(snapshot: LexicalSnapshot, texts: list[str], query: str) -> None:
    words = {word for word in VOCABULARY if word in query.lower()}
    expected = {row for row, text in enumerate(texts) if words & set(text.split())}
    found = snapshot.rank(query, 500)
    assert bool(len(found.rows)) is HOSTILE[query]
    assert set(found.rows.tolist()) == expected
    assert np.isfinite(found.scores).all()
    assert len(snapshot.rank(query, 0).rows) == 0
    assert len(snapshot.rank(query, 5, np.empty(0, np.int64)).rows) == 0


def test_words_are_stemmed_and_many_different_ones_are_allowed(tmp_path: Path) -> None:
    LexicalIndex.create(
        tmp_path,
        [
            IndexedDocument(0, "a", "Running the runners' RUN"),
            IndexedDocument(1, "b", "café ÉCOLE ﬁn"),
            IndexedDocument(2, "c", ""),
        ],
    )
    snapshot = LexicalIndex(tmp_path, writable=True).snapshot()
    assert snapshot.rank("runs", 5).rows.tolist() == [0]
    assert snapshot.rank("école", 5).rows.tolist() == [1]
    assert snapshot.rank(" ".join(f"w{number}" for number in range(3000)) + " run", 5).rows.tolist() == [0]
    assert len(snapshot) == 3


def test_a_snapshot_stays_as_it_is(tmp_path: Path) -> None:
    LexicalIndex.create(tmp_path, [IndexedDocument(0, "a", "river"), IndexedDocument(1, "b", "river mountain")])
    words = LexicalIndex(tmp_path, writable=True)
    other = LexicalIndex(tmp_path, writable=True)
    first, theirs = words.snapshot(), other.snapshot()
    before = first.rank("river", 9)
    words.commit(["a"], [IndexedDocument(2, "c", "river opera", payload=b"payload")])
    second = words.snapshot()
    words.commit(
        ["b", "c"], [IndexedDocument(number, f"n{number}", "river", payload=bytes([number])) for number in range(3, 9)]
    )
    third = words.snapshot()
    for snapshot in (first, theirs):
        assert snapshot.rank("river", 9).rows.tolist() == before.rows.tolist()
        assert sorted(snapshot.rows().tolist()) == [0, 1]
        assert snapshot.row_of("a") == 0
        assert snapshot.payloads(0) == [(0, b""), (1, b"")]
    assert sorted(second.rows().tolist()) == [1, 2]
    assert second.payloads(2) == [(2, b"payload")]
    for snapshot in (third, other.snapshot()):
        assert sorted(snapshot.rows().tolist()) == list(range(3, 9))
        assert snapshot.payloads(5) == [(number, bytes([number])) for number in range(5, 9)]
        assert snapshot.payloads(9) == []
        assert len(snapshot) == 6


IDS = ["a", "a b", "A", "é", "e\u0301", "\0", "\n", "x" * 512, '"', "*", "日本", "🦓", " ", "a:b", "\u200b"]


def test_rows_are_found_by_any_id(tmp_path: Path) -> None:
    payloads = [bytes([0, 255, row]) * 1000 for row in range(len(IDS))]
    LexicalIndex.create(tmp_path, [])
    words = LexicalIndex(tmp_path, writable=True)
    assert words.snapshot().rows().tolist() == []
    words.commit([], [IndexedDocument(row, name, name, payload=payloads[row]) for row, name in enumerate(IDS)])
    snapshot = words.snapshot()
    assert [snapshot.row_of(name) for name in IDS] == list(range(len(IDS)))
    assert [snapshot.row_of(name) for name in ("", "b", "a ", "x" * 511, "x" * 100_000, "\ud800")] == [None] * 6
    assert snapshot.payloads(0) == list(enumerate(payloads))
    words.commit(["a", "*", "\0"], [])
    assert [words.snapshot().row_of(name) for name in ("a", "*", "\0", "A", "a b")] == [None, None, None, 2, 1]


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    for writable in (True, False):
        with pytest.raises(UserError, match=r"cannot be read .*; index the corpus again"):
            LexicalIndex(tmp_path, writable=writable).snapshot()


def test_a_folder_without_the_right_to_write_is_searched(make_bundle: MakeBundle, tmp_path: Path) -> None:
    if not os.geteuid():
        pytest.skip("root may write anywhere; the read-only mount is tried instead")
    bundle = make_bundle(tmp_path / "bundle")
    for path in (bundle, bundle / "words"):
        path.chmod(0o555)
    retriever = Retriever.load(bundle)
    assert not retriever.writable
    assert retriever.search("river", 1)
    retriever.close()
    for path in (bundle, bundle / "words"):
        path.chmod(0o755)


@pytest.mark.parametrize(("equal", "k"), [(1, 10), (30, 10), (90, 10), (400, 10), (90, 1000)])
def test_of_equal_scores_in_several_segments_the_lower_row_comes_first(tmp_path: Path, equal: int, k: int) -> None:
    """However many are equal; the documents were added in three changes, the later ones with the lower rows."""
    better = [IndexedDocument(row, f"d{row}", "tower tower castle") for row in range(7)]
    same = [IndexedDocument(row, f"d{row}", "tower garden castle") for row in range(100, 100 + equal)]
    parts = [[*same[2::3], *better[4:]], [*same[1::3], *better[:4]], same[::3]]
    (tmp_path / "words").mkdir()
    LexicalIndex.create(tmp_path / "words", parts[0])
    index = LexicalIndex(tmp_path / "words", writable=True)
    for part in parts[1:]:
        index.commit([], part)
    hits = index.snapshot().rank("tower", k)
    assert hits.rows.tolist() == [entry.row for entry in (*better, *same)][:k]
    assert index.snapshot().rank("moat", k).rows.tolist() == []


@pytest.mark.parametrize("size", [300, 20_000])  # tantivy merges the smaller base with the documents that are added
def test_equal_scores_beside_a_base_are_in_the_order_of_rows(tmp_path: Path, size: int) -> None:
    """Each ranking is the beginning of that of all documents; rows are added, and rows of the base deleted."""
    draw = random.Random(size)

    def entries(first: int, count: int) -> list[IndexedDocument]:
        texts = (
            " ".join(draw.choices(["river", "tower", "moat"], [30, 5, 1], k=draw.randint(1, 3))) for _ in range(count)
        )
        return [IndexedDocument(row, f"d{row}", text) for row, text in enumerate(texts, first)]

    LexicalIndex.create(tmp_path, entries(0, size))
    index = LexicalIndex(tmp_path, writable=True, base=size)
    for change in range(12):
        deleted = [f"d{draw.randrange(size)}" for _ in range(change % 3)]
        index.commit(deleted, entries(size + 20 * change, 20))
        snapshot = index.snapshot()
        for query in ("river", "tower river", "moat"):
            every = snapshot.rank(query, len(snapshot))
            assert (np.lexsort((every.rows, -every.scores)) == np.arange(len(every.rows))).all()
            for k in (5, 100):
                few = snapshot.rank(query, k)
                assert few.rows.tolist() == every.rows[:k].tolist()
                assert few.scores.tolist() == every.scores[:k].tolist()
