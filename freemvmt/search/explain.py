"""Why a document matched: its cosine with the query, split exactly over its words.

An average tower gives a document the vector d = sum of t / n over its n token vectors t (after the linear head), scaled
to length 1. The cosine with a query q of length 1 is therefore the sum over tokens of q . t / (n |d|). The split is
exact and needs no gradient: the shares of all words add up to the score.
"""

from dataclasses import dataclass

from freemvmt.data.documents import Document
from freemvmt.search.encoder import Encoder, to_numpy


@dataclass(frozen=True)
class Piece:
    """A part of a text: a word with its share of the score, or the characters between two words, with share 0."""

    text: str
    share: float


@dataclass(frozen=True)
class Explanation:
    """The score of a document, split over its words.

    ``score`` is the cosine: the sum of the shares of all pieces. The pieces of ``title``, joined, are the whole title,
    and those of ``text`` the whole text.
    """

    id: str
    score: float
    title: list[Piece]
    text: list[Piece]


def explain(model: Encoder, query: str, document: Document) -> Explanation:
    """How much each word of ``document`` adds to its cosine with ``query``; words that the tower ignores add 0."""
    words, tokens = model.tokenizer.words(document.content)
    vectors = to_numpy(model.split_documents(tokens))  # (tokens, dim), their sum is the document's vector
    shares = (vectors @ to_numpy(model.encode_queries([query]))[0]).tolist()
    spans: list[tuple[int, int, float]] = []
    first = 0
    for start, stop, count in words:
        spans.append((start, stop, sum(shares[first : first + count])))
        first += count
    boundary = len(document.title) + 1 if document.title else 0
    title = [(start, stop, share) for start, stop, share in spans if stop <= boundary]
    text = [(start - boundary, stop - boundary, share) for start, stop, share in spans if stop > boundary]
    return Explanation(document.id, float(sum(shares)), _pieces(document.title, title), _pieces(document.text, text))


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
