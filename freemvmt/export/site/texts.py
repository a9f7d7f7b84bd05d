"""The texts of a site, in pieces that the page fetches when it shows a hit of them.

A piece is JSON: [id, title, metadata, rows] of each document of which it has a row, in order. A row is a passage, or a
document that is not cut:

    text     what a hit shows
    url      the link to the original, if the site has links
    place    of a passage: as in the answers of a server
    before   the blanks between the passage before and this one; with them, the rows of a document are its whole text
    after    the same after the last passage
    bare     true if title and headings do not stand before the passage where the document tower reads it
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from freemvmt.data.documents import Document
from freemvmt.data.passages import Passage
from freemvmt.export.site.links import LinkTemplate
from freemvmt.search.hits import Place

PIECE_BYTES = 16_000  # after which a piece ends, of texts or of words: ten hits need at most ten small files

Row = dict[str, Any]


def text_pieces(
    documents: Sequence[Document], cuts: Sequence[Sequence[Passage]], links: LinkTemplate | None
) -> Iterator[tuple[int, bytes]]:
    """The pieces in order, each with the number of its first row; ``cuts`` has the passages of each document."""
    piece: list[list[Any]] = []
    first = number = size = 0
    for document, passages in zip(documents, cuts, strict=True):
        head = [document.id, document.title, document.metadata]
        is_new = True  # a document is named once in each piece
        for row in _rows(document, passages, links):
            if is_new:
                piece.append([*head, []])
                size += len(compact_json(head))
                is_new = False
            piece[-1][3].append(row)
            size += len(compact_json(row))
            number += 1
            if size >= PIECE_BYTES:
                yield first, compact_json(piece)
                piece, first, size, is_new = [], number, 0, True
    if piece:
        yield first, compact_json(piece)


def _rows(document: Document, passages: Sequence[Passage], links: LinkTemplate | None) -> Iterator[Row]:
    text, end, line = document.text, 0, 1
    if not passages:
        yield {"text": text, **_link(document, None, links)}
    for passage in passages:
        start, stop = passage.start, passage.stop
        line += text.count("\n", end, start)
        last = line + text.count("\n", start, stop)
        place = asdict(Place(passage.trail, passage.page, (line, last), start, stop))
        row: Row = {"text": text[start:stop], "place": place, "before": text[end:start]}
        row |= _link(document, passage, links)
        if not passage.headed:
            row["bare"] = True
        if passage is passages[-1]:
            row["after"] = text[stop:]
        yield row
        end, line = stop, last


def _link(document: Document, passage: Passage | None, links: LinkTemplate | None) -> Row:
    url = None if links is None else links.link(document, passage)
    return {} if url is None else {"url": url}


def compact_json(content: Any) -> bytes:
    """JSON without spaces, in UTF-8."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
