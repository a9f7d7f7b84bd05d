"""Word documents, made by python-docx, and archives that are none."""

import io
import re
import zipfile
from typing import Any

import docx
import pytest

from freemvmt.data.files.content import UnreadableError
from freemvmt.data.files.docx import MAX_UNPACKED_BYTES, read_docx


def saved(document: Any) -> bytes:
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def test_paragraphs_headings_and_tables_stand_in_order() -> None:
    document = docx.Document()
    document.core_properties.title = "From the properties"
    document.add_paragraph("Before.")
    document.add_heading("Pumps", 1)
    document.add_paragraph("")
    table = document.add_table(rows=2, cols=3)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
    table.cell(1, 2).text = "corner"
    document.add_heading("Parts", 2)
    document.add_paragraph("After.")
    content = read_docx(saved(document))
    assert content.text == "Before.\n\nPumps\n\nwide\t\n\t\tcorner\n\nParts\n\nAfter."
    assert content.title == "From the properties"
    assert [(one.level, content.text[one.start :][:5]) for one in content.outline.headings] == [
        (1, "Pumps"),
        (2, "Parts"),
    ]


def test_the_paragraph_in_the_style_of_a_title_is_the_title() -> None:
    document = docx.Document()
    document.core_properties.title = "From the properties"
    document.add_heading("The manual", 0)
    assert read_docx(saved(document)).title == "The manual"


def packed(**files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


SOUND = saved(docx.Document())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no sound Word document"),
        (b"PK\x03\x04", "no sound Word document"),
        (SOUND[:-100], "no sound Word document"),
        (packed(a=b"x"), "no sound Word document"),
        (SOUND.replace(b"word/document.xml", b"word/dacument.xml"), "no sound Word document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "encrypted, or an old .doc"),
        (packed(bomb=bytes(MAX_UNPACKED_BYTES + 1)), "unpacks to 128 MB in 1 files"),
    ],
)
def test_what_is_no_word_document_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(UnreadableError, match=why):
        read_docx(content)


def test_a_cell_of_a_billion_columns_is_one_cell() -> None:
    document = docx.Document()
    table = document.add_table(rows=1, cols=2)
    table.cell(0, 0).text = "wide"
    table.cell(0, 0)._tc.grid_span = 1_000_000_000
    assert read_docx(saved(document)).text == "wide\t"


def test_without_properties_there_is_no_title() -> None:
    with zipfile.ZipFile(io.BytesIO(SOUND)) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name != "docProps/core.xml"}
    files["_rels/.rels"] = re.sub(rb"<Relationship [^>]*core-properties[^>]*/>", b"", files["_rels/.rels"])
    assert read_docx(packed(**files)).title == ""


def test_entities_are_not_expanded() -> None:
    with zipfile.ZipFile(io.BytesIO(SOUND)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    body = files["word/document.xml"].partition(b"<w:document")
    secret = b'<!DOCTYPE d [<!ENTITY secret SYSTEM "file:///etc/hostname">]>'
    files["word/document.xml"] = (body[0] + secret + body[1] + body[2]).replace(
        b"<w:body>", b"<w:body><w:p><w:r><w:t>a&secret;b</w:t></w:r></w:p>"
    )
    assert read_docx(packed(**files)).text in ("a", "ab", "a b", "b")
