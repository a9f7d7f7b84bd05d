"""HTML: the main content as text, a block for each paragraph, heading, item or row."""

import re
from typing import Any

from freemvmt.data.files.content import Blocks, FileContent, UnreadableError, first_title, one_line
from freemvmt.data.files.text import decode
from freemvmt.runtime.optional import require

MAX_DEPTH = 4_000  # elements within each other; the time to parse grows with the square of it

_DROPPED = ("script", "style", "template", "noscript", "head", "svg", "iframe", "object", "select", "button")
_AROUND = ("nav", "header", "footer", "aside")  # what stands around a page's content
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "dd", "details", "dialog", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "header", "hr", "html", "li", "main", "nav", "ol", "p", "pre", "section",
    "summary", "table", "tbody", "tfoot", "thead", "tr", "ul", *_HEADINGS,
))  # fmt: skip
_CELLS = ("td", "th")
_SPACE = re.compile(r"\s+")
_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)")
# Elements without content, and those whose end may be left out: they do not count as nested.
_UNCOUNTED = frozenset((
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr",
    "p", "li", "dt", "dd", "option", "optgroup", "tr", "td", "th", "thead", "tbody", "tfoot", "colgroup",
))  # fmt: skip
_SELF_LINKS = "a.headerlink, a.anchor, a.hash-link"  # the ¶ of documentation tools


def read_html(content: bytes) -> FileContent:
    """A page. Its title is its first heading of level 1, or its ``<title>``."""
    source = decode(content)
    _check_depth(source)
    tree = require("selectolax.lexbor").LexborHTMLParser(source)
    title_node = tree.css_first("title")
    page_title = one_line(title_node.text()) if title_node is not None else ""
    main, around = _main_of(tree)
    writer = _Writer()
    if main is not None:
        for link in main.css(_SELF_LINKS):
            link.decompose()
        writer.write(main, (*_DROPPED, *around))
    blocks = writer.blocks
    return FileContent(blocks.text(), first_title(blocks.headings) or page_title, blocks.outline)


def _check_depth(source: str) -> None:
    """Raise ``UnreadableError`` for elements that are nested too deeply."""
    if source.count("<") <= MAX_DEPTH:
        return
    depth = 0
    for closing, name in _TAG.findall(source):
        if name.lower() not in _UNCOUNTED:
            depth = max(0, depth - 1) if closing else depth + 1
            if depth > MAX_DEPTH:
                raise UnreadableError(f"its elements are nested more than {MAX_DEPTH:,} deep")


def _main_of(tree: Any) -> tuple[Any, tuple[str, ...]]:
    """The element with the content, and the elements in it that are not content.

    A page that marks its content (one ``main``, or one ``article``) may have a header within it, which belongs to it.
    """
    for selector in ("main, [role=main]", "article"):
        elements = tree.css(selector)
        if len(elements) == 1 and elements[0].text().strip():
            return elements[0], tuple(name for name in _AROUND if name != "header")
    return tree.body, ("nav",)


class _Writer:
    """Writes an element as blocks."""

    def __init__(self) -> None:
        self.blocks = Blocks()
        self._pieces: list[str] = []  # of the block that is being written
        self._heading = 0  # its level
        self._preformatted = 0  # the number of ``pre`` around it

    def write(self, element: Any, dropped: tuple[str, ...]) -> None:
        """Write the texts in ``element``, without the elements ``dropped``. No recursion: pages may be deep."""
        stack: list[tuple[Any, bool]] = [(element, False)]
        while stack:
            node, is_end = stack.pop()
            tag = node.tag
            if is_end:
                self._end(tag)
            elif tag == "-text":
                self._add(node.text_content or "")
            elif tag not in dropped and node.is_element_node:
                self._begin(tag)
                stack.append((node, True))
                stack += [(child, False) for child in reversed(list(node.iter(include_text=True)))]
        self._flush()

    def _add(self, text: str) -> None:
        self._pieces.append(text if self._preformatted else _SPACE.sub(" ", text))

    def _begin(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._flush()
        self._heading = _HEADINGS.get(tag, self._heading)
        self._preformatted += tag == "pre"
        if tag == "br":
            self._pieces.append("\n")

    def _end(self, tag: str) -> None:
        if tag in _CELLS:
            self._pieces.append("\t")
        if tag in _BLOCKS:
            self._flush()
        self._preformatted -= tag == "pre"

    def _flush(self) -> None:
        """End the block. White space counts in ``pre`` alone; a line break and the end of a cell stay."""
        text, self._pieces = "".join(self._pieces), []
        level, self._heading = self._heading, 0
        if not self._preformatted:
            text = "\n".join(
                "\t".join(" ".join(cell.split()) for cell in line.split("\t")) for line in text.split("\n")
            )
        if not text.strip():
            return
        if level:
            self.blocks.add_heading(text, level)
        else:
            self.blocks.add(text.strip("\n").rstrip())
