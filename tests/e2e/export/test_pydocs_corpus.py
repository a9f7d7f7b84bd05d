"""The docstrings of the installed packages as a corpus."""

from functools import partial

import pytest

from freemvmt.data.corpus import read_corpus
from freemvmt.data.readers import pydocs


def test_pydocs_are_documents_with_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydocs, "read", partial(pydocs.read, ("numpy", "networkx", "click"), workers=1))
    docs = list(read_corpus("pydocs"))
    known = pydocs.sample(None, 0)
    assert len(docs) == len(known) == len({document.id for document in docs}) > 1000
    for document, doc in zip(docs, known, strict=True):
        assert document.id == doc.name or document.id.startswith(f"{doc.name}#")
        assert document.title == doc.name
        assert document.content == f"{doc.name} {doc.summary} {doc.body}"
        assert document.metadata == {"package": doc.package}
