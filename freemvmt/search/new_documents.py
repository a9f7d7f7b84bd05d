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
    cuts: list[list[Passage]] = [[] for _ in documents]
    vectors: list[Vectors] = [np.empty((0, 0), np.float32)] * len(documents)
    new = []
    for row, document in enumerate(documents):
        number = view.number_of(document.id)
        before = None if number is None else view.documents([number])[0]
        if number is None or before is None or (before.title, before.text) != (document.title, document.text):
            new.append(row)
            continue
        passages = view.passages_of(number)
        cuts[row] = [passage for passage in view.passages(passages) if passage is not None]
        vectors[row] = view.vectors(passages)
    fresh = [documents[row] for row in new]
    fresh_cuts = [[]] * len(fresh) if tokens is None else Splitter(model.tokenizer, tokens).split_all(fresh)
    encoded = to_numpy(model.encode_documents(contents_of(fresh, fresh_cuts)))
    start = 0
    for row, own in zip(new, fresh_cuts, strict=True):
        cuts[row], stop = own, start + max(1, len(own))
        vectors[row], start = encoded[start:stop], stop
    return cuts, np.concatenate(vectors) if vectors else encoded
