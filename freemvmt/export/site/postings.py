"""The inverted index of a site, in pieces, for BM25 in the browser with the same scores as tantivy.

A piece holds neighbours in the order of words, so a query fetches at most one piece a word:

    uint32: number of words; uint32 (words,): size in bytes of each word's list; the lists; the words, one a line

A list is of varints: the number of documents, then for each document 2 * d + 1 if the word occurs once in it, else
2 * d and the number of occurrences. d is the distance to the document before (for the first, its number). A document
is here what has a row in the index: a passage, or a document that is not cut.

A document length is rounded to one byte, as in tantivy, so that the scores are the same.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from freemvmt.export.site.texts import PIECE_BYTES
from freemvmt.search.index.analysis import words_of

_EXACT_BELOW = 40  # lengths below this are exact


@dataclass(frozen=True, eq=False)
class WordIndex:
    """The pieces, and the first word of each.

    ``lengths`` has a byte a document; ``tokens`` is the number of words in all documents, repetitions included.
    """

    pieces: list[bytes]
    firsts: list[str]
    lengths: bytes
    tokens: int


def word_index(contents: Iterable[str]) -> WordIndex:
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
    words = sorted(number_of, key=lambda word: word.encode("utf-16-be"))  # the order of JavaScript
    position_of = np.empty(len(words), np.int64)
    position_of[[number_of[word] for word in words]] = np.arange(len(words))
    positions = position_of[np.array(terms, np.int64)]
    documents = np.repeat(np.arange(len(lengths)), sizes)
    order = np.argsort(positions, kind="stable")
    spans, lists = _lists(positions[order], documents[order], np.array(counts, np.int64)[order], len(words))
    pieces, firsts = _pieces(words, spans, lists)
    return WordIndex(pieces, firsts, norms_of(lengths).tobytes(), sum(lengths))


def norms_of(lengths: Sequence[int]) -> NDArray[np.uint8]:
    """Document lengths as one byte, as in tantivy: a mantissa of 3 bits and an exponent, rounded down."""
    levels = [*range(_EXACT_BELOW), *(24 + ((8 + code % 8) << (code // 8 + 1)) for code in range(256 - _EXACT_BELOW))]
    return (np.searchsorted(np.array(levels), np.array(lengths, np.int64), side="right") - 1).astype(np.uint8)


def _pieces(words: Sequence[str], spans: NDArray[np.int64], lists: bytes) -> tuple[list[bytes], list[str]]:
    """The pieces and their first words; ``spans`` are the sizes of the words' ``lists``, which follow one another."""
    names = np.array([len(word.encode()) + 1 for word in words], np.int64)
    ends = np.cumsum(spans)
    _, firsts = np.unique((np.cumsum(spans + names) - spans - names) // PIECE_BYTES, return_index=True)
    bounds = [*firsts.tolist(), len(words)]
    pieces = []
    for first, stop in itertools.pairwise(bounds):
        header = np.array([stop - first, *spans[first:stop]], "<u4").tobytes()
        own = lists[ends[first] - spans[first] : ends[stop - 1]]
        pieces.append(header + own + "\n".join(words[first:stop]).encode())
    return pieces, [words[first] for first in bounds[:-1]]


def _lists(
    positions: NDArray[np.int64], documents: NDArray[np.int64], counts: NDArray[np.int64], words: int
) -> tuple[NDArray[np.int64], bytes]:
    """The size of each word's list, and the lists; the arrays hold one posting (word, document, count) an item, sorted
    by word and document."""
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
    spans = np.bincount(of_word, weights=widths, minlength=words).astype(np.int64)
    return spans, _varints(values, widths)


def _varints(values: NDArray[np.int64], widths: NDArray[np.int64]) -> bytes:
    """Varints: seven bits a byte, low bits first; the eighth bit is set if more bytes follow."""
    ends = np.cumsum(widths)
    out = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    for byte in range(int(widths.max(initial=0))):
        has_byte = widths > byte
        more = np.where(widths[has_byte] > byte + 1, 0x80, 0)
        out[(ends - widths)[has_byte] + byte] = ((values[has_byte] >> (7 * byte)) & 0x7F) | more
    return out.tobytes()
