"""Read a corpus by its name: a file, a folder, or the docstrings of the installed packages."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from freemvmt.config import FolderConfig
from freemvmt.data.documents import Document, unchecked_document
from freemvmt.data.files.report import FolderReport
from freemvmt.data.readers import pydocs
from freemvmt.data.readers.pydocs import Docstring
from freemvmt.data.records import corpus_file, duplicate_record_error, is_folder_of_files, read_records
from freemvmt.data.values import first_duplicate
from freemvmt.errors import UserError

_ALL_FILES = FolderConfig()


def read_corpus(name: str, config: FolderConfig = _ALL_FILES, report: FolderReport | None = None) -> Iterator[Document]:
    """The documents of a corpus, one at a time.

    ``name`` is ``pydocs``, a BEIR folder, a folder with MS MARCO's ``collection.tsv``, a folder of files, or a file
    that ``read_records`` reads. ``config`` and ``report`` are those of ``read_folder``. Raises ``UserError`` with the
    wrong line.
    """
    if name == "pydocs":
        yield from _pydocs()
        return
    if is_folder_of_files(Path(name)):
        from freemvmt.data.files.folder import read_folder

        yield from read_folder(Path(name), config, report or FolderReport())
        return
    for record in read_records(corpus_file(Path(name))):
        yield unchecked_document(record.id, record.text, record.title, record.metadata)


def read_documents_once(
    name: str, config: FolderConfig = _ALL_FILES, report: FolderReport | None = None
) -> list[Document]:
    """All documents of a corpus as a list. Raises ``UserError`` with both places if two have the same id."""
    documents = list(read_corpus(name, config, report))
    if (duplicate := first_duplicate(document.id for document in documents)) is not None:
        raise duplicate_document_error(name, duplicate)
    return documents


def duplicate_document_error(name: str, id: str) -> UserError:
    """The error for two documents with the same ``id`` in the corpus ``name``. It names both places."""
    return duplicate_record_error(corpus_file(Path(name)), id)


def ids_of(docstrings: Iterable[Docstring]) -> list[str]:
    """The id of each docstring: its name, or ``name#2`` for the second docstring of that name."""
    counts: Counter[str] = Counter()
    ids: list[str] = []
    for name in (docstring.name for docstring in docstrings):
        counts[name] += 1
        ids.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return ids


def _pydocs() -> Iterator[Document]:
    """The docstrings of the installed packages."""
    docstrings = pydocs.sample(None, 0)
    for id, docstring in zip(ids_of(docstrings), docstrings, strict=True):
        yield Document(id, f"{docstring.summary} {docstring.body}", docstring.name, {"package": docstring.package})
