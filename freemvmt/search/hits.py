"""A ranking, which is numbers, becomes answers with their texts."""

from dataclasses import dataclass, field

import numpy as np

from freemvmt.data.documents import Metadata
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.stores.base import View
from freemvmt.search.stores.filters import Unseen


@dataclass(frozen=True)
class Added:
    """How many documents were new, how many took the place of one with their id, and what no filter sees of them."""

    added: int
    replaced: int
    unseen: Unseen = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Hit:
    """One answer.

    ``score`` is a cosine (dense), a BM25 score, or a fused score between 0 and 1 (hybrid). ``dense`` and ``bm25`` are
    its parts: the cosine, and the BM25 score; None where that side was not asked or did not rank the document.
    """

    id: str
    score: float
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=dict)
    dense: float | None = None
    bm25: float | None = None


def with_title(hit: Hit) -> Metadata:
    """A hit's metadata, and its title where that has one: as ``title``, or, where the metadata have their own, as
    ``two_towers_title``."""
    if not hit.title:
        return hit.metadata
    return {"two_towers_title" if "title" in hit.metadata else "title": hit.title} | hit.metadata


def hits_of(view: View, ranking: Ranking, parts: dict[str, Ranking], row: int) -> list[Hit]:
    """The hits of row ``row`` of ``ranking``; ``parts`` are the rankings that it was made from, by side."""
    kept = ranking.documents[row] >= 0
    numbers = ranking.documents[row][kept].tolist()
    scores = {name: _scores_of(part, row, numbers) for name, part in parts.items()}
    nothing = [None] * len(numbers)
    return [
        Hit(document.id, score, document.text, document.title, document.metadata, dense, bm25)
        for document, score, dense, bm25 in zip(
            view.documents(numbers),
            ranking.scores[row][kept].tolist(),
            scores.get("dense", nothing),
            scores.get("bm25", nothing),
            strict=True,
        )
    ]


def _scores_of(part: Ranking, row: int, numbers: list[int]) -> list[float | None]:
    """The scores that ``part`` gives to those documents; None where it does not rank one."""
    documents, scores = part.documents[row], part.scores[row]
    places = [np.flatnonzero(documents == number) for number in numbers]
    return [float(scores[place[0]]) if len(place) else None for place in places]
