"""Stream training rows, one window at a time: from Parquet files in a seeded order, or from the Hub.

A window is the shuffle buffer: only its rows are in memory. The rows of a window depend on the seed and the epoch
alone, so a position in the data is two numbers: a window and a batch in it.
"""

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
from freemvmt.data.load import existing_path, is_judged, ms_marco_validation, training_files, validation_of
from freemvmt.data.readers.msmarco import ms_marco
from freemvmt.data.readers.parquet import BATCH_ROWS, from_table, parquet_shape, parquet_tables
from freemvmt.errors import UserError, first_line
from freemvmt.storage import hub
from freemvmt.storage.digests import digest_of


class RowSource(Protocol):
    """The rows of a data set."""

    @property
    def count(self) -> int | None:
        """The number of rows; None if it is unknown before the last row is read."""

    @property
    def identity(self) -> str:
        """A hash or a text that differs for other rows."""

    def windows(self, size: int, seed: Sequence[int] | None, first: int) -> Iterator[Judgements]:
        """The windows from number ``first`` on, ``size`` rows each, in the order of ``seed``; None: in file order."""


@dataclass(frozen=True)
class _RowGroup:
    """The first ``rows`` rows of a row group of a Parquet file."""

    path: Path
    group: int
    start: int  # number of its first row in the file
    rows: int


class ParquetRows:
    """The rows of Parquet files. ``files_by_dataset``: the files of each data set, of which ``limit`` rows are read."""

    def __init__(
        self, files_by_dataset: Sequence[Sequence[Path]], limit: int | None, query_field: str, passage_field: str
    ) -> None:
        self._fields = query_field, passage_field
        self._groups: list[_RowGroup] = []
        identity: list[str | bytes] = [repr((limit, self._fields))]
        for files in files_by_dataset:
            remaining = limit
            for path in files:
                start = 0
                group_sizes, footer = parquet_shape(path)
                identity.append(footer)
                for number, size in enumerate(group_sizes):
                    row_count = size if remaining is None else min(size, remaining)
                    remaining = None if remaining is None else remaining - row_count
                    if row_count:
                        self._groups.append(_RowGroup(path, number, start, row_count))
                    start += size
        self.count: int | None = sum(group.rows for group in self._groups)
        self.identity = digest_of(identity)
        if not self.count:
            raise UserError(
                f"{', '.join(str(path) for files in files_by_dataset for path in files)}: no rows; give files with some"
            )

    def windows(self, size: int, seed: Sequence[int] | None, first: int) -> Iterator[Judgements]:
        """Windows of row groups in the order of ``seed``. Most row groups before window ``first`` are not read."""
        groups = self._groups
        if seed is not None:
            groups = [groups[number] for number in np.random.default_rng(list(seed)).permutation(len(groups))]
        return _windows(self._chunks(groups, first * size), size)

    def _chunks(self, groups: Sequence[_RowGroup], skip: int) -> Iterator[Judgements]:
        for group in groups:
            if skip >= group.rows:
                skip -= group.rows
                continue
            remaining, row = group.rows, group.start
            for table in parquet_tables(group.path, *self._fields, BATCH_ROWS, group.group):
                rows = table.slice(0, remaining)
                remaining -= len(rows)
                skipped = min(skip, len(rows))
                skip -= skipped
                if len(rows) > skipped:
                    yield from_table(rows.slice(skipped), str(group.path), *self._fields, before=row + skipped)
                row += len(rows)
                if not remaining:
                    break


class HubRows:
    """The first ``limit`` training rows of MS MARCO on the Hub."""

    def __init__(self, version: str, limit: int | None) -> None:
        self._version, self._limit = version, limit
        self._data: Any = ms_marco(version, "train", streaming=True, rows=limit)
        splits = self._data.info.splits or {}
        total = splits["train"].num_examples if "train" in splits else None
        self.count: int | None = total if limit is None or (total is not None and total < limit) else limit
        self.identity = f"msmarco {version} {limit}"

    def windows(self, size: int, seed: Sequence[int] | None, first: int) -> Iterator[Judgements]:
        """Windows in the Hub's order; ``seed`` has no effect."""
        return _windows(self._chunks(first * size), size)

    def _chunks(self, skip: int) -> Iterator[Judgements]:
        row = skip
        batches: Iterable[pa.Table] = self._data.skip(skip).with_format("arrow").iter(batch_size=BATCH_ROWS)
        try:
            for batch in batches:
                yield from_table(batch, "msmarco train", "query", "passage", before=row)
                row += len(batch)
        except OSError as error:
            reason = first_line(error)
            raise UserError(f"the Hub stopped answering at row {row:,} ({reason}); go on with --resume") from error


def _windows(chunks: Iterator[Judgements], size: int) -> Iterator[Judgements]:
    """Join and split ``chunks`` into windows of ``size`` rows. The last window may be smaller."""
    buffer: list[Judgements] = []
    buffered_rows = 0
    for chunk in chunks:
        while buffered_rows + len(chunk.queries) >= size:
            head, chunk = chunk.cut(size - buffered_rows)
            yield Judgements.join([*buffer, head])
            buffer, buffered_rows = [], 0
            pa.default_memory_pool().release_unused()
        if len(chunk.queries):
            buffer.append(chunk)
            buffered_rows += len(chunk.queries)
    if buffer:
        yield Judgements.join(buffer)


def first_rows(rows: RowSource, size: int) -> Judgements:
    """The first ``size`` rows in file order."""
    window = next(itertools.islice(rows.windows(size, None, 0), 1), None)
    if window is None:
        raise UserError("the data set has no rows; give one that holds some")
    return window


def open_rows(config: DataConfig) -> tuple[str, RowSource, Collection | None] | None:
    """Open the data sets of ``config.dataset`` for streaming: (name, training rows, validation collection or None).

    None for ``pydocs``, which is in memory in any case.
    """
    names = config.dataset
    if names == ("pydocs",):
        return None
    if names in (("auto",), ("msmarco",)):
        try:
            return "msmarco", HubRows(config.msmarco_config, config.max_samples), ms_marco_validation(config)
        except hub.Unavailable:
            if names == ("msmarco",):
                raise
            return None
    files_by_dataset, collections = [], []
    for name in names:
        path = existing_path(name) if name not in ("auto", "msmarco", "pydocs") else Path(name)
        files = [path] if path.is_file() else training_files(path) if path.is_dir() and not is_judged(path) else []
        if not files or any(file.suffix != ".parquet" for file in files):
            message = "--streaming reads Parquet files, or MS MARCO alone from the Hub"
            raise UserError(f"{message}, and {name} is neither; leave --streaming out")
        files_by_dataset.append(files)
        if path.is_dir() and (validation := validation_of(path, config)) is not None:
            collections.append(validation)
    rows = ParquetRows(files_by_dataset, config.max_samples, config.query_field, config.passage_field)
    return " + ".join(names), rows, merge(collections) if collections else None
