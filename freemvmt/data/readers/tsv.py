"""Tables of fields between tabs: pairs, documents, queries, judgements.

A first line is a header only if it names columns that are known; then they are read by their names. A table has one
width, and fields are read as they stand: quotes are part of a text, as in MS MARCO's own files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from freemvmt.data.judgements import Judgements, from_pairs
from freemvmt.data.lines import numbered_lines
from freemvmt.errors import UserError


@dataclass(frozen=True)
class Column:
    """One column: the names that a header may give it, the first of them ours, in small letters and with "_"."""

    names: tuple[str, ...]
    optional: bool = False


_QUERY_ID = ("query_id", "qid", "queryid", "topic_id", "topic")
_DOCUMENT_ID = ("corpus_id", "doc_id", "docid", "docno", "document_id", "passage_id", "pid", "did")
_ID = Column(("id", "_id", *_DOCUMENT_ID, *_QUERY_ID))
_TEXT = Column(("text", "passage", "passage_text", "contents", "content", "body", "document", "query", "question"))
DOCUMENTS = (_ID, Column(("title",), optional=True), _TEXT)
QUERIES = (_ID, _TEXT)
JUDGEMENTS = (
    Column((*_QUERY_ID, "query")),
    Column(("iteration", "iter", "q0"), optional=True),
    Column((*_DOCUMENT_ID, "document", "doc")),
    Column(("score", "grade", "relevance", "rel", "label", "judgement", "judgment", "rating")),
)


def pair_columns(query_field: str, passage_field: str) -> tuple[Column, ...]:
    """The columns of training pairs, those two under the names that the user gives them."""
    return (
        Column((plain_name(query_field), "query", "question", "anchor")),
        Column((plain_name(passage_field), "passage", "positive", "answer", "document", "text")),
        Column(("negative",), optional=True),
    )


def plain_name(name: str) -> str:
    """How names of columns are compared: case does not count, nor which mark joins their words."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def table_rows(
    path: Path,
    columns: Sequence[Column],
    rows: int | None = None,
    *,
    or_spaces: bool = False,
    others: bool = False,
) -> Iterator[tuple[str, list[str]]]:
    """(place, a field for each of ``columns``, "" for one that is not there) of each line below the header, if any.

    Without a header all columns stand in their order, or all that are not optional. ``or_spaces``: a line without a
    tab is divided at white space, as TREC's files are. ``others``: a header may name further columns, which are passed
    over. Raises ``UserError`` with the line that has another width, or is a header where none can be.
    """
    layout = _Layout(columns, others)
    width, order = 0, []
    given = 0
    for number, line in numbered_lines(path):
        where = f"{path}, line {number}"
        fields = line.split() if or_spaces and "\t" not in line else line.split("\t")
        if not width:
            width, header = len(fields), layout.header(fields, where)
            if header is not None:
                order = header
                continue
            order = layout.order(width, where)
        if given == rows:
            return
        if len(fields) != width:
            found = f"{len(fields)} tab-separated fields, not the {width} of the first line"
            raise UserError(f"{where}: {found}; mend or drop that line")
        if fields[0] in layout.spellings and layout.is_header(fields):
            raise UserError(f"{where}: a header in the middle of the file; take that line out")
        given += 1
        yield where, ["" if place is None else fields[place] for place in order]


Order = list[int | None]  # for each column, which field it is


class _Layout:
    """Columns as they may stand in a table."""

    def __init__(self, columns: Sequence[Column], others: bool) -> None:
        self._columns, self._others = columns, others
        names = {name for column in columns for name in column.names}
        plain = names | {name.replace("_", "-") for name in names}
        # What the first field of a header is, so that other lines need no closer look.
        self.spellings = {"", *plain, *map(str.upper, plain), *map(str.capitalize, plain), *map(str.title, plain)}

    def order(self, width: int, where: str) -> Order:
        """Of a table without a header."""
        needed = [column for column in self._columns if not column.optional]
        if width == len(self._columns):
            return list(range(width))
        if width == len(needed):
            return [None if column.optional else needed.index(column) for column in self._columns]
        wanted = " or ".join(str(count) for count in sorted({len(needed), len(self._columns)}))
        named = ", ".join(column.names[0] for column in self._columns)
        raise UserError(f"{where}: {width} tab-separated fields, not {wanted} ({named}); mend or drop that line")

    def header(self, fields: Sequence[str], where: str) -> Order | None:
        """Of a table with this first line; None if that is no header.

        Raises ``UserError`` where it is one that cannot be read.
        """
        names = [plain_name(field) for field in fields]
        listed = ", ".join(f'"{field[:40]}"' for field in fields[:9])
        order, lacking = self._places(names)
        if lacking:
            if not self._places([name.strip('"') for name in names])[1]:
                todo = "write the table without quotes, a record a line"
                raise UserError(f"{where}: the names of the columns stand in quotes ({listed}); {todo}")
            if names[0] in self._columns[0].names:
                missing = f'a header ({listed}) without a column "{lacking[0]}"'
                raise UserError(f"{where}: {missing}; name it so, or take the line out")
            return None
        index = [0] if names[0] == "" else []  # which pandas writes in front, without a name
        strange = [number for number in range(len(names)) if number not in (*order, *index)]
        if len(set(names)) < len(names) or (strange and not self._others):
            wanted = ", ".join(column.names[0] for column in self._columns)
            raise UserError(f"{where}: the columns are {listed}; give {wanted}, each once, and no others")
        return order

    def is_header(self, fields: Sequence[str]) -> bool:
        """Whether a line names all columns that are needed."""
        return not self._places([plain_name(field) for field in fields])[1]

    def _places(self, names: Sequence[str]) -> tuple[Order, list[str]]:
        """(for each column the field of its name, the needed columns that have none)."""
        order: Order = [
            next((names.index(name) for name in column.names if name in names), None) for column in self._columns
        ]
        both = zip(self._columns, order, strict=True)
        return order, [column.names[0] for column, place in both if place is None and not column.optional]


def read_tsv(path: Path, rows: int | None, query_field: str = "query", passage_field: str = "passage") -> Judgements:
    """``query<TAB>passage`` or ``query<TAB>positive<TAB>negative``, one kind throughout, or as a header says."""
    columns = pair_columns(query_field, passage_field)
    return from_pairs(
        (query, [passage], [negative] if negative else [])
        for _, (query, passage, negative) in table_rows(path, columns, rows, others=True)
    )
