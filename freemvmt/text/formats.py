"""Files become judgements: which passage answers which query, and which was given as one that does not.

Every format ends as ``Judgements``: a column of query texts, a column of passage texts, and for each passage the row of
its query and its label. Reading stays in Arrow columns where the format has them; where it has lines, an error
names the line.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from freemvmt.errors import UserError
from freemvmt.files import check_regular
from freemvmt.text.values import parse_object


@dataclass(frozen=True, eq=False)
class Judgements:
    """What the rows of one data set say.

    ``queries``: one text a row; ``passages``: all rows' passages, one behind the other, each distinct text held once;
    ``rows``: for each passage, the row it stands in (int64); ``labels``: for each passage, whether it answers that
    row's query (bool).
    """

    queries: pa.LargeStringArray
    passages: pa.DictionaryArray
    rows: NDArray[np.int64]
    labels: NDArray[np.bool_]

    @classmethod
    def join(cls, parts: Sequence["Judgements"]) -> "Judgements":
        """One behind the other."""
        if len(parts) == 1:
            return parts[0]
        first = np.cumsum([0, *(len(part.queries) for part in parts)])
        return cls(
            pa.concat_arrays([part.queries for part in parts]),
            pa.concat_arrays([part.passages for part in parts]),
            np.concatenate([part.rows + start for part, start in zip(parts, first, strict=False)]),
            np.concatenate([part.labels for part in parts]),
        )

    def cut(self, rows: int) -> tuple["Judgements", "Judgements"]:
        """(the first ``rows`` rows, the others)."""
        head = self.rows < rows
        first = Judgements(self.queries[:rows], self._passages_of(head), self.rows[head], self.labels[head])
        rest = Judgements(self.queries[rows:], self._passages_of(~head), self.rows[~head] - rows, self.labels[~head])
        return first, rest

    def _passages_of(self, kept: NDArray[np.bool_]) -> pa.DictionaryArray:
        return self.passages.filter(pa.array(kept))


def from_pairs(pairs: Iterable[tuple[str, list[str], list[str]]]) -> Judgements:
    """From (query, passages that answer it, passages that do not)."""
    return _from_rows(
        (query, positives + negatives, [True] * len(positives) + [False] * len(negatives))
        for query, positives, negatives in pairs
    )


def _from_rows(labelled: Iterable[tuple[str, list[str], list[bool]]]) -> Judgements:
    """From (query, passages, whether each answers it)."""
    queries: list[str] = []
    passages: list[str] = []
    rows: list[int] = []
    labels: list[bool] = []
    for row, (query, texts, marks) in enumerate(labelled):
        queries.append(query)
        passages += texts
        rows += [row] * len(texts)
        labels += marks
    return Judgements(
        pa.array(queries, pa.large_string()),
        pa.array(passages, pa.large_string()).dictionary_encode(),
        np.array(rows, np.int64),
        np.array(labels, np.bool_),
    )


def check_columns(columns: Iterable[str], where: str, query_field: str, passage_field: str) -> None:
    """Raise ``UserError`` unless ``columns`` have the two fields of a pair."""
    names = list(columns)
    for field, option in ((query_field, "--query-field"), (passage_field, "--passage-field")):
        if field not in names:
            taken = {query_field, "query", "passage", "negative", "id", "_id"}
            likely = next((name for name in names if name not in taken), "FIELD")
            raise UserError(f"{where}: {_no_field(field, names)}; name it with {option} {likely}")


def _no_field(field: str, found: Iterable[str]) -> str:
    listed = ", ".join(f'"{name}"' for name in found)
    return f'no field "{field}" (found {listed or "none"})'


def read_jsonl(path: Path, rows: int | None, query_field: str, passage_field: str) -> Judgements:
    """A JSONL file of MS MARCO rows or of pairs, a line an object."""
    return _from_rows(_jsonl_rows(path, rows, query_field, passage_field))


def _jsonl_rows(
    path: Path, rows: int | None, query_field: str, passage_field: str
) -> Iterator[tuple[str, list[str], list[bool]]]:
    for where, record in json_lines(path, rows):
        if isinstance(record.get("passages"), dict) and "query" in record:
            passages = record["passages"]
            texts, marks = passages.get("passage_text"), passages.get("is_selected")
            if not (_is_list(texts, str) and _is_list(marks, int) and len(texts) == len(marks)):
                needed = 'equally long lists "passage_text", of texts, and "is_selected", of numbers'
                raise UserError(f'{where}: "passages" needs {needed}; mend or drop that line')
            yield text_of(record, "query", where), texts, [mark > 0 for mark in marks]
            continue
        check_columns(record, where, query_field, passage_field)
        query, passage = text_of(record, query_field, where), text_of(record, passage_field, where)
        negative = [text_of(record, "negative", where)] if "negative" in record else []
        yield query, [passage, *negative], [True, *(False for _ in negative)]


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def json_lines(path: Path, rows: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) for each line of a JSONL file; blank lines are passed over."""
    for number, line in numbered_lines(path, rows):
        where = f"{path}, line {number}"
        yield where, parse_object(line, where)


def text_of(record: dict[str, Any], field: str, where: str) -> str:
    """The text in ``field`` of a JSON object; numbers count as their digits."""
    if field not in record:
        raise UserError(f'{where}: {_no_field(field, record)}; give each line a "{field}"')
    value = record[field]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UserError(f'{where}: "{field}" holds {type(value).__name__}, not text; mend or drop that line')
    return value


def read_tsv(path: Path, rows: int | None) -> Judgements:
    """``query<TAB>passage`` or ``query<TAB>positive<TAB>negative``, one kind throughout."""

    def pairs() -> Iterator[tuple[str, list[str], list[str]]]:
        width = None
        for number, line in numbered_lines(path, rows):
            fields = line.split("\t")
            width = width or len(fields)
            if len(fields) != width or width not in (2, 3):
                expected = f"the {width} of the first line" if width in (2, 3) else "2 (query, passage) or 3"
                found = f"{len(fields)} tab-separated fields, not {expected}"
                raise UserError(f"{path}, line {number}: {found}; mend or drop that line")
            yield fields[0], [fields[1]], fields[2:]

    return from_pairs(pairs())


def tsv_fields(
    path: Path, widths: Sequence[int], rows: int | None = None, *, or_spaces: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a table whose lines have one of ``widths`` fields."""
    for number, line in numbered_lines(path, rows):
        fields = line.split() if or_spaces and "\t" not in line else line.split("\t")
        if len(fields) not in widths:
            wanted = " or ".join(map(str, widths))
            found = f"{len(fields)} tab-separated fields, not {wanted}"
            raise UserError(f"{path}, line {number}: {found}; mend or drop that line")
        yield number, fields


def numbered_lines(path: Path, rows: int | None = None) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of the lines of a UTF-8 file that are not blank, at most ``rows`` of them."""
    given = 0
    with open_binary(path) as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                reason = f"byte {error.start + 1} is not UTF-8; save the file as UTF-8"
                raise UserError(f"{path}, line {number}: {reason}") from error
            if not line.strip():
                continue
            if given == rows:
                return
            given += 1
            yield number, line


def open_binary(path: Path) -> Any:
    """The file, opened; one line says why when it cannot be."""
    try:
        check_regular(path)
        return path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check the path") from error
