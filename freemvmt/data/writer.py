"""Examples become a file of MS MARCO's rows, which everything that reads training pairs reads."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from freemvmt.data.examples import Examples
from freemvmt.data.ragged import IdLists
from freemvmt.errors import UserError
from freemvmt.storage.files import whole_file
from freemvmt.storage.outputs import check_file

_AT_ONCE = 4096  # rows that are in memory together
_SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("passages", pa.struct([("passage_text", pa.list_(pa.string())), ("is_selected", pa.list_(pa.int32()))])),
    ]
)


def check_rows_path(path: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Raise ``UserError`` unless rows can be written to ``path``, which is not among ``inputs``."""
    if path.suffix not in (".parquet", ".jsonl"):
        raise UserError(f"{path} is neither .parquet nor .jsonl; end --output in one of them")
    check_file(str(path), inputs)


def write_rows(examples: Examples, negatives: IdLists, path: Path) -> None:
    """A row for each query of ``examples``: its passages, first those that answer it, then its ``negatives``."""
    check_rows_path(path)
    rows = _rows(examples, negatives)
    with whole_file(path) as part:
        if path.suffix == ".jsonl":
            with part.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            return
        with pq.ParquetWriter(part, _SCHEMA) as file:
            waiting: list[dict[str, Any]] = []
            for number, row in enumerate(rows, start=1):
                waiting.append(row)
                if len(waiting) == _AT_ONCE or number == len(examples.queries):
                    file.write_table(pa.Table.from_pylist(waiting, _SCHEMA))
                    waiting.clear()


def _rows(examples: Examples, negatives: IdLists) -> Iterator[dict[str, Any]]:
    for number, query in enumerate(examples.queries):
        right, wrong = (lists[number].tolist() for lists in (examples.positives, negatives))
        texts = [examples.passages[passage] for passage in right + wrong]
        yield {
            "query": query,
            "passages": {"passage_text": texts, "is_selected": [1] * len(right) + [0] * len(wrong)},
        }
