"""Why a document matched: its cosine with the query, split exactly over words.

An average tower gives a document the vector d = sum of t / n over its n token vectors t (after the linear head), scaled
to length 1. The cosine with a query q of length 1 is therefore the sum over tokens of q . t / (n |d|). The split is
exact and needs no gradient: the shares of all words add up to the score. Over a transformer's documents the query's
vector is split in the same way, and the words of the document have no share.
"""

from collections.abc import Callable
from dataclasses import dataclass

from freemvmt.config import TowerName
from freemvmt.data.documents import Document
from freemvmt.search.encoder import Encoder, to_numpy
from freemvmt.search.index.ranking import Vectors


@dataclass(frozen=True)
class Piece:
    """A part of a text: a word with its share of the score, or the characters between two words, with share 0."""

    text: str
    share: float


@dataclass(frozen=True)
class Explanation:
    """The score of a document, split over its words, or over those of the query if its tower cannot be split.

    ``score`` is the cosine: the sum of the shares of all pieces. The pieces of ``title``, ``text`` and ``query``,
    joined, are the whole title, text and query.
    """

    id: str
    score: float
    title: list[Piece]
    text: list[Piece]
    query: list[Piece]


def explain(model: Encoder, query: str, document: Document, vector: Callable[[], Vectors]) -> Explanation:
    """How much each word adds to the cosine of ``document`` and ``query``; words that the tower ignores add 0.

    ``vector`` returns that of the document, (dim,); it is called only if the query is split. ``UserError`` if neither
    tower can be split.
    """
    if model.split_side == "query":
        spans = _shares(model, query, vector(), "query")
        title, text = ([Piece(part, 0.0)] if part else [] for part in (document.title, document.text))
        return Explanation(document.id, _total(spans), title, text, _pieces(query, spans))
    spans = _shares(model, document.content, to_numpy(model.encode_queries([query]))[0], "document")
    boundary = len(document.title) + 1 if document.title else 0
    title_spans = [(start, stop, share) for start, stop, share in spans if stop <= boundary]
    text_spans = [(start - boundary, stop - boundary, share) for start, stop, share in spans if stop > boundary]
    pieces = _pieces(document.title, title_spans), _pieces(document.text, text_spans)
    return Explanation(document.id, _total(spans), *pieces, [Piece(query, 0.0)] if query else [])


def _shares(model: Encoder, content: str, vector: Vectors, side: TowerName) -> list[tuple[int, int, float]]:
    """(start, stop, share) of each word of ``content``, whose tower is split; ``vector`` is that of the other side."""
    words, tokens = model.tokenizer.words(content)
    split = model.split_queries if side == "query" else model.split_documents
    shares = (to_numpy(split(tokens)) @ vector).tolist()  # of each token
    spans: list[tuple[int, int, float]] = []
    first = 0
    for start, stop, count in words:
        spans.append((start, stop, sum(shares[first : first + count])))
        first += count
    return spans


def _total(spans: list[tuple[int, int, float]]) -> float:
    return float(sum(share for _, _, share in spans))


def _pieces(text: str, words: list[tuple[int, int, float]]) -> list[Piece]:
    """The whole ``text`` as pieces; ``words`` are (start, stop, share)."""
    pieces, end = [], 0
    for start, stop, share in words:
        if start > end:
            pieces.append(Piece(text[end:start], 0.0))
        pieces.append(Piece(text[start:stop], share))
        end = stop
    if end < len(text):
        pieces.append(Piece(text[end:], 0.0))
    return pieces
