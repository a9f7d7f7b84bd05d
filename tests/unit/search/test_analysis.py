"""Words are the same wherever BM25 is: in memory, in a bundle, on a site; whatever the letters."""

import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from freemvmt.config import ModelConfig
from freemvmt.model import TwoTowersModel
from freemvmt.search.index.analysis import normalized, plain_words, signature, words_of
from freemvmt.search.index.bm25 import BM25
from freemvmt.search.index.lexical import IndexedDocument, LexicalIndex
from freemvmt.search.retriever import Retriever

SHA1, SHA256 = (
    "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
)
WORDS = {
    "": [],
    "The towers, running": ["tower", "run"],
    "K and C": ["k", "c"],
    "foo_bar foo-bar don't": ["foo", "bar", "foo", "bar", "don", "t"],
    "C++ C# 3.14": ["c", "c", "3", "14"],
    f"{SHA1} {SHA256}": [SHA1, SHA256],
    "München": ["münchen"],
    unicodedata.normalize("NFD", "München"): ["münchen"],
    "STRASSE Straße": ["strass", "strass"],
    "ＦＵＬＬ ﬁne": ["full", "fine"],
    "co\u00adoperate": ["cooper"],
    "достопримечательности": ["достопримечательности"],
    "東京都": ["東", "東京", "京", "京都", "都"],
    "ひらがな": ["ひら", "らが", "がな"],
    "서울": ["서", "서울", "울"],
    "x東y": ["x", "東", "y"],
    "🦓 — ?": [],
    "half\ud800 pair": ["half", "pair"],
}


@pytest.mark.parametrize("text", WORDS, ids=ascii)
def test_a_text_has_these_words(text: str) -> None:
    assert sorted(words_of(text)) == sorted(WORDS[text])


@pytest.mark.parametrize("length", [39, 40, 41, 255, 256, 600])
def test_a_long_word_is_found_whole_or_in_pieces(length: int) -> None:
    word = "9" * length
    assert words_of(word) == [word[start : start + 255] for start in range(0, len(word), 255)]


def test_every_spelling_of_a_text_has_the_same_words() -> None:
    """Composed, decomposed, in capitals: one normalised form, and the same words."""
    for text in random_texts(300, seed=1):
        for form in ("NFC", "NFD"):
            other = unicodedata.normalize(form, text)
            assert sorted(words_of(other)) == sorted(words_of(text)), ascii(text)
            assert normalized(other) == normalized(text)
        assert normalized(normalized(text)) == normalized(text)


def test_words_for_other_engines_are_ascii_and_as_many() -> None:
    for text in random_texts(200, seed=2):
        plain = plain_words(text).split()
        assert len(plain) == len(words_of(text))
        assert all(word.isascii() and word.isalnum() for word in plain)
        assert len(set(plain)) == len(set(words_of(text)))


def test_the_signature_says_which_analysis_it_is() -> None:
    number, _, digest = signature().partition("-")
    assert number.isdigit()
    assert len(digest) == 8


def random_texts(count: int, seed: int) -> list[str]:
    """Of words in many scripts, signs, and letters in pieces."""
    draw = random.Random(seed)
    blocks = [
        (0x61, 0x7A),
        (0xC0, 0x24F),
        (0x370, 0x3FF),
        (0x400, 0x4FF),
        (0x5D0, 0x5EA),
        (0x620, 0x6D3),
        (0x905, 0x939),
    ]
    blocks += [
        (0xE01, 0xE3A),
        (0x3041, 0x3096),
        (0x4E00, 0x4FFF),
        (0xAC00, 0xAD00),
        (0xFF21, 0xFF5A),
        (0x1F980, 0x1F9A0),
    ]

    def word() -> str:
        first, last = draw.choice(blocks)
        return "".join(chr(draw.randint(first, last)) for _ in range(draw.randint(1, 9)))

    return [draw.choice([" ", "-", "_", ", "]).join(word() for _ in range(draw.randint(1, 9))) for _ in range(count)]


def test_in_memory_and_in_an_index_scores_are_equal(tmp_path: Path) -> None:
    """To the last bit, and in the same order, also of ties."""
    texts = random_texts(400, seed=3)
    texts += texts[:50]  # ties
    LexicalIndex.create(tmp_path, [IndexedDocument(row, str(row), text) for row, text in enumerate(texts)])
    snapshot, memory = LexicalIndex(tmp_path, writable=False).snapshot(), BM25(texts)
    hits = 0
    for query in random_texts(60, seed=4) + texts[:60]:
        found, ranking = snapshot.rank(query, 20), memory.rank([query], 20)
        kept = ranking.documents[0] >= 0
        assert found.rows.tolist() == ranking.documents[0][kept].tolist(), ascii(query)
        np.testing.assert_array_equal(found.scores, ranking.scores[0][kept])
        hits += int(kept.sum())
    assert hits > 500


def test_evaluating_a_bundle_equals_evaluating_its_documents(tmp_path: Path, tiny_base: str) -> None:
    from freemvmt.cli import main

    texts = random_texts(120, seed=5)
    corpus = tmp_path / "corpus.tsv"
    corpus.write_text("".join(f"{number}\t{text}\n" for number, text in enumerate(texts)), "utf-8")
    TwoTowersModel(ModelConfig(base=tiny_base)).save(tmp_path / "model")
    assert main(["index", str(tmp_path / "model"), str(corpus), "--output", str(tmp_path / "bundle")]) == 0
    bundle, memory = Retriever.load(tmp_path / "bundle"), Retriever(None, texts)
    queries = [text.partition(" ")[0] for text in texts]
    assert bundle.scores(queries, 50, "bm25") == memory.scores(queries, 50, "bm25")
