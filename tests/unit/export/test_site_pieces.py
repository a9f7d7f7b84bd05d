"""The pieces of a site: texts that make whole documents again, and lists of the words that documents have."""

import json
import random
from collections import Counter

import numpy as np
import pytest

from freemvmt.data.documents import Document
from freemvmt.data.passages import Passage
from freemvmt.export.site import postings, texts
from freemvmt.export.site.links import LinkTemplate
from freemvmt.export.site.postings import word_index
from freemvmt.export.site.texts import text_pieces
from freemvmt.search.index.analysis import words_of

from bundles import VOCABULARY


@pytest.mark.parametrize("size", [1, 300, 100_000])
def test_rows_in_pieces_are_the_documents(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(texts, "PIECE_BYTES", size)
    text = "  One 🧲.\n\nTwo\nlines.\n\n\nThree.\n"
    spans = [(2, 8), (10, 20), (23, 29)]
    cut = [Passage(start, stop, trail, headed=trail != "b") for (start, stop), trail in zip(spans, "abc", strict=True)]
    documents = [Document(f"d{number}", text, "Title", {"path": f"{number}.md"}) for number in range(12)]
    cuts = [cut if number % 3 else [] for number in range(12)]
    pieces = list(text_pieces(documents, cuts, LinkTemplate("{path}#{anchor}", documents)))
    firsts, rows = [], []
    for first, content in pieces:
        assert first == len(rows)
        firsts.append(first)
        rows += [(id, title, metadata, row) for id, title, metadata, own in json.loads(content) for row in own]
    assert len(firsts) == {1: 28, 100_000: 1}.get(size, len(firsts))
    assert len(rows) == 28
    for document, passages in zip(documents, cuts, strict=True):
        own = [
            row
            for id, title, metadata, row in rows
            if (id, title, metadata) == (document.id, "Title", document.metadata)
        ]
        assert "".join(row.get("before", "") + row["text"] + row.get("after", "") for row in own) == text
        assert [row.get("bare", False) for row in own] == [
            not passage.headed for passage in passages or [Passage(0, 1)]
        ]
        anchors = [f"#{passage.trail}" for passage in passages] or [""]
        assert [row["url"] for row in own] == [document.metadata["path"] + anchor for anchor in anchors]
        assert [row["place"]["lines"] for row in own if "place" in row] == (
            [[1, 1], [3, 4], [7, 7]] if passages else []
        )


@pytest.mark.parametrize("size", [1, 200, 100_000])
def test_the_lists_of_words_say_which_documents_have_them(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(postings, "PIECE_BYTES", size)
    draw = random.Random(0)
    pool = [*VOCABULARY, "\U00020000\U00020001", "\ufb01x", "東京", *(f"w{number}" for number in range(40))]
    contents = ["", *(" ".join(draw.choices(pool, k=draw.randint(1, 40))) for _ in range(300))]
    counts = [Counter(words_of(content)) for content in contents]
    index = word_index(contents)
    found = [words_in(piece) for piece in index.pieces]
    assert index.firsts == [next(iter(words)) for words in found]
    names = [word for words in found for word in words]
    assert names == sorted({word for count in counts for word in count}, key=lambda word: word.encode("utf-16-be"))
    for word, times in ((word, times) for words in found for word, times in words.items()):
        assert times == {row: count[word] for row, count in enumerate(counts) if word in count}
    assert index.tokens == sum(count.total() for count in counts)
    assert len(index.lengths) == len(contents)
    assert (len(found) == 1) == (size > 10_000)


def test_no_words_are_no_pieces() -> None:
    index = word_index(["", "?"])
    assert (index.pieces, index.firsts, index.tokens) == ([], [], 0)


def words_in(piece: bytes) -> dict[str, dict[int, int]]:
    """{word: {row: times}}."""
    count = int(np.frombuffer(piece, "<u4", 1)[0])
    sizes = np.frombuffer(piece, "<u4", count, offset=4).tolist()
    start = 4 + 4 * count
    names = piece[start + sum(sizes) :].decode().split("\n")
    words = {}
    for word, size in zip(names, sizes, strict=True):
        numbers = iter(varints(piece[start : start + size]))
        start += size
        words[word], row = {}, 0
        for _ in range(next(numbers)):
            step = next(numbers)
            row += step >> 1
            words[word][row] = 1 if step & 1 else next(numbers)
        assert next(numbers, None) is None
    return words


def varints(content: bytes) -> list[int]:
    """The numbers of a list."""
    numbers, value, shift = [], 0, 0
    for byte in content:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value = shift = 0
    return numbers
