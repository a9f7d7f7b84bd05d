"""BM25 for a browser: the words of all documents as one compact file, from which come tantivy's own scores.

    words         each word once, sorted, a line each
    postings      uint32: words, documents; uint32 (words,): bytes of each word's list; uint8 (documents,): lengths;
                  then the lists: how many documents, and for each the distance to the one before, doubled, plus 1
                  where the word stands there once, else followed by how often. All of these as varints.

A length is rounded to one byte, as tantivy does it, so that the scores are the same.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from freemvmt.search.index.analysis import words_of

_EXACT = 40  # lengths below are kept as they are


@dataclass(frozen=True, eq=False)
class WordsFile:
    """``tokens``: the words of all documents, each as often as it stands there."""

    words: bytes
    postings: bytes
    tokens: int


def words_file(contents: Iterable[str]) -> WordsFile:
    """The words of ``contents``, analysed as the server does it."""
    number_of: dict[str, int] = {}
    lengths: list[int] = []
    terms: list[int] = []
    counts: list[int] = []
    sizes: list[int] = []
    for content in contents:
        found = Counter(words_of(content))
        lengths.append(found.total())
        sizes.append(len(found))
        terms.extend(number_of.setdefault(word, len(number_of)) for word in found)
        counts.extend(found.values())
    words = sorted(number_of, key=lambda word: word.encode())
    place_of = np.empty(len(words), np.int64)
    place_of[[number_of[word] for word in words]] = np.arange(len(words))
    places = place_of[np.array(terms, np.int64)]
    documents = np.repeat(np.arange(len(lengths)), sizes)
    order = np.argsort(places, kind="stable")
    return WordsFile(
        "\n".join(words).encode(),
        _postings(places[order], documents[order], np.array(counts, np.int64)[order], len(words), lengths),
        sum(lengths),
    )


def norms_of(lengths: Sequence[int]) -> NDArray[np.uint8]:
    """Lengths as tantivy keeps them: 3 bits and an exponent, rounded down."""
    known = [*range(_EXACT), *(24 + ((8 + code % 8) << (code // 8 + 1)) for code in range(256 - _EXACT))]
    return (np.searchsorted(np.array(known), np.array(lengths, np.int64), side="right") - 1).astype(np.uint8)


def _postings(
    places: NDArray[np.int64],
    documents: NDArray[np.int64],
    counts: NDArray[np.int64],
    words: int,
    lengths: Sequence[int],
) -> bytes:
    """The file; one posting (word, document, count) an item, by word and then by document."""
    sizes = np.bincount(places, minlength=words)
    starts = np.cumsum(sizes) - sizes
    distances = np.diff(documents, prepend=0)
    distances[starts] = documents[starts]
    once = counts == 1
    # Three columns of numbers for each posting, of which a mask says which are written.
    numbers = np.stack([np.zeros_like(counts), 2 * distances + once, counts], 1)
    written = np.stack([np.zeros_like(once), np.ones_like(once), ~once], 1)
    numbers[starts, 0], written[starts, 0] = sizes, True
    values = numbers[written]
    widths = np.maximum(1, np.ceil(np.log2(values + 1) / 7).astype(np.int64))
    of_word = np.repeat(places, 3).reshape(-1, 3)[written]
    spans = np.bincount(of_word, weights=widths, minlength=words).astype("<u4")
    head = np.array([words, len(lengths)], "<u4").tobytes()
    return head + spans.tobytes() + norms_of(lengths).tobytes() + _varints(values, widths)


def _varints(values: NDArray[np.int64], widths: NDArray[np.int64]) -> bytes:
    """Seven bits a byte, the low ones first; the eighth says that more follow."""
    ends = np.cumsum(widths)
    out = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    for byte in range(int(widths.max(initial=0))):
        there = widths > byte
        more = np.where(widths[there] > byte + 1, 0x80, 0)
        out[(ends - widths)[there] + byte] = ((values[there] >> (7 * byte)) & 0x7F) | more
    return out.tobytes()
