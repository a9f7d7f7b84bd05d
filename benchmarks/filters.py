"""Filters over many documents: our columns against SQLite, for opening them and for the mask of a filter.

    uv run python benchmarks/filters.py --work FOLDER

Documents have a list of two tags out of 50, a category out of 1,000, a year and a flag. Both ways read files that are
written once and then cached, and both end in the same boolean mask (documents,), which a search needs: SQLite has a
table of (field, value, row), clustered by value, so that a condition is one range of it.
"""

import argparse
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import record
from numpy.typing import NDArray
from rounds import in_turns, summary

from freemvmt.search.stores.columns import Columns
from freemvmt.search.stores.filters import FieldKind
from freemvmt.storage.files import size_of

SIZES = (100_000, 1_000_000)
ROUNDS = 5
KINDS: dict[str, FieldKind] = {"tag": "string", "category": "string", "year": "number", "draft": "boolean"}
FILTERS: dict[str, dict[str, Any]] = {
    "a tag, 4 %": {"tag": "tag-7"},
    "a category, 0.1 %": {"category": "category-7"},
    "a range of years, 29 %": {"year": {"gte": 2015}},
    "a flag, 90 %": {"draft": False},
    "a tag and a range": {"tag": "tag-7", "year": {"gte": 2015, "lt": 2020}},
}
PROTOCOL = "warm files, in turns, median of rounds; opening and each filter alone; the masks are compared"


def main() -> int:
    """Write both files for each size, time, print, write results/filters.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--work", type=Path, required=True)
    options = arguments.parse_args()
    record.require_quiet()
    options.work.mkdir(parents=True, exist_ok=True)
    sizes = {str(size): measured(size, options.work) for size in SIZES}
    sys.stdout.write(f"wrote {record.write('filters', PROTOCOL, [0], {'sizes': sizes}, ('numpy',))}\n")
    return 0


def measured(size: int, work: Path) -> dict[str, Any]:
    """Seconds of opening and of each filter, both ways, and the bytes of both files."""
    folder, database = work / f"columns-{size}", work / f"fields-{size}.sqlite"
    metadata = list(documents(size))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    Columns.of(metadata, KINDS).write(folder)
    write_database(database, metadata)
    del metadata
    opening = {
        "columns": lambda: Columns.read(folder, KINDS, size),
        "SQLite": lambda: sqlite3.connect(database).close(),
    }
    figures: dict[str, Any] = {
        "bytes": {"columns": size_of(folder), "SQLite": database.stat().st_size},
        "opening": summary(in_turns(opening, ROUNDS), "columns"),
    }
    columns = Columns.read(folder, KINDS, size)
    with closing(sqlite3.connect(database)) as connection:
        for name, conditions in FILTERS.items():
            assert np.array_equal(columns.mask(conditions), mask_of(connection, conditions, size))
            ways = {
                "columns": lambda conditions=conditions: columns.mask(conditions),
                "SQLite": lambda conditions=conditions: mask_of(connection, conditions, size),
            }
            figures[name] = summary(in_turns(ways, ROUNDS), "columns")
    return figures


def documents(size: int) -> Iterator[dict[str, Any]]:
    """The metadata of each document, by a seed."""
    draws = np.random.default_rng(0)
    tags, categories = draws.integers(0, 50, (size, 2)), draws.integers(0, 1000, size)
    years, drafts = draws.integers(1990, 2025, size), draws.random(size) < 0.1
    for pair, category, year, draft in zip(tags.tolist(), categories, years.tolist(), drafts.tolist(), strict=True):
        listed = [f"tag-{number}" for number in pair]
        yield {"tag": listed, "category": f"category-{category}", "year": year, "draft": draft}


def write_database(path: Path, metadata: list[dict[str, Any]]) -> None:
    """A row for each member of each field of each document."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE fields (name, value, row INTEGER, PRIMARY KEY (name, value, row)) WITHOUT ROWID"
        )
        rows = (
            (name, member, row)
            for row, fields in enumerate(metadata)
            for name, value in fields.items()
            for member in set(value if isinstance(value, list) else [value])
        )
        connection.executemany("INSERT INTO fields VALUES (?, ?, ?)", rows)


def mask_of(connection: sqlite3.Connection, conditions: Mapping[str, Any], size: int) -> NDArray[np.bool_]:
    """Which documents meet all conditions."""
    mask = np.ones(size, np.bool_)
    signs = {"gte": ">=", "gt": ">", "lte": "<=", "lt": "<"}
    for name, condition in conditions.items():
        bounds = condition if isinstance(condition, dict) else {"": condition}
        where = " AND ".join(f"value {signs.get(sign, '=')} ?" for sign in bounds)
        found = connection.execute(f"SELECT row FROM fields WHERE name = ? AND {where}", (name, *bounds.values()))
        one = np.zeros(size, np.bool_)
        one[np.fromiter((row for (row,) in found), np.int64)] = True
        mask &= one
    return mask


if __name__ == "__main__":
    sys.exit(main())
