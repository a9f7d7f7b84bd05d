"""Passages: the parts of a document that is longer than the document tower reads.

splitter = Splitter(model.tokenizer, model.document_tokens)
for passage in splitter.split(document):  # none where the document fits
    print(passage.trail, passage.content(document))

A document is cut at its headings: sections that stand one after the other share a passage while they fit. A section
that is longer is cut between paragraphs, sentences or words, whichever are the largest parts that fit.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from freemvmt.data.documents import Document, Heading, unchecked_document
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.data.values import content_of
from freemvmt.storage.files import is_storable

BETWEEN = " › "  # headings of a trail


@dataclass(frozen=True)
class Passage:
    """The characters from ``start`` to ``stop`` of a document's text.

    ``trail`` holds the headings above them, the outermost first, and ``page`` the number of the page on which they
    begin, from 1. ``headed``: title and trail are short enough to stand before these characters where the document
    tower reads them.
    """

    start: int
    stop: int
    trail: str = ""
    page: int | None = None
    headed: bool = True

    def words(self, document: Document) -> str:
        """What BM25 reads: the title, the trail and the passage."""
        return content_of(heading_of(document.title, self.trail), document.text[self.start : self.stop])

    def content(self, document: Document) -> str:
        """What the document tower reads."""
        return self.alone(document).content

    def alone(self, document: Document) -> Document:
        """The passage as a document, whose title is what stands before the passage where the tower reads it."""
        heading = heading_of(document.title, self.trail) if self.headed else ""
        return unchecked_document(document.id, document.text[self.start : self.stop], heading, document.metadata)


def heading_of(title: str, trail: str) -> str:
    """What stands before a passage: the title and the headings of ``trail``."""
    return " ".join(part for part in (title, trail.replace(BETWEEN, " ")) if part)


def contents_of(documents: Sequence[Document], cuts: Sequence[Sequence[Passage]]) -> list[str]:
    """What the document tower reads of ``documents``: each passage of ``cuts``, and each document that has none.

    Where ``cuts`` is empty, no document has any.
    """
    if not cuts:
        return [document.content for document in documents]
    return [
        content
        for document, own in zip(documents, cuts, strict=True)
        for content in ([passage.content(document) for passage in own] or [document.content])
    ]


@dataclass(frozen=True)
class _Section:
    """The characters from ``start`` to ``stop``, under all headings of ``path``."""

    start: int
    stop: int
    path: tuple[str, ...]


class Splitter:
    """Cuts documents into passages that have at most ``tokens`` tokens of ``tokenizer``, with their headings."""

    def __init__(self, tokenizer: Tokenizer, tokens: int) -> None:
        self._tokenizer = tokenizer
        self.tokens = tokens

    def split_all(self, documents: Sequence[Document]) -> list[list[Passage]]:
        """The passages of each document, in order; none of one that fits."""
        passages: list[list[Passage]] = [[] for _ in documents]
        contents = [document.content for document in documents]
        # A token has one character or more of ASCII. Text that UTF-8 cannot encode stays whole.
        rows = [
            row for row, content in enumerate(contents)
            if (len(content) >= self.tokens or not content.isascii()) and is_storable(content)
        ]  # fmt: skip
        is_long = self._tokenizer.longer_than(self.tokens, [contents[row] for row in rows])
        for row, long in zip(rows, is_long.tolist(), strict=True):
            if long:
                passages[row] = list(self._passages(documents[row]))
        return passages

    def split(self, document: Document) -> list[Passage]:
        """The passages of ``document``; none if it fits."""
        return self.split_all([document])[0]

    def _passages(self, document: Document) -> Iterator[Passage]:
        sections = list(_sections(document))
        first = 0
        while first < len(sections):
            passage, last = None, first
            while last < len(sections) and sections[last].path[:1] == sections[first].path[:1]:
                packed = self._passage(document, sections[first : last + 1])
                if self._tokenizer.length_of(packed.content(document)) > self.tokens:
                    break
                passage, last = packed, last + 1
            if passage is None:
                yield from self._cut(document, sections[first])
                first += 1
            else:
                yield passage
                first = last

    def _passage(self, document: Document, sections: Sequence[_Section]) -> Passage:
        """One passage of all ``sections``, whose trail is the headings above all of them."""
        levels = zip(*(section.path for section in sections), strict=False)
        path = [titles[0] for titles in takewhile(lambda titles: len(set(titles)) == 1, levels)]
        if path and path[0] == document.title.strip():
            path = path[1:]
        trail = BETWEEN.join(path)
        headed = 2 * self._tokenizer.length_of(heading_of(document.title, trail)) <= self.tokens
        start, stop, pages = sections[0].start, sections[-1].stop, document.outline.pages
        return Passage(start, stop, trail, max(1, bisect_right(pages, start)) if pages else None, headed)

    def _cut(self, document: Document, section: _Section) -> Iterator[Passage]:
        """The passages of a section that is too long for one."""
        from semantic_text_splitter import TextSplitter

        whole = self._passage(document, [section])
        heading = heading_of(document.title, whole.trail) if whole.headed else ""
        cutter = TextSplitter.from_callback(
            lambda text: self._tokenizer.length_of(content_of(heading, text)), self.tokens
        )
        for start, text in cutter.chunk_indices(document.text[section.start : section.stop]):
            piece = _Section(section.start + start, section.start + start + len(text), section.path)
            yield self._passage(document, [piece])


def _sections(document: Document) -> Iterator[_Section]:
    """The sections of a document, in order, without white space at their ends; empty ones are left out."""
    above: list[Heading] = []
    text, headings = document.text, document.outline.headings
    start = 0
    for heading in (*headings, None):
        stop = len(text) if heading is None else heading.start
        part = text[start:stop]
        if piece := part.strip():
            begin = start + part.index(piece[0])
            yield _Section(begin, begin + len(piece), tuple(upper.title for upper in above))
        if heading is not None:
            above = [*(upper for upper in above if upper.level < heading.level), heading]
            start = stop
