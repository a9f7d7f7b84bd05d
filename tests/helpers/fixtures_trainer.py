import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from freemvmt.config import TrainConfig
from freemvmt.trainer.dataset import TrainingData, prepare


@pytest.fixture(scope="session")
def shards(rows_file: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of ``rows_file`` in Parquet: three shards of training, in row groups, and validation."""
    rows = [json.loads(line) for line in Path(rows_file).read_text().splitlines()]
    folder = tmp_path_factory.mktemp("shards")
    parts = {"train-0": rows[:200], "train-1": rows[200:230], "train-2": rows[230:500], "validation": rows[500:]}
    for name, part in parts.items():
        pq.write_table(pa.Table.from_pylist(part), folder / f"{name}.parquet", row_group_size=70)
    return folder


@pytest.fixture(scope="session")
def streamed_config(tiny_config: TrainConfig, shards: Path) -> TrainConfig:
    return dataclasses.replace(
        tiny_config, dataset=(str(shards),), streaming=True, shuffle_buffer=150, batch_size=40, epochs=2
    )


@pytest.fixture(scope="session")
def streamed_data(streamed_config: TrainConfig) -> TrainingData:
    return prepare(streamed_config)
