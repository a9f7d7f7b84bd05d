"""PDF: the text of the pages, the bookmarks as headings. PDFium runs no script and fetches nothing."""

from itertools import islice
from typing import Any

from freemvmt.data.documents import Heading, Outline
from freemvmt.data.files.content import MAX_CHARACTERS, Blocks, FileContent, UnreadableError, one_line
from freemvmt.runtime.optional import require

MAX_PAGES = 5_000
MAX_BOOKMARKS = 10_000


def read_pdf(content: bytes) -> FileContent:
    """A PDF file. Its title is that of its properties."""
    library = require("pypdfium2")
    try:
        document = library.PdfDocument(content)
    except library.PdfiumError as error:
        encrypted = "password" in str(error).lower()
        raise UnreadableError("it is encrypted" if encrypted else "it is no sound PDF file") from error
    try:
        return _content_of(document)
    except library.PdfiumError as error:
        raise UnreadableError("it is no sound PDF file") from error
    finally:
        document.close()


def _content_of(document: Any) -> FileContent:
    if len(document) > MAX_PAGES:
        raise UnreadableError(f"it has {len(document):,} pages, more than {MAX_PAGES:,}")
    blocks = Blocks()
    for number in range(len(document)):
        blocks.add_page(_text_of(document, number))
    text = blocks.text()
    if not text.strip():
        raise UnreadableError("it has no text: its pages are pictures, or blank")
    title = one_line(document.get_metadata_value("Title"))
    return FileContent(text, title, Outline(_headings_of(document, text, blocks.pages), tuple(blocks.pages)))


def _text_of(document: Any, number: int) -> str:
    """The text of a page. A word that a hyphen divides at the end of a line is joined."""
    page = document[number]
    try:
        text_page = page.get_textpage()
        try:
            if text_page.count_chars() > MAX_CHARACTERS:
                raise UnreadableError(f"a page has more than {MAX_CHARACTERS:,} characters")
            text: str = text_page.get_text_range()
        finally:
            text_page.close()
    finally:
        page.close()
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return text.replace("\ufffe\n", "").replace("\ufffe", "").strip()


def _headings_of(document: Any, text: str, pages: list[int]) -> tuple[Heading, ...]:
    """The bookmarks, each where its title stands on its page, or where its page begins."""
    headings: list[Heading] = []
    for bookmark in islice(document.get_toc(), MAX_BOOKMARKS):
        destination, title = bookmark.get_dest(), one_line(bookmark.get_title())
        page = destination.get_index() if destination is not None else None
        if title and page is not None and 0 <= page < len(pages):
            end = pages[page + 1] if page + 1 < len(pages) else len(text)
            place = text.find(title, pages[page], end)
            headings.append(Heading(pages[page] if place < 0 else place, bookmark.level + 1, title))
    return tuple(sorted(headings, key=lambda heading: heading.start))
