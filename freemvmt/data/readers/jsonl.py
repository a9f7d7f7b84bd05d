"""JSONL files of pairs, or of rows as MS MARCO has them, become judgements."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from freemvmt.data.judgements import Judgements, from_rows
from freemvmt.data.lines import json_lines
from freemvmt.data.values import kind_name, text_of
from freemvmt.errors import UserError

NOT_PASSAGES = (
    'not MS MARCO\'s passages; write [{"passage_text": …, "is_selected": 0 or 1}, …] or {"passage_text": […], '
    '"is_selected": […]}, or leave that field out if these are pairs'
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
    return from_rows(_jsonl_rows(path, rows, query_field, passage_field))


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
