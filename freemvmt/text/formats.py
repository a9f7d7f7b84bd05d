"""Files become judgements: which passage answers which query, and which was given as one that does not.

Every format ends as ``Judgements``: a column of query texts, a column of passage texts, and for each passage the row of
its query and its label. Reading stays in Arrow columns where the format has them; where it has lines, an error
names the line.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from freemvmt.errors import UserError
from freemvmt.text.lines import json_lines
from freemvmt.text.tsv import pair_columns, table_rows
from freemvmt.text.values import kind_name, text_of

NOT_PASSAGES = (
    'not MS MARCO\'s passages; write [{"passage_text": …, "is_selected": 0 or 1}, …] or {"passage_text": […], '
    '"is_selected": […]}, or leave that field out if these are pairs'
)


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
    names = [name for name in columns if not name.startswith("__index_level_")]  # pandas' own
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
        if record.get("passages") is not None and "query" in record:
            texts, marks = _passages_of(record["passages"], where)
            yield text_of(record["query"], "query", where), texts, marks
            continue
        check_columns(record, where, query_field, passage_field)
        query, passage = (text_of(record[field], field, where) for field in (query_field, passage_field))
        negatives = _negatives_of(record.get("negative"), where)
        yield query, [passage, *negatives], [True, *(False for _ in negatives)]


def _negatives_of(value: object, where: str) -> list[str]:
    """A text, a list of them, or null where there is none."""
    if value is None:
        return []
    return [text_of(text, "negative", where) for text in (value if isinstance(value, list) else [value])]


def _passages_of(passages: object, where: str) -> tuple[list[str], list[bool]]:
    """(texts, whether each is selected) of a row of MS MARCO, in either of its shapes."""
    if isinstance(passages, dict):
        texts, marks = passages.get("passage_text"), passages.get("is_selected")
        if not isinstance(texts, list) or not isinstance(marks, list) or len(texts) != len(marks):
            needed = 'equally long lists "passage_text", of texts, and "is_selected", of numbers'
            raise UserError(f'{where}: "passages" needs {needed}; mend or drop that line')
    elif isinstance(passages, list) and all(isinstance(passage, dict) for passage in passages):
        texts, marks = ([passage.get(name) for passage in passages] for name in ("passage_text", "is_selected"))
    else:
        found = "a list of something else" if isinstance(passages, list) else kind_name(passages)
        raise UserError(f'{where}: "passages" holds {found}, {NOT_PASSAGES}')
    return [text_of(text, "passage_text", where) for text in texts], [_is_selected(mark, where) for mark in marks]


def _is_selected(mark: object, where: str) -> bool:
    if isinstance(mark, float) and mark.is_integer():
        mark = int(mark)
    if not isinstance(mark, int):  # a boolean is one
        raise UserError(f'{where}: "is_selected" holds {kind_name(mark)}, not 0 or 1; mend or drop that line')
    return mark > 0


def read_tsv(path: Path, rows: int | None, query_field: str = "query", passage_field: str = "passage") -> Judgements:
    """``query<TAB>passage`` or ``query<TAB>positive<TAB>negative``, one kind throughout, or as a header says."""
    columns = pair_columns(query_field, passage_field)
    return from_pairs(
        (query, [passage], [negative] if negative else [])
        for _, (query, passage, negative) in table_rows(path, columns, rows, others=True)
    )
