"""Bytes become text: plain text, and source code as it is."""

import codecs
import re

from freemvmt.data.documents import Heading, Outline
from freemvmt.data.files.content import FileContent, UnreadableError, one_line
from freemvmt.runtime.optional import require

_BYTE_ORDER_MARKS = {  # UTF-32's begins with UTF-16's, so it comes first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SAMPLE = 256 * 1024  # bytes from which an unknown encoding is guessed
# A definition of Python at the margin, or indented once (a method).
_DEFINITION = re.compile(r"^(?P<indent> {4}|\t|)(?:async +def|def|class) +(?P<name>\w+)", re.M)


def decode(content: bytes) -> str:
    """The text in ``content``, with ``\\n`` at the end of lines: UTF-8, what a byte order mark says, or a guess.

    Raises ``UnreadableError`` for bytes that are no text.
    """
    return _decode(content).replace("\r\n", "\n").replace("\r", "\n")


def _decode(content: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            try:
                return content.decode(encoding)
            except UnicodeDecodeError as error:
                raise UnreadableError(f"its text is no {encoding.upper()}, which its first bytes promise") from error
    if b"\0" in content:
        raise UnreadableError("it is binary, not text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        guess = require("charset_normalizer").from_bytes(content[:_SAMPLE]).best()
    if guess is None:
        raise UnreadableError("it is binary, or text in an unknown encoding")
    return content.decode(guess.encoding, errors="replace")


def read_text(content: bytes) -> FileContent:
    """A file of plain text or of source code, as it is."""
    return FileContent(decode(content))


def read_python(content: bytes) -> FileContent:
    """Python as it is. Its outline has classes and functions, and methods below them."""
    text = decode(content)
    headings = []
    for match in _DEFINITION.finditer(text):
        start, indent = match.start(), match["indent"]
        while text.startswith(f"{indent}@", before := text.rfind("\n", 0, max(0, start - 1)) + 1) and before < start:
            start = before  # the line of a decorator
        headings.append(Heading(start, 2 if indent else 1, one_line(match["name"])))
    return FileContent(text, outline=Outline(tuple(headings)))
