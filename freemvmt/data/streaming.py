"""Rows that are read as they are needed, a window at a time: Parquet shards in an order that a seed fixes, or the Hub.

A window is the shuffle buffer: its rows are together in memory, and no others. Which rows stand in which window depends
on the seed and the epoch alone, so that a place in the data is two numbers.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from freemvmt.config import DataConfig
from freemvmt.data.collection import Collection, merge
from freemvmt.data.judgements import Judgements
from freemvmt.data.load import existing, is_judged, ms_marco_validation, training_files, validation_of
from freemvmt.data.readers.msmarco import ms_marco
from freemvmt.data.readers.parquet import from_table, parquet_shape, parquet_tables
from freemvmt.errors import UserError
from freemvmt.storage import hub

_AT_ONCE = 4096  # rows that are decoded together


class Rows(Protocol):
    """The rows of a data set."""

    @property
    def count(self) -> int | None:
        """How many there are; None where that is not known before the last is read."""
        ...

    @property
    def identity(self) -> str:
        """What tells these rows from others."""
        ...

    def windows(self, size: int, seed: Sequence[int] | None, first: int) -> Iterator[Judgements]:
        """Window ``first`` and those after it, ``size`` rows each, in the order of ``seed``; None: as they stand."""
        ...


@dataclass(frozen=True)
class _Unit:
    """Some rows of a file that are read in one go: those of a row group, or its first ones."""

    path: Path
    group: int
    start: int  # the first row's place in the file
    rows: int


class ParquetRows:
    """The rows of Parquet files, at most ``limit`` of each data set; ``sets`` are the files of each."""

    def __init__(self, sets: Sequence[Sequence[Path]], limit: int | None, query_field: str, passage_field: str) -> None:
        self._fields = query_field, passage_field
        self._units: list[_Unit] = []
        digest = hashlib.blake2b(repr((limit, self._fields)).encode(), digest_size=16)
        for files in sets:
            left = limit
            for path in files:
                start = 0
                groups, content = parquet_shape(path)
                digest.update(content)
                for group, rows in enumerate(groups):
                    taken = rows if left is None else min(rows, left)
                    left = None if left is None else left - taken
                    if taken:
                        self._units.append(_Unit(path, group, start, taken))
                    start += rows
        self.count: int | None = sum(unit.rows for unit in self._units)
        self.identity = digest.hexdigest()
        if not self.count:
            raise UserError(
                f"{', '.join(str(path) for files in sets for path in files)}: no rows; give files with some"
            )

    def windows(self, size: int, seed: Sequence[int] | None, first: int) -> Iterator[Judgements]:
        """Row groups in the order of ``seed``; what is before window ``first`` is passed over, mostly unread."""
        units = self._units
        if seed is not None:
            units = [units[place] for place in np.random.default_rng(list(seed)).permutation(len(units))]
        return _windows(self._parts(units, first * size), size)

    def _parts(self, units: Sequence[_Unit], over: int) -> Iterator[Judgements]:
        for unit in units:
            if over >= unit.rows:
                over -= unit.rows
                continue
            left, place = unit.rows, unit.start
            for table in parquet_tables(unit.path, *self._fields, _AT_ONCE, unit.group):
                kept = table.slice(0, left)
                left -= len(kept)
                skipped = min(over, len(kept))
                over -= skipped
                if len(kept) > skipped:
                    yield from_table(kept.slice(skipped), str(unit.path), *self._fields, before=place + skipped)
                place += len(kept)
                if not left:
                    break


class HubRows:
    """The training rows of MS MARCO, at most ``limit``, in the Hub's order."""

    def __init__(self, version: str, limit: int | None) -> None:
        self._version, self._limit = version, limit
        self._data: Any = ms_marco(version, "train", streaming=True, rows=limit)
        splits = self._data.info.splits or {}
        known = splits["train"].num_examples if "train" in splits else None
        self.count: int | None = known if limit is None or (known is not None and known < limit) else limit
        self.identity = f"msmarco {version} {limit}"

    def windows(self, size: int, seed: Sequence[int] | None, first: int) -> Iterator[Judgements]:
        """The order is the Hub's, whatever ``seed``; what is before window ``first`` is passed over."""
        return _windows(self._parts(first * size), size)

    def _parts(self, over: int) -> Iterator[Judgements]:
        place = over
        batches: Iterable[pa.Table] = self._data.skip(over).with_format("arrow").iter(batch_size=_AT_ONCE)
        try:
            for batch in batches:
                yield from_table(batch, "msmarco train", "query", "passage", before=place)
                place += len(batch)
        except OSError as error:
            reason = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise UserError(f"the Hub stopped answering at row {place:,} ({reason}); go on with --resume") from error


def _windows(parts: Iterator[Judgements], size: int) -> Iterator[Judgements]:
    """``parts`` as windows of ``size`` rows, the last one of what is left."""
    waiting: list[Judgements] = []
    rows = 0
    for part in parts:
        while rows + len(part.queries) >= size:
            head, part = part.cut(size - rows)
            yield Judgements.join([*waiting, head])
            waiting, rows = [], 0
            pa.default_memory_pool().release_unused()
        if len(part.queries):
            waiting.append(part)
            rows += len(part.queries)
    if waiting:
        yield Judgements.join(waiting)


def first_rows(rows: Rows, size: int) -> Judgements:
    """The first ``size`` rows as they stand."""
    found = next(itertools.islice(rows.windows(size, None, 0), 1), None)
    if found is None:
        raise UserError("the data set has no rows; give one that holds some")
    return found


def open_rows(config: DataConfig) -> tuple[str, Rows, Collection | None] | None:
    """(the data set's name, its training rows, its own validation collection if it has one), to be read as needed.

    None for the docstrings installed here, which are in memory in any case.
    """
    asked = config.dataset
    if asked == ("pydocs",):
        return None
    if asked in (("auto",), ("msmarco",)):
        try:
            return "msmarco", HubRows(config.msmarco_config, config.max_samples), ms_marco_validation(config)
        except hub.Unavailable:
            if asked == ("msmarco",):
                raise
            return None
    sets, collections = [], []
    for name in asked:
        path = existing(name) if name not in ("auto", "msmarco", "pydocs") else Path(name)
        files = [path] if path.is_file() else training_files(path) if path.is_dir() and not is_judged(path) else []
        if not files or any(file.suffix != ".parquet" for file in files):
            known = "--streaming reads Parquet files, or MS MARCO alone from the Hub"
            raise UserError(f"{known}, and {name} is neither; leave --streaming out")
        sets.append(files)
        if path.is_dir() and (held := validation_of(path, config)) is not None:
            collections.append(held)
    rows = ParquetRows(sets, config.max_samples, config.query_field, config.passage_field)
    return " + ".join(asked), rows, merge(collections) if collections else None
