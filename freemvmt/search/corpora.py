"""A corpus by its name: a file or folder of documents, or the docstrings that are installed here."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from freemvmt.errors import UserError
from freemvmt.search.documents import Document, stored_document
from freemvmt.text.records import corpus_file, read_records, repeated_record
from freemvmt.text.sources import read_pydocs
from freemvmt.text.values import first_repeat


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


def _pydocs() -> Iterator[Document]:
    """The docstrings installed here, known by their names; where a name is defined twice, the second is ``name#2``."""
    times: Counter[str] = Counter()
    for doc in read_pydocs(None, 0):
        times[doc.name] += 1
        name = doc.name if times[doc.name] == 1 else f"{doc.name}#{times[doc.name]}"
        yield Document(name, f"{doc.summary} {doc.body}", doc.name, {"package": doc.package})
