"""Markdown: the text as it is, with the headings that CommonMark sees."""

import re
from functools import cache
from itertools import pairwise
from typing import Any

from freemvmt.data.documents import Heading, Outline
from freemvmt.data.files.content import FileContent, first_title, line_starts, one_line
from freemvmt.data.files.text import decode
from freemvmt.runtime.optional import require

# Lines between --- (YAML) or +++ (TOML) at the very beginning.
_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[ \t]*\n(?P<fields>(?:.*\n)*?)(?:\1|\.\.\.)[ \t]*(?:\n|\Z)")
_TITLE_FIELD = re.compile(r"^title[ \t]*[:=][ \t]*(?P<quote>[\"']?)(?P<title>.+?)(?P=quote)[ \t]*$", re.M)
_MAX_SOURCE = 1000  # characters of a heading that are parsed


def read_markdown(content: bytes) -> FileContent:
    """A file of Markdown. Its title is that of the front matter, which stays in the text, or its first heading's."""
    text = decode(content)
    fields = ""
    body = text
    if front := _FRONT_MATTER.match(text):
        fields = front["fields"]
        body = "\n" * front[0].count("\n") + text[front.end() :]  # the numbers of the lines stay
    starts = line_starts(text)
    headings = [Heading(starts[line], level, title) for line, level, title in markdown_headings(body)]
    field = _TITLE_FIELD.search(fields)
    title = one_line(field["title"]) if field else first_title(headings)
    return FileContent(text, title, Outline(tuple(headings)))


def markdown_headings(text: str) -> list[tuple[int, int, str]]:
    """(line from 0, level, title) of each heading that is in no list or quotation."""
    tokens = _parser().parse(text)
    return [
        (token.map[0], int(token.tag[1:]), _plain(inline.content))
        for token, inline in pairwise(tokens)
        if token.type == "heading_open" and token.level == 0
    ]


def _plain(source: str) -> str:
    """A heading without its markup."""
    tokens = _inline_parser().parseInline(source[:_MAX_SOURCE])[0].children or []
    return one_line(
        "".join(" " if "break" in token.type else token.content for token in tokens if token.type != "html_inline")
    )


@cache
def _parser() -> Any:
    """A parser of blocks. It leaves the markup within lines alone, which takes most of the time."""
    return require("markdown_it").MarkdownIt("commonmark").disable("inline")


@cache
def _inline_parser() -> Any:
    return require("markdown_it").MarkdownIt("commonmark")
