"""reStructuredText: the text as it is, with the sections that its adornments mark.

Titles are found line by line, by the rules of the format: docutils takes a hundred times as long to build a tree of
which nothing else would be used, and its directives include files.
"""

import re

from freemvmt.data.documents import Heading, Outline
from freemvmt.data.files.content import FileContent, first_title, line_starts, one_line
from freemvmt.data.files.text import decode

_ADORNMENT = re.compile(r"([!-/:-@[-`{-~])\1*")  # a line of one punctuation mark
_ROLE = re.compile(r":[\w:.+-]+:(?=`)|(?<=`)__?|`|\*\*|\|")  # markup within a title
_SHORTEST = 4  # characters of an adornment that may be shorter than its title


def read_rst(content: bytes) -> FileContent:
    """A file of reStructuredText. Its title is that of its first section."""
    text = decode(content)
    headings = _headings_of(text)
    return FileContent(text, first_title(headings), Outline(tuple(headings)))


def _headings_of(text: str) -> list[Heading]:
    """The sections. Their levels follow the order in which the kinds of adornment first appear."""
    lines, starts = [line.rstrip() for line in text.split("\n")], line_starts(text)
    headings: list[Heading] = []
    levels: dict[tuple[str, bool], int] = {}
    for number in range(1, len(lines)):
        title, underline = lines[number - 1], lines[number]
        if not _adorns(underline, title) or _ADORNMENT.fullmatch(title):
            continue
        before = lines[number - 2] if number > 1 else ""
        has_overline = before == underline
        if not has_overline and (title[0].isspace() or (before and not before.startswith(".. "))):
            continue  # the last line of a paragraph
        level = levels.setdefault((underline[0], has_overline), len(levels) + 1)
        headings.append(
            Heading(starts[number - 2 if has_overline else number - 1], level, one_line(_ROLE.sub("", title)))
        )
    return headings


def _adorns(underline: str, title: str) -> bool:
    return bool(title and _ADORNMENT.fullmatch(underline)) and len(underline) >= min(_SHORTEST, len(title.strip()))
