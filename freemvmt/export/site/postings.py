"""The inverted index of a site, for BM25 in the browser with the same scores as tantivy.

    words         the distinct words, sorted, one a line
    postings      uint32: number of words, number of documents; uint32 (words,): size in bytes of each word's list;
                  uint8 (documents,): document lengths; then one list for each word, of varints: the number of
                  documents, then for each document 2 * d + 1 if the word occurs once in it, else 2 * d and the
                  number of occurrences. d is the distance to the document before (for the first, its number).

A document length is rounded to one byte, as in tantivy, so that the scores are the same.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from freemvmt.search.index.analysis import words_of

_EXACT_BELOW = 40  # lengths below this are exact


@dataclass(frozen=True, eq=False)
class WordsFile:
    """The two files, and ``tokens``, the number of words in all documents, repetitions included."""

    words: bytes
    postings: bytes
    tokens: int


def words_file(contents: Iterable[str]) -> WordsFile:
    """The inverted index of ``contents``, with the word analysis of the server."""
    number_of: dict[str, int] = {}
    lengths: list[int] = []
    terms: list[int] = []
    counts: list[int] = []
    sizes: list[int] = []
    for content in contents:
        word_counts = Counter(words_of(content))
        lengths.append(word_counts.total())
        sizes.append(len(word_counts))
        terms.extend(number_of.setdefault(word, len(number_of)) for word in word_counts)
        counts.extend(word_counts.values())
    words = sorted(number_of, key=lambda word: word.encode())
    position_of = np.empty(len(words), np.int64)
    position_of[[number_of[word] for word in words]] = np.arange(len(words))
    positions = position_of[np.array(terms, np.int64)]
    documents = np.repeat(np.arange(len(lengths)), sizes)
    order = np.argsort(positions, kind="stable")
    return WordsFile(
        "\n".join(words).encode(),
        _postings(positions[order], documents[order], np.array(counts, np.int64)[order], len(words), lengths),
        sum(lengths),
    )


def norms_of(lengths: Sequence[int]) -> NDArray[np.uint8]:
    """Document lengths as one byte, as in tantivy: a mantissa of 3 bits and an exponent, rounded down."""
    levels = [*range(_EXACT_BELOW), *(24 + ((8 + code % 8) << (code // 8 + 1)) for code in range(256 - _EXACT_BELOW))]
    return (np.searchsorted(np.array(levels), np.array(lengths, np.int64), side="right") - 1).astype(np.uint8)


def _postings(
    positions: NDArray[np.int64],
    documents: NDArray[np.int64],
    counts: NDArray[np.int64],
    words: int,
    lengths: Sequence[int],
) -> bytes:
    """The postings file; the arrays hold one posting (word, document, count) an item, sorted by word and document."""
    sizes = np.bincount(positions, minlength=words)
    starts = np.cumsum(sizes) - sizes
    distances = np.diff(documents, prepend=0)
    distances[starts] = documents[starts]
    once = counts == 1
    # Each posting has up to three numbers: size of the list, distance, count. The mask selects those to write.
    numbers = np.stack([np.zeros_like(counts), 2 * distances + once, counts], 1)
    is_written = np.stack([np.zeros_like(once), np.ones_like(once), ~once], 1)
    numbers[starts, 0], is_written[starts, 0] = sizes, True
    values = numbers[is_written]
    widths = np.maximum(1, np.ceil(np.log2(values + 1) / 7).astype(np.int64))
    of_word = np.repeat(positions, 3).reshape(-1, 3)[is_written]
    spans = np.bincount(of_word, weights=widths, minlength=words).astype("<u4")
    header = np.array([words, len(lengths)], "<u4").tobytes()
    return header + spans.tobytes() + norms_of(lengths).tobytes() + _varints(values, widths)


def _varints(values: NDArray[np.int64], widths: NDArray[np.int64]) -> bytes:
    """Varints: seven bits a byte, low bits first; the eighth bit is set if more bytes follow."""
    ends = np.cumsum(widths)
    out = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    for byte in range(int(widths.max(initial=0))):
        has_byte = widths > byte
        more = np.where(widths[has_byte] > byte + 1, 0x80, 0)
        out[(ends - widths)[has_byte] + byte] = ((values[has_byte] >> (7 * byte)) & 0x7F) | more
    return out.tobytes()
