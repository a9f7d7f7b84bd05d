"""Read TSV files: pairs, documents, queries, judgements.

The first line is a header only if it contains the names of the needed columns. All lines have the same number of
fields. Quotes are part of a field, as in MS MARCO's files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from freemvmt.data.judgements import Judgements, from_pairs
from freemvmt.data.lines import numbered_lines
from freemvmt.errors import UserError
from freemvmt.runtime.console import count_of


@dataclass(frozen=True)
class Column:
    """A column and its possible names in a header, as ``plain_name`` writes them. The first one is ours."""

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
    """The columns of training pairs. The user's names for query and passage come first."""
    return (
        Column((plain_name(query_field), "query", "question", "anchor")),
        Column((plain_name(passage_field), "passage", "positive", "answer", "document", "text")),
        Column(("negative",), optional=True),
    )


def plain_name(name: str) -> str:
    """``name`` in lower case with "_" between words, so that spellings of a column name are equal."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def table_rows(
    path: Path,
    columns: Sequence[Column],
    rows: int | None = None,
    *,
    or_spaces: bool = False,
    extra_columns: bool = False,
) -> Iterator[tuple[str, list[str]]]:
    """(place, a field for each of ``columns``) of each line below the header, if any. A missing field is "".

    Without a header, the fields are all columns in order, or all that are not optional. ``or_spaces``: a line without
    a tab is split at white space, as in TREC's files. ``extra_columns``: a header may have other columns, which are
    ignored. Raises ``UserError`` with the line if it has another number of fields, or is a second or invalid header.
    """
    layout = _Layout(columns, extra_columns)
    width, order = 0, []
    row_count = 0
    for number, line in numbered_lines(path):
        where = f"{path}, line {number}"
        fields = line.split() if or_spaces and "\t" not in line else line.split("\t")
        if not width:
            width, header = len(fields), layout.header(fields, where)
            if header is not None:
                order = header
                continue
            order = layout.order(width, where)
        if row_count == rows:
            return
        if len(fields) != width:
            problem = f"{count_of(len(fields), 'tab-separated field')}, not the {width} of the first line"
            raise UserError(f"{where}: {problem}; mend or drop that line")
        if fields[0] in layout.spellings and layout.is_header(fields):
            raise UserError(f"{where}: a header in the middle of the file; take that line out")
        row_count += 1
        yield where, ["" if index is None else fields[index] for index in order]


Order = list[int | None]  # the index of each column's field in a line; None: it has none


class _Layout:
    """Finds the fields of the columns in a table."""

    def __init__(self, columns: Sequence[Column], extra_columns: bool) -> None:
        self._columns, self._extra_columns = columns, extra_columns
        names = {name for column in columns for name in column.names}
        plain = names | {name.replace("_", "-") for name in names}
        # The possible first fields of a header, so that most lines need no further check.
        self.spellings = {"", *plain, *map(str.upper, plain), *map(str.capitalize, plain), *map(str.title, plain)}

    def order(self, width: int, where: str) -> Order:
        """The order of a table without a header that has ``width`` fields."""
        needed = [column for column in self._columns if not column.optional]
        if width == len(self._columns):
            return list(range(width))
        if width == len(needed):
            return [None if column.optional else needed.index(column) for column in self._columns]
        expected = " or ".join(str(count) for count in sorted({len(needed), len(self._columns)}))
        names = ", ".join(column.names[0] for column in self._columns)
        fields = count_of(width, "tab-separated field")
        raise UserError(f"{where}: {fields}, not {expected} ({names}); mend or drop that line")

    def header(self, fields: Sequence[str], where: str) -> Order | None:
        """The order of a table whose first line is ``fields``; None if that line is no header.

        Raises ``UserError`` if it is an invalid header.
        """
        names = [plain_name(field) for field in fields]
        quoted_fields = ", ".join(f'"{field[:40]}"' for field in fields[:9])
        order, missing = self._find_columns(names)
        if missing:
            if not self._find_columns([name.strip('"') for name in names])[1]:
                hint = "write the table without quotes, a record a line"
                raise UserError(f"{where}: the names of the columns stand in quotes ({quoted_fields}); {hint}")
            if names[0] in self._columns[0].names:
                problem = f'a header ({quoted_fields}) without a column "{missing[0]}"'
                raise UserError(f"{where}: {problem}; name it so, or take the line out")
            return None
        pandas_index = [0] if names[0] == "" else []  # the index of pandas, which comes first and has no name
        unknown = [number for number in range(len(names)) if number not in (*order, *pandas_index)]
        if len(set(names)) < len(names) or (unknown and not self._extra_columns):
            expected = ", ".join(column.names[0] for column in self._columns)
            raise UserError(f"{where}: the columns are {quoted_fields}; give {expected}, each once, and no others")
        return order

    def is_header(self, fields: Sequence[str]) -> bool:
        """Whether a line contains the names of all needed columns."""
        return not self._find_columns([plain_name(field) for field in fields])[1]

    def _find_columns(self, names: Sequence[str]) -> tuple[Order, list[str]]:
        """(the order of the columns in a header, the names of the needed columns that it lacks)."""
        order: Order = [
            next((names.index(name) for name in column.names if name in names), None) for column in self._columns
        ]
        pairs = zip(self._columns, order, strict=True)
        return order, [column.names[0] for column, index in pairs if index is None and not column.optional]


def read_tsv(path: Path, rows: int | None, query_field: str, passage_field: str) -> Judgements:
    """The rows of a TSV file: (query, passage), (query, positive, negative), or the columns of a header."""
    columns = pair_columns(query_field, passage_field)
    return from_pairs(
        (query, [passage], [negative] if negative else [])
        for _, (query, passage, negative) in table_rows(path, columns, rows, extra_columns=True)
    )
