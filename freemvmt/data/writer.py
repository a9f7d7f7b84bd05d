"""Write examples as rows of MS MARCO, a format that ``load`` reads."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from freemvmt.data.examples import Examples
from freemvmt.data.ragged import IdLists
from freemvmt.errors import UserError
from freemvmt.storage.files import atomic_file
from freemvmt.storage.outputs import check_output_file

_BATCH_ROWS = 4096  # rows to write at a time
_SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("passages", pa.struct([("passage_text", pa.list_(pa.string())), ("is_selected", pa.list_(pa.int32()))])),
    ]
)


def check_rows_path(path: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Raise ``UserError`` unless rows can be written to ``path`` and ``path`` is not one of ``inputs``."""
    if path.suffix not in (".parquet", ".jsonl"):
        raise UserError(f"{path} is neither .parquet nor .jsonl; end --output in one of them")
    check_output_file(str(path), inputs)


def write_rows(examples: Examples, negatives: IdLists, path: Path) -> None:
    """Write a row for each query of ``examples``: its positives, then its ``negatives``."""
    check_rows_path(path)
    rows = _rows(examples, negatives)
    with atomic_file(path) as temporary_path:
        if path.suffix == ".jsonl":
            with temporary_path.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            return
        with pq.ParquetWriter(temporary_path, _SCHEMA) as file:
            batch: list[dict[str, Any]] = []
            for number, row in enumerate(rows, start=1):
                batch.append(row)
                if len(batch) == _BATCH_ROWS or number == len(examples.queries):
                    file.write_table(pa.Table.from_pylist(batch, _SCHEMA))
                    batch.clear()


def _rows(examples: Examples, negatives: IdLists) -> Iterator[dict[str, Any]]:
    for number, query in enumerate(examples.queries):
        positive_ids, negative_ids = (lists[number].tolist() for lists in (examples.positives, negatives))
        texts = [examples.passages[passage] for passage in positive_ids + negative_ids]
        yield {
            "query": query,
            "passages": {"passage_text": texts, "is_selected": [1] * len(positive_ids) + [0] * len(negative_ids)},
        }
