"""Training from rows that are read as they are needed: every row once an epoch, no passage twice in a batch, bit-equal
after a stop. That two processes end with the same is in test_ranks.py."""

import dataclasses
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from torch import Tensor

from freemvmt.config import TrainConfig
from freemvmt.data.judgements import Judgements
from freemvmt.data.streaming import ParquetRows
from freemvmt.errors import UserError
from freemvmt.trainer.checkpoints import Checkpoints, last_checkpoint
from freemvmt.trainer.dataset import TrainingData, prepare
from freemvmt.trainer.objective import Objective
from freemvmt.trainer.samplers import without_repeats
from freemvmt.training import train

from stopping import Stopped, StoppedAt, same, stopped_after


def told(judgements: Judgements) -> list[tuple[str, tuple[tuple[str, bool], ...]]]:
    """Each row, in order: its query, and its passages with their labels."""
    queries, passages = judgements.queries.to_pylist(), judgements.passages.to_pylist()
    of_row: list[list[tuple[str, bool]]] = [[] for _ in queries]
    for row, text, label in zip(judgements.rows.tolist(), passages, judgements.labels.tolist(), strict=True):
        of_row[row].append((text, label))
    return [(query, tuple(sorted(found))) for query, found in zip(queries, of_row, strict=True)]


@pytest.mark.parametrize("size", [1, 7, 70, 150, 500, 4096])
@pytest.mark.parametrize("limit", [None, 333])
def test_every_row_is_in_one_window_and_any_window_can_be_the_first(shards: Path, size: int, limit: int | None) -> None:
    files = sorted(shards.glob("train-*.parquet"))
    rows = ParquetRows([files], limit, "query", "passage")
    assert rows.count == (limit or 500)
    in_order = [row for window in rows.windows(4096, None, 0) for row in told(window)]
    assert len(in_order) == rows.count
    epochs = []
    for epoch in (1, 2):
        windows = [told(window) for window in rows.windows(size, (0, epoch), 0)]
        assert [len(window) for window in windows[:-1]] == [size] * (len(windows) - 1)
        assert sum(map(len, windows)) == rows.count
        assert Counter(row for window in windows for row in window) == Counter(in_order)
        for first in {0, 1, len(windows) // 2, len(windows) - 1}:
            assert [told(window) for window in rows.windows(size, (0, epoch), first)] == windows[first:]
        assert list(rows.windows(size, (0, epoch), len(windows))) == []
        epochs.append([row for window in windows for row in window])
    assert epochs[0] != epochs[1]


def test_pairs_with_negatives_and_several_data_sets(tmp_path: Path) -> None:
    pairs = [{"q": f"q{n}", "p": f"p{n % 50}", "negative": f"n{n}"} for n in range(300)]
    for name, part in (("a", pairs[:100]), ("b", pairs[100:])):
        pq.write_table(pa.Table.from_pylist(part), tmp_path / f"{name}.parquet", row_group_size=64)
    rows = ParquetRows([[tmp_path / "a.parquet"], [tmp_path / "b.parquet"]], 90, "q", "p")
    assert rows.count == 180
    wanted = [(row["q"], ((row["n"], False), (row["p"], True))) for row in map(_short, pairs[:90] + pairs[100:190])]
    assert [row for window in rows.windows(11, None, 0) for row in told(window)] == wanted
    other = ParquetRows([[tmp_path / "a.parquet"]], None, "q", "p")
    assert other.identity != rows.identity


def test_the_same_files_are_the_same_rows_in_another_process(shards: Path) -> None:
    """A training is resumed in another process than the one that wrote the checkpoint."""
    files = sorted(map(str, shards.glob("train-*.parquet")))
    code = (
        "import sys; from pathlib import Path; from freemvmt.data.streaming import ParquetRows\n"
        "print(ParquetRows([[Path(file) for file in sys.argv[1:]]], None, 'query', 'passage').identity)"
    )
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ParquetRows([list(map(Path, files))], None, "query", "passage").identity


def _short(row: dict[str, str]) -> dict[str, str]:
    return {"q": row["q"], "p": row["p"], "n": row["negative"]}


def test_no_passage_stands_twice_in_a_batch() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        size, passages, count = draw.integers(1, 300), draw.integers(1, 400), int(draw.integers(1, 12))
        pairs = np.stack([np.arange(size), draw.integers(0, passages, size)], axis=1)
        batches = without_repeats(pairs, count)
        assert len(batches) == count
        kept = np.concatenate(batches)
        assert len(np.unique(kept[:, 0])) == len(kept)
        for batch in batches:
            assert len(np.unique(batch[:, 1])) == len(batch)
        most = np.minimum(np.bincount(pairs[:, 1]), count)
        assert (np.bincount(kept[:, 1], minlength=len(most)) == most).all()  # none is left out that fits
    assert list(without_repeats(np.empty((0, 2), np.int64), 3)) == []


def test_a_stream_learns_and_keeps_its_promises(
    streamed_config: TrainConfig, streamed_data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], list[str]]] = []
    call = Objective.__call__

    def watched(self: Objective, queries: NDArray[np.int64], passages: NDArray[np.int64]) -> Tensor:
        seen.append(([self._queries[n].tobytes() for n in queries], [self._passages[n].tobytes() for n in passages]))
        return call(self, queries, passages)

    monkeypatch.setattr(Objective, "__call__", watched)
    result = train(streamed_config, streamed_data)
    assert result.val_ndcg_10 > result.untrained_ndcg_10 + 0.1
    assert result.steps == len(seen)
    for _, passages in seen:
        assert len(set(passages)) == len(passages) >= 2
    whole = prepare(dataclasses.replace(streamed_config, streaming=False))
    tokens = {whole.queries[number].tobytes() for number in range(len(whole.queries))}
    middle = len(seen) // 2
    for epoch in (seen[:middle], seen[middle:]):
        assert {query for queries, _ in epoch for query in queries} == tokens
    held = {streamed_data.validation_queries[n].tobytes() for n in range(len(streamed_data.validation_queries))}
    assert not held & {query for queries, _ in seen for query in queries}


VARIANTS: dict[str, dict[str, Any]] = {
    "triplet": {},
    "infonce": {"loss": "infonce", "negatives": "given", "learn_temperature": True, "warmup": 0.3},
    "recurrent": {"tower": "recurrent", "hidden": 8, "loss": "infonce"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_stopped_stream_goes_on_bit_for_bit(
    variant: str, streamed_config: TrainConfig, streamed_data: TrainingData, tmp_path: Path
) -> None:
    config = dataclasses.replace(streamed_config, **VARIANTS[variant])
    whole = train(config, streamed_data)
    stops = (1, 4, 5, whole.steps // 2, whole.steps // 2 + 1, whole.steps - 1, whole.steps)
    assert same(stopped_after(stops, tmp_path / "checkpoints", config, streamed_data), whole)


def test_a_checkpoint_of_other_rows_is_refused(
    streamed_config: TrainConfig, streamed_data: TrainingData, shards: Path, tmp_path: Path
) -> None:
    checkpoints = StoppedAt(tmp_path / "kept", streamed_config, streamed_data)
    checkpoints.last = 1
    with pytest.raises(Stopped):
        train(streamed_config, streamed_data, checkpoints=checkpoints)
    table = pq.read_table(shards / "train-2.parquet").slice(0, 200)
    files = {path.name: path.read_bytes() for path in shards.iterdir()}
    other = tmp_path / "other"
    other.mkdir()
    for name, content in files.items():
        (other / name).write_bytes(content)
    pq.write_table(table, other / "train-2.parquet")
    changed = dataclasses.replace(streamed_config, dataset=(str(other),))
    with pytest.raises(UserError, match="content was"):
        Checkpoints(tmp_path / "kept", changed, prepare(changed), saved=last_checkpoint(tmp_path / "kept"))


def test_without_a_validation_split_some_of_the_first_rows_are_held_out(shards: Path, tiny_config: TrainConfig) -> None:
    files = tuple(str(shards / f"train-{number}.parquet") for number in (0, 2))
    config = dataclasses.replace(tiny_config, dataset=files, streaming=True, shuffle_buffer=100, batch_size=32)
    data = prepare(config)
    assert data.stream is not None
    assert len(data.validation.queries) == 20  # a fifth of the first rows
    assert train(config, data).steps > 3 * 4


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"distill": 1.0}, "a teacher needs all texts at once"),
        ({"negatives": "given", "self_mine_every": 1}, "--self-mine-every needs all texts at once"),
        ({"shuffle_buffer": 1}, "--shuffle-buffer is 1; give 2 or more"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(tiny_config: TrainConfig, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        dataclasses.replace(tiny_config, streaming=True, **changes)


def test_what_is_no_stream_is_refused(tiny_config: TrainConfig, shards: Path, rows_file: str, tmp_path: Path) -> None:
    for dataset in ((rows_file,), ("msmarco", str(shards)), (str(tmp_path),)):
        with pytest.raises(UserError, match=r"leave --streaming out|holds no .parquet"):
            prepare(dataclasses.replace(tiny_config, dataset=dataset, streaming=True))
    damaged = tmp_path / "train.parquet"
    content = bytearray((shards / "train-0.parquet").read_bytes())
    content[100:400] = random.Random(0).randbytes(300)
    damaged.write_bytes(content)
    with pytest.raises(UserError, match="not a sound Parquet file"):
        prepare(dataclasses.replace(tiny_config, dataset=(str(damaged),), streaming=True))
    empty = tmp_path / "empty.parquet"
    pq.write_table(pq.read_table(shards / "train-0.parquet").slice(0, 0), empty)
    with pytest.raises(UserError, match="no rows"):
        prepare(dataclasses.replace(tiny_config, dataset=(str(empty),), streaming=True))
