"""Read JSONL files of pairs or of MS MARCO rows."""

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
    """Raise ``UserError`` unless ``columns`` contain ``query_field`` and ``passage_field``."""
    names = [name for name in columns if not name.startswith("__index_level_")]  # pandas' index
    for field, option in ((query_field, "--query-field"), (passage_field, "--passage-field")):
        if field not in names:
            other_fields = {query_field, "query", "passage", "negative", "id", "_id"}
            suggestion = next((name for name in names if name not in other_fields), "FIELD")
            raise UserError(f"{where}: {_missing_field(field, names)}; name it with {option} {suggestion}")


def _missing_field(field: str, names: Iterable[str]) -> str:
    quoted_names = ", ".join(f'"{name}"' for name in names)
    return f'no field "{field}" (found {quoted_names or "none"})'


def read_jsonl(path: Path, rows: int | None, query_field: str, passage_field: str) -> Judgements:
    """The rows of a JSONL file: MS MARCO rows or pairs, one object on each line."""
    return from_rows(_jsonl_rows(path, rows, query_field, passage_field))


def _jsonl_rows(
    path: Path, rows: int | None, query_field: str, passage_field: str
) -> Iterator[tuple[str, list[str], list[bool]]]:
    for where, record in json_lines(path, rows):
        if record.get("passages") is not None and "query" in record:
            texts, labels = _passages_of(record["passages"], where)
            yield text_of(record["query"], "query", where), texts, labels
            continue
        check_columns(record, where, query_field, passage_field)
        query, passage = (text_of(record[field], field, where) for field in (query_field, passage_field))
        negatives = _negatives_of(record.get("negative"), where)
        yield query, [passage, *negatives], [True, *(False for _ in negatives)]


def _negatives_of(value: object, where: str) -> list[str]:
    """The negatives of a row: ``value`` is a text, a list of texts, or null."""
    if value is None:
        return []
    return [text_of(text, "negative", where) for text in (value if isinstance(value, list) else [value])]


def _passages_of(passages: object, where: str) -> tuple[list[str], list[bool]]:
    """(texts, whether each is selected) of an MS MARCO row: an object of lists, or a list of objects."""
    if isinstance(passages, dict):
        texts, labels = passages.get("passage_text"), passages.get("is_selected")
        if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
            expected = 'equally long lists "passage_text", of texts, and "is_selected", of numbers'
            raise UserError(f'{where}: "passages" needs {expected}; mend or drop that line')
    elif isinstance(passages, list) and all(isinstance(passage, dict) for passage in passages):
        texts, labels = ([passage.get(name) for passage in passages] for name in ("passage_text", "is_selected"))
    else:
        actual = "a list of something else" if isinstance(passages, list) else kind_name(passages)
        raise UserError(f'{where}: "passages" holds {actual}, {NOT_PASSAGES}')
    return [text_of(text, "passage_text", where) for text in texts], [_is_selected(label, where) for label in labels]


def _is_selected(label: object, where: str) -> bool:
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if not isinstance(label, int):  # bool is a subclass of int
        raise UserError(f'{where}: "is_selected" holds {kind_name(label)}, not 0 or 1; mend or drop that line')
    return label > 0
