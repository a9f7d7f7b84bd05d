"""Word documents (.docx): paragraphs, headings and tables, in order."""

import io
import re
import zipfile
from typing import Any

from freemvmt.data.files.content import Blocks, FileContent, UnreadableError, first_title, one_line
from freemvmt.runtime.optional import require

MAX_UNPACKED_BYTES = 128 * 2**20  # of all files in the archive
MAX_FILES = 10_000  # in the archive

_OLD_OFFICE = b"\xd0\xcf\x11\xe0"  # the container of .doc, and of an encrypted .docx
_DEFAULT_TITLE = "Word Document"  # what python-docx calls a document without properties
_HEADING = re.compile(r"Heading ([1-9])")


def read_docx(content: bytes) -> FileContent:
    """A Word document. Its title is the paragraph in the style Title, that of its properties, or its first heading."""
    _check_archive(content)
    library = require("docx")
    try:
        return _content_of(library.Document(io.BytesIO(content)))
    except UnreadableError:
        raise
    except Exception as error:  # a damaged file fails anywhere in zipfile, lxml and python-docx
        raise UnreadableError("it is no sound Word document") from error


def _check_archive(content: bytes) -> None:
    """Raise ``UnreadableError`` unless ``content`` is a ZIP archive that is small when it is unpacked."""
    if content.startswith(_OLD_OFFICE):
        raise UnreadableError("it is encrypted, or an old .doc file")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            sizes = [file.file_size for file in archive.infolist()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise UnreadableError("it is no sound Word document") from error
    if len(sizes) > MAX_FILES or sum(sizes) > MAX_UNPACKED_BYTES:
        raise UnreadableError(f"it unpacks to {sum(sizes) / 2**20:,.0f} MB in {len(sizes):,} files")


def _content_of(document: Any) -> FileContent:
    blocks, title = Blocks(), ""
    elements = document.element.body.inner_content_elements
    for block, element in zip(document.iter_inner_content(), elements, strict=True):
        if hasattr(block, "rows"):
            rows = ("\t".join(_cells_of(row)) for row in element.tr_lst)
            if table := "\n".join(row for row in rows if row.strip()):
                blocks.add(table)
        elif block.text.strip():
            style = block.style.name or ""
            heading = _HEADING.match(style)
            if heading or style == "Title":
                blocks.add_heading(block.text, int(heading[1]) if heading else 1)
                title = title or ("" if heading else blocks.headings[-1].title)
            else:
                blocks.add(block.text)
    if not title and (title := one_line(document.core_properties.title or "")) == _DEFAULT_TITLE:
        title = ""
    title = title or first_title(blocks.headings)
    return FileContent(blocks.text(), title, blocks.outline)


def _cells_of(row: Any) -> list[str]:
    """The texts of a row's cells, as they are in the file: a merged cell is one, however many columns it claims."""
    return [" ".join(" ".join(paragraph.text for paragraph in cell.p_lst).split()) for cell in row.tc_lst]
