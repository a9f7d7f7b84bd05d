"""Numbering of queries by their folded form, in columns and not text by text."""

import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from freemvmt.data.examples import to_examples, without_queries
from freemvmt.data.judgements import from_pairs
from freemvmt.data.values import folded

PARTS = ["a", "B", "The Sky", " ", "  ", "\t", "\x1c", "\x85", "\u00a0", "\u2003", "É", "ẞ", "İ", "東京", "x" * 31]


@pytest.mark.parametrize("seed", range(5))
def test_queries_are_numbered_as_they_are_folded(seed: int) -> None:
    draw = random.Random(seed)
    queries = ["".join(draw.choices(PARTS, k=draw.choice([1, 2, 4]))) for _ in range(300)]
    examples = to_examples(from_pairs((query, [f"passage {row}"], []) for row, query in enumerate(queries)), "x")
    expected: dict[str, list[str]] = {}
    for row, query in enumerate(queries):
        if folded(query):
            expected.setdefault(folded(query), []).append(f"passage {row}")
    assert [folded(query) for query in examples.queries] == list(expected)
    found = [[examples.passages[number] for number in examples.positives[query]] for query in range(len(expected))]
    assert found == list(expected.values())

    held_out = draw.sample(queries, 40)
    kept = without_queries(examples, held_out).queries
    assert kept == [query for query in examples.queries if folded(query) not in set(map(folded, held_out))]


def test_a_passage_that_is_its_query_is_found_in_any_spelling() -> None:
    pairs = [("What  is\tit", ["what is it", "WHAT IS IT ", "an answer"], []), ("straße", ["STRASSE", "STRAßE"], [])]
    examples = to_examples(from_pairs(pairs), "x")
    assert examples.passages == ["an answer", "STRASSE"]


def test_reading_parquet_imports_no_pandas(tmp_path: Path) -> None:
    """It would take half a second of a training of five."""
    pq.write_table(pa.table({"query": ["a", "b  É", "c"], "passage": ["a", "x", "B é"]}), tmp_path / "train.parquet")
    script = (
        "import sys; from freemvmt.config import DataConfig; from freemvmt.data.load import load\n"
        f"load(DataConfig(dataset=({str(tmp_path / 'train.parquet')!r},), validation_fraction=0.5))\n"
        "sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
