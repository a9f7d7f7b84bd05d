"""Why a document matched: its cosine with the query, split exactly over its words.

A tower that averages gives a document the vector d = sum of t / n over its n tokens t, behind a linear head, made to
length 1. Its cosine with a query q of length 1 is therefore a sum over tokens of q . t / (n |d|): no approximation,
no gradient, and what the shares of a text's words add up to is its score.
"""

from dataclasses import dataclass

from freemvmt.data.documents import Document
from freemvmt.search.encoder import Encoder, plain


@dataclass(frozen=True)
class Piece:
    """A stretch of a text: a word and its share of the score, or what stands between words, which has none."""

    text: str
    share: float


@dataclass(frozen=True)
class Explanation:
    """``score`` is the cosine; the shares of all pieces add up to it. The pieces joined are the title and the text."""

    id: str
    score: float
    title: list[Piece]
    text: list[Piece]


def explain(model: Encoder, query: str, document: Document) -> Explanation:
    """How much each word of ``document`` adds to its cosine with ``query``; what the tower does not read adds 0."""
    words, tokens = model.tokenizer.words(document.content)
    vectors = plain(model.split_documents(tokens))  # (tokens, dim), their sum is the document's vector
    shares = (vectors @ plain(model.encode_queries([query]))[0]).tolist()
    pieces: list[tuple[int, int, float]] = []
    first = 0
    for start, stop, count in words:
        pieces.append((start, stop, sum(shares[first : first + count])))
        first += count
    boundary = len(document.title) + 1 if document.title else 0
    title = [(start, stop, share) for start, stop, share in pieces if stop <= boundary]
    text = [(start - boundary, stop - boundary, share) for start, stop, share in pieces if stop > boundary]
    return Explanation(document.id, float(sum(shares)), _joined(document.title, title), _joined(document.text, text))


def _joined(text: str, words: list[tuple[int, int, float]]) -> list[Piece]:
    """The whole of ``text`` as pieces."""
    pieces, end = [], 0
    for start, stop, share in words:
        if start > end:
            pieces.append(Piece(text[end:start], 0.0))
        pieces.append(Piece(text[start:stop], share))
        end = stop
    if end < len(text):
        pieces.append(Piece(text[end:], 0.0))
    return pieces
