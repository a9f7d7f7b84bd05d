"""Passages and vectors of documents that are added to a store."""

from collections.abc import Sequence

import numpy as np

from freemvmt.data.documents import Document
from freemvmt.data.passages import Passage, Splitter, contents_of
from freemvmt.search.encoder import Encoder, to_numpy
from freemvmt.search.index.ranking import Vectors
from freemvmt.search.stores.base import View


def encode_new(
    model: Encoder, view: View, documents: Sequence[Document], tokens: int | None
) -> tuple[list[list[Passage]], Vectors]:
    """(the passages of each document, the vectors of all passages); ``tokens`` None leaves documents whole.

    A document that ``view`` has with the same title and text keeps its passages and vectors.
    """
    numbers = dict(zip(range(len(documents)), view.numbers_of([document.id for document in documents]), strict=True))
    known = {row: number for row, number in numbers.items() if number is not None}
    before = zip(known, view.documents(list(known.values())), strict=True)
    same = [row for row, old in before if (old.title, old.text) == (documents[row].title, documents[row].text)]
    places = {row: view.passages_of(known[row]) for row in same}
    new = [row for row in numbers if row not in places]
    fresh = [documents[row] for row in new]
    fresh_cuts = [[]] * len(fresh) if tokens is None else Splitter(model.tokenizer, tokens).split_all(fresh)
    cuts = dict(zip(new, fresh_cuts, strict=True)) | {
        row: [passage for passage in view.passages(place) if passage is not None] for row, place in places.items()
    }
    stored = view.vectors([number for place in places.values() for number in place])
    encoded = to_numpy(model.encode_documents(contents_of(fresh, fresh_cuts)))
    vectors: dict[int, Vectors] = {}
    for rows, block in ((same, stored), (new, encoded)):
        start = 0
        for row in rows:
            stop = start + max(1, len(cuts[row]))
            vectors[row], start = block[start:stop], stop
    return [cuts[row] for row in numbers], np.concatenate([vectors[row] for row in numbers]) if numbers else encoded
