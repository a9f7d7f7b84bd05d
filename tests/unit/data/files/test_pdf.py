"""PDF files, written by hand: text, title, pages, bookmarks, and files that are damaged."""

import pytest

from freemvmt.data.files import pdf
from freemvmt.data.files.content import UnreadableError
from freemvmt.data.files.pdf import read_pdf

from small_pdf import pdf_of


def test_pages_title_and_bookmarks() -> None:
    content = read_pdf(pdf_of(["Pumps move water", "", "Parts of a pump"], title="Manual", bookmarks=[("Parts", 2)]))
    assert content.text == "Pumps move water\n\n\n\nParts of a pump"
    assert content.title == "Manual"
    assert content.outline.pages == (0, 18, 20)
    assert [(one.level, one.title, one.start) for one in content.outline.headings] == [(1, "Parts", 20)]


def test_without_a_title_it_has_none() -> None:
    assert read_pdf(pdf_of(["words"])).title == ""


SOUND = pdf_of(["Pumps move water"])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no sound PDF"),
        (b"%PDF-1.4\nnothing", "no sound PDF"),
        (b"words", "no sound PDF"),
        (pdf_of(["", ""]), "no text"),
        (pdf_of(["words"], encrypted=True), "encrypted"),
    ],
)
def test_what_cannot_be_read_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(UnreadableError, match=why):
        read_pdf(content)


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "MAX_CHARACTERS", 5)
    with pytest.raises(UnreadableError, match="a page has more than 5 characters"):
        read_pdf(SOUND)
    monkeypatch.setattr(pdf, "MAX_PAGES", 0)
    with pytest.raises(UnreadableError, match="it has 1 pages, more than 0"):
        read_pdf(SOUND)


def test_a_cut_file_is_read_or_refused() -> None:
    for end in range(0, len(SOUND), 37):
        try:
            assert read_pdf(SOUND[:end]).text == "Pumps move water"
        except UnreadableError:
            continue
