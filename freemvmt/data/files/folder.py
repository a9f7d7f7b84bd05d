"""Reads the documents of a folder: a document for each file."""

import datetime
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from freemvmt.config import FolderConfig
from freemvmt.data.documents import Document
from freemvmt.data.files.content import FileContent, UnreadableError
from freemvmt.data.files.docx import read_docx
from freemvmt.data.files.html import read_html
from freemvmt.data.files.markdown import read_markdown
from freemvmt.data.files.notebook import read_notebook
from freemvmt.data.files.pdf import read_pdf
from freemvmt.data.files.report import FolderReport
from freemvmt.data.files.rst import read_rst
from freemvmt.data.files.text import read_python, read_text
from freemvmt.data.files.walk import FoundFile, Walk, read_bytes
from freemvmt.data.lines import conversion_hint
from freemvmt.errors import UserError
from freemvmt.runtime.console import shorten

Reader = Callable[[bytes], FileContent]

# Which ending is read how. Data (JSON, CSV, XML) is not: it has no text to search as it is.
_PLAIN = ".txt .text .adoc .org .tex"
_CODE = (
    ".js .mjs .cjs .jsx .ts .tsx .java .kt .scala .c .h .cc .cpp .cxx .hpp .hh .cs .go .rs .rb .php .swift .lua .pl .r "
    ".jl .sh .bash .sql .toml .yaml .yml"
)
READERS: dict[str, Reader] = {
    **dict.fromkeys((".md", ".markdown", ".mdx"), read_markdown),
    **dict.fromkeys((".html", ".htm", ".xhtml"), read_html),
    **dict.fromkeys((*_PLAIN.split(), *_CODE.split()), read_text),
    **dict.fromkeys((".py", ".pyi"), read_python),
    ".rst": read_rst,
    ".pdf": read_pdf,
    ".docx": read_docx,
    ".ipynb": read_notebook,
}
_MAX_HEADINGS = 32  # in the metadata
_MAX_FOLDERS = 16  # the same
_MAX_NAME = 120  # characters of a name in a report
_DATA_FILES = (".jsonl", ".tsv", ".parquet")


def read_folder(
    folder: Path, config: FolderConfig, report: FolderReport, known: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Document]:
    """The documents of the files in ``folder`` and below, sorted by name; what is passed over goes to ``report``.

    ``known`` gives the time of the last change of files that were read before, as in the metadata. A file that has not
    changed since is not read.

    Raises ``UserError`` if no file can be read, or if one cannot and ``config.strict``.
    """

    if folder.resolve() == Path(folder.resolve().anchor):
        raise UserError(f"{folder} is the root of a file system; name a folder of documents below it")

    def pass_over(name: str, reason: str) -> None:
        name = _printable(name)
        if config.strict:
            raise UserError(f"{folder}: {name} cannot be read: {reason}; mend it, --exclude it, or leave out --strict")
        report.pass_over(name, reason)

    for file in Walk(folder, config, READERS, pass_over):
        report.files += 1
        if file.name in known and known[file.name] == _modified(file):
            report.present.add(file.name)
            continue
        try:
            document = _document_of(file)
        except UnreadableError as error:
            pass_over(file.name, str(error))
            if file.name in known:
                report.present.add(file.name)
            continue
        if document is None:
            report.empty += 1
            continue
        report.present.add(file.name)
        yield document
    if not report.present:
        raise _nothing_to_read(folder, config, report)


def _document_of(file: FoundFile) -> Document | None:
    """The document of a file; None if it has no text."""
    content, changed = read_bytes(file.path)
    made = READERS[file.ending](content)
    if not made.text.strip():
        return None
    metadata: dict[str, Any] = {"path": file.name, "type": file.ending[1:]}
    *parts, own_name = file.name.split("/")
    if folders := ["/".join(parts[: depth + 1]) for depth in range(min(len(parts), _MAX_FOLDERS))]:
        metadata["folder"] = folders
    if date := _date_of(changed):
        metadata["modified"] = date
    if made.outline.headings:
        metadata["headings"] = [heading.title for heading in made.outline.headings[:_MAX_HEADINGS] if heading.title]
    if made.outline.pages:
        metadata["pages"] = len(made.outline.pages)
    try:
        return Document(file.name, made.text, made.title or own_name, metadata, made.outline)
    except UserError as error:
        raise UnreadableError(str(error).partition(";")[0]) from error


def _modified(file: FoundFile) -> str | None:
    """The time of the last change of a file, as in the metadata; None if there is none."""
    try:
        return _date_of(os.lstat(file.path).st_mtime_ns)
    except OSError:
        return None


def _date_of(nanoseconds: int) -> str | None:
    """A time as ISO 8601 in UTC; None for one that no calendar has."""
    try:
        time = datetime.datetime.fromtimestamp(nanoseconds // 10**9, datetime.UTC)
        return f"{time.isoformat()[:19]}.{nanoseconds % 10**9 // 1000:06d}Z"
    except (ValueError, OverflowError, OSError):
        return None


def _nothing_to_read(folder: Path, config: FolderConfig, report: FolderReport) -> UserError:
    """The error for a folder without a document. It says what the user may have meant."""
    if lines := report.lines():
        return UserError(f"{folder} holds no file that can be read ({', '.join(lines)}); give another folder")
    if config.include or config.exclude:
        return UserError(f"{folder} holds no file to read that --include and --exclude leave; give other globs")
    hint = conversion_hint(folder) or "give the file of the documents, or a folder of .md, .html, .pdf, .txt, …"
    if data := next((file.name for file in sorted(folder.iterdir()) if file.suffix in _DATA_FILES), ""):
        hint = f"give a file of documents, such as {data}"
    return UserError(f"{folder} holds no corpus.jsonl, no collection.tsv, and no file to read; {hint}")


def _printable(name: str) -> str:
    """A name for a line on a terminal: escaped if it has control characters or is not UTF-8, cut if it is long."""
    return shorten(name if name.isprintable() else ascii(name), _MAX_NAME)
