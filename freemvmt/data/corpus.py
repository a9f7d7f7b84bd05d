"""A corpus by its name: a file or folder of documents, or the docstrings that are installed here."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from freemvmt.data.documents import Document, stored_document
from freemvmt.data.load import read_pydocs
from freemvmt.data.readers.pydocs import Docstring
from freemvmt.data.records import corpus_file, read_records, repeated_record
from freemvmt.data.values import first_repeat
from freemvmt.errors import UserError


def read_corpus(name: str) -> Iterator[Document]:
    """The documents of ``pydocs``, a BEIR folder, MS MARCO's ``collection.tsv``, or a file that ``read_records`` reads;
    one after the other, never all at once.

    Raises ``UserError`` with the line that is wrong.
    """
    if name == "pydocs":
        yield from _pydocs()
        return
    for record in read_records(corpus_file(Path(name))):
        yield stored_document(record.id, record.text, record.title, record.metadata)


def read_distinct(name: str) -> list[Document]:
    """All documents of a corpus at once. Raises ``UserError``, with both places, for an id that stands twice."""
    documents = list(read_corpus(name))
    if (twice := first_repeat(document.id for document in documents)) is not None:
        raise repeated_document(name, twice)
    return documents


def repeated_document(name: str, id: str) -> UserError:
    """The refusal of the corpus ``name``, in which a document's ``id`` stands twice: it names both places."""
    return repeated_record(corpus_file(Path(name)), id)


def ids_of(docstrings: Iterable[Docstring]) -> list[str]:
    """Their names; where a name is defined again, the second is ``name#2``."""
    times: Counter[str] = Counter()
    ids: list[str] = []
    for name in (docstring.name for docstring in docstrings):
        times[name] += 1
        ids.append(name if times[name] == 1 else f"{name}#{times[name]}")
    return ids


def _pydocs() -> Iterator[Document]:
    """The docstrings installed here, known by their names."""
    docs = read_pydocs(None, 0)
    for id, doc in zip(ids_of(docs), docs, strict=True):
        yield Document(id, f"{doc.summary} {doc.body}", doc.name, {"package": doc.package})
