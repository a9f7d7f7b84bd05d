"""Bytes become text, and source code has an outline."""

import codecs

import pytest

from freemvmt.data.files.content import FileContent, UnreadableError
from freemvmt.data.files.text import decode, read_python, read_text


def titles(content: FileContent) -> list[tuple[int, str]]:
    """(level, title) of each heading; each begins where its line does."""
    for heading in content.outline.headings:
        assert heading.start == 0 or content.text[heading.start - 1] == "\n"
    assert [one.start for one in content.outline.headings] == sorted(one.start for one in content.outline.headings)
    return [(heading.level, heading.title) for heading in content.outline.headings]


@pytest.mark.parametrize(
    "content",
    [
        "Grüße – 你好\n".encode(),
        codecs.BOM_UTF8 + "Grüße – 你好\n".encode(),
        "Grüße – 你好\n".encode("utf-16"),
        codecs.BOM_UTF16_BE + "Grüße – 你好\n".encode("utf-16-be"),
        "Grüße – 你好\n".encode("utf-32"),
        "Grüße – 你好\r\n".encode(),
        "Grüße – 你好\r".encode(),
    ],
)
def test_unicode_is_read(content: bytes) -> None:
    assert read_text(content).text == "Grüße – 你好\n"


def test_an_older_encoding_is_guessed() -> None:
    text = "Die Straße über den Fluß ist schön, und die Brücke führt zum Schloß. " * 20
    assert decode(text.encode("latin-1")) == text
    text = "Съешь ещё этих мягких французских булок, да выпей же чаю. " * 20
    assert decode(text.encode("koi8-r")) == text


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"text\0more", "it is binary"),
        (bytes(range(256)) * 20, "it is binary"),
        (codecs.BOM_UTF16_LE + b"odd", "no UTF-16"),
    ],
)
def test_what_is_no_text_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(UnreadableError, match=why):
        decode(content)


def test_python_has_its_definitions() -> None:
    source = '"""Doc."""\n\n@cache\n@other(1)\nasync def first() -> None:\n    def inner(): ...\n\n\nclass Two:\n'
    source += "    x = 1\n\n    @property\n    def three(self): ...\n"
    content = read_python(source.encode())
    assert content.text == source
    assert titles(content) == [(1, "first"), (2, "inner"), (1, "Two"), (2, "three")]
    first, _, _, three = content.outline.headings
    assert source[first.start :].startswith("@cache")
    assert source[three.start :].startswith("    @property")


def test_long_rows_of_decorators_take_no_time() -> None:
    assert titles(read_python(b"@a\n" * 100_000)) == []
    assert titles(read_python(b"@a\n" * 100_000 + b"def a(): ...")) == [(1, "a")]
