"""Jupyter notebooks: the sources of their cells, without outputs."""

import json
from typing import Any

from freemvmt.data.documents import Heading
from freemvmt.data.files.content import Blocks, FileContent, UnreadableError, first_title, line_starts
from freemvmt.data.files.markdown import markdown_headings
from freemvmt.data.files.text import decode
from freemvmt.storage.files import storable


def read_notebook(content: bytes) -> FileContent:
    """A notebook of format 4: a block for each cell that is not blank. Headings are those of the Markdown cells."""
    try:
        notebook = json.loads(decode(content))  # Python writes NaN into outputs, which is no JSON: they are not read
    except (ValueError, RecursionError) as error:
        raise UnreadableError("it is no JSON, which a notebook is") from error
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise UnreadableError("it is no notebook of format 4: it has no list of cells")
    blocks = Blocks()
    for cell in cells:
        source = _source_of(cell)
        if not source.strip():
            continue
        start, starts = blocks.add(source), line_starts(source)
        if cell.get("cell_type") == "markdown":
            blocks.headings += [
                Heading(start + starts[line], level, title) for line, level, title in markdown_headings(source)
            ]
    return FileContent(blocks.text(), first_title(blocks.headings), blocks.outline)


def _source_of(cell: Any) -> str:
    """The source of a cell, which is a text or a list of lines."""
    source = cell.get("source") if isinstance(cell, dict) else None
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise UnreadableError("it is no notebook of format 4: a cell has no source")
    return storable(source).replace("\r\n", "\n").replace("\r", "\n").strip("\n")
