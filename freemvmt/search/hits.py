"""Hits: the documents of a ranking, with their texts and scores; of a long document, with its best passage."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from freemvmt.data.documents import Document, Metadata
from freemvmt.data.passages import Passage
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.stores.base import View
from freemvmt.search.stores.filters import IgnoredValues


@dataclass(frozen=True)
class AddedCounts:
    """The counts of an ``add``.

    ``added`` documents had a new id; ``replaced`` documents took the place of one with the same id. ``unseen`` counts
    the documents with metadata that no filter can use: field -> description of the values -> documents. ``deleted``
    documents went in the same change.
    """

    added: int
    replaced: int
    unseen: IgnoredValues = field(default_factory=dict, compare=False)
    deleted: int = 0


@dataclass(frozen=True)
class Place:
    """Where a passage stands in its document.

    ``trail`` holds the headings above it, ``page`` its page, if the document has such. ``lines`` are the numbers of its
    first and its last line, from 1; ``start`` and ``stop`` its characters in the document's text.
    """

    trail: str
    page: int | None
    lines: tuple[int, int]
    start: int
    stop: int

    def __str__(self) -> str:
        """The trail and the page, or else the lines: `Setup › Linux, page 3`."""
        first, last = self.lines
        where = f"page {self.page}" if self.page else f"lines {first}-{last}" if last > first else f"line {first}"
        return ", ".join(part for part in (self.trail, where) if part)


@dataclass(frozen=True)
class Hit:
    """One document found by a search.

    ``text`` is its text or, where it was too long to be read at once, its best passage, which stands at ``place``.

    ``score`` is a cosine (dense), a BM25 score, or a fused score between 0 and 1 (hybrid). ``dense`` is the cosine and
    ``bm25`` the BM25 score; each is None if that method was not used or did not rank the document. ``rerank`` is the
    score of a cross-encoder, and then ``score`` is too; None if none read the document.
    """

    id: str
    score: float
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict)
    dense: float | None = None
    bm25: float | None = None
    place: Place | None = None
    rerank: float | None = None


def hit_fields(hit: Hit) -> dict[str, Any]:
    """The fields of a hit for JSON; ``place`` and ``rerank`` only where they have a value."""
    fields = {
        "id": hit.id,
        "score": hit.score,
        "dense": hit.dense,
        "bm25": hit.bm25,
        "title": hit.title,
        "text": hit.text,
        "metadata": hit.metadata,
    }
    if hit.place is not None:
        fields["place"] = asdict(hit.place)
    return fields if hit.rerank is None else fields | {"rerank": hit.rerank}


def with_title(hit: Hit) -> Metadata:
    """The metadata of a hit, with its title, if it has one, as ``title``. If the metadata have their own ``title``, the
    hit's title is ``two_towers_title``."""
    if not hit.title:
        return hit.metadata
    return {"two_towers_title" if "title" in hit.metadata else "title": hit.title} | hit.metadata


def hits_of(view: View, ranking: Ranking, rankings: dict[str, Ranking], row: int) -> list[Hit]:
    """The hits of the query in row ``row`` of ``ranking``, which ranks passages; ``rankings`` are those it was fused
    from, by method."""
    is_hit = ranking.documents[row] >= 0
    numbers = ranking.documents[row][is_hit].tolist()
    scores = {name: _scores_of(side, row, numbers) for name, side in rankings.items()}
    no_scores = [None] * len(numbers)
    return [
        _hit(document, passage, score, dense, bm25)
        for document, passage, score, dense, bm25 in zip(
            view.documents(view.owners(np.array(numbers, np.int64)).tolist()),
            view.passages(numbers),
            ranking.scores[row][is_hit].tolist(),
            scores.get("dense", no_scores),
            scores.get("bm25", no_scores),
            strict=True,
        )
    ]


def _hit(document: Document, passage: Passage | None, score: float, dense: float | None, bm25: float | None) -> Hit:
    text, place = document.text, None
    if passage is not None:
        start, stop = passage.start, passage.stop
        first = 1 + text.count("\n", 0, start)
        lines = (first, first + text.count("\n", start, stop))
        place, text = Place(passage.trail, passage.page, lines, start, stop), text[start:stop]
    return Hit(document.id, score, text, document.title, document.metadata, dense, bm25, place)


def _scores_of(ranking: Ranking, row: int, numbers: list[int]) -> list[float | None]:
    """The scores of documents in row ``row`` of ``ranking``; None for a document that it does not rank."""
    equal = ranking.documents[row] == np.array(numbers, np.int64)[:, None]
    if not equal.size:
        return [None] * len(numbers)
    places = equal.argmax(axis=1)
    found, scores = equal[np.arange(len(numbers)), places].tolist(), ranking.scores[row, places].tolist()
    return [score if is_found else None for is_found, score in zip(found, scores, strict=True)]
