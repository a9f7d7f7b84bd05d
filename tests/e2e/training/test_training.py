import dataclasses
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from freemvmt.config import TrainConfig
from freemvmt.errors import UserError
from freemvmt.evaluation.metrics import ndcg_10
from freemvmt.model import TwoTowersModel
from freemvmt.search.index.exact import top_k
from freemvmt.trainer.dataset import TrainingData, prepare
from freemvmt.trainer.samplers import batch_size_for
from freemvmt.trainer.tracking import Tracker
from freemvmt.trainer.validation import rank_validation, validate
from freemvmt.training import train, train_and_save


def test_training_lifts_validation_far_above_untrained(tiny_config: TrainConfig, tiny_data: TrainingData) -> None:
    result = train(tiny_config, tiny_data)
    assert result.ended == "finished"
    assert result.untrained_ndcg_10 < 0.3
    assert result.val_ndcg_10 > result.untrained_ndcg_10 + 0.3
    assert validate(result.model, tiny_data) == result.val_ndcg_10


def test_the_loop_needs_no_text(tiny_config: TrainConfig, tiny_data: TrainingData) -> None:
    without = tiny_data.without_texts()
    assert not without.examples.queries
    assert not without.examples.passages
    config = dataclasses.replace(tiny_config, negatives="given", self_mine_every=1, epochs=2)
    tables = [train(config, data).model.document_tower.table for data in (tiny_data, without)]
    assert torch.equal(*tables)


def test_only_tokens_of_a_slow_tokenizer_are_cached(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWO_TOWERS_CACHE", str(tmp_path))
    fast = prepare(tiny_config)
    assert not list(tmp_path.rglob("*.safetensors"))
    monkeypatch.setattr("freemvmt.data.tokenizer.Tokenizer.engine", "tokenizers")
    slow = [prepare(tiny_config) for _ in range(2)]  # the second reads the cache
    assert len(list((tmp_path / "tokens").glob("*.safetensors"))) == 4
    for data in slow:
        np.testing.assert_array_equal(data.passages.ids, fast.passages.ids)
        np.testing.assert_array_equal(data.queries.offsets, fast.queries.offsets)


@pytest.mark.parametrize(
    "changes",
    [
        {"negatives": "random"},
        {"negatives": "all"},
        {"negatives": "given"},
        {"loss": "infonce"},
        {"precision": "bf16"},
        {"separate_towers": True},
        {"dim": 24},
        {"dim": 24, "separate_towers": True},
        {"idf_scale": 0.0},
        {"batch_size": 16},
        {"tower": "recurrent"},
        {"tower": "recurrent", "cell": "gru", "separate_towers": True, "dim": 24, "loss": "infonce"},
        {"tower": "recurrent", "cell": "lstm", "pooling": "mean", "bidirectional": False, "hidden": 8, "layers": 2},
        {"tower": "recurrent", "separate_towers": True, "shared_table": True, "dim": 24},
        {"train_length": 12},
    ],
    ids=str,
)
def test_every_way_of_training_learns(
    tiny_config: TrainConfig, tiny_data: TrainingData, changes: dict[str, object]
) -> None:
    result = train(dataclasses.replace(tiny_config, **changes), tiny_data)
    assert result.val_ndcg_10 > result.untrained_ndcg_10 + 0.15


@pytest.mark.parametrize(
    "changes", [{}, {"negatives": "random"}, {"negatives": "given"}, {"dim": 24}, {"tower": "recurrent"}], ids=str
)
def test_one_seed_gives_equal_bits_and_another_seed_does_not(
    tiny_config: TrainConfig, tiny_data: TrainingData, changes: dict[str, object]
) -> None:
    config = dataclasses.replace(tiny_config, epochs=2, **changes)
    first, second = (train(config, tiny_data).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = train(dataclasses.replace(config, seed=1), tiny_data).model.state_dict()
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_small_batches_at_the_missions_rate_learn_too(tiny_config: TrainConfig, tiny_data: TrainingData) -> None:
    result = train(dataclasses.replace(tiny_config, batch_size=16, learning_rate=2e-4, epochs=5), tiny_data)
    assert result.val_ndcg_10 > result.untrained_ndcg_10 + 0.3


def test_the_best_epoch_is_what_comes_back(tiny_config: TrainConfig, tiny_data: TrainingData) -> None:
    config = dataclasses.replace(tiny_config, epochs=6, learning_rate=0.05)  # far too high: it gets worse again
    result = train(config, tiny_data)
    scores = [epoch["val_ndcg_10"] for epoch in result.history]
    assert scores.index(max(scores)) + 1 == result.best_epoch
    assert result.val_ndcg_10 == max(scores) == validate(result.model, tiny_data)


def test_the_last_epochs_ranking_is_not_made_again(tiny_config: TrainConfig, tiny_data: TrainingData) -> None:
    result = train(tiny_config, tiny_data)
    assert result.best_epoch == len(result.history)
    again = rank_validation(result.model, tiny_data)
    assert result.ranking is not None
    assert np.array_equal(result.ranking.documents, again.documents)
    assert np.array_equal(result.ranking.scores, again.scores)

    worse_again = train(dataclasses.replace(tiny_config, epochs=6, learning_rate=0.05), tiny_data)
    assert worse_again.best_epoch < len(worse_again.history)
    assert worse_again.ranking is None


def test_patience_stops_early(tiny_config: TrainConfig, tiny_data: TrainingData) -> None:
    config = dataclasses.replace(tiny_config, epochs=40, learning_rate=0.05, patience=2)
    result = train(config, tiny_data)
    assert result.ended == "patience"
    assert len(result.history) == result.best_epoch + 2 < 40


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_keeps_the_model(
    tiny_config: TrainConfig, tiny_data: TrainingData, number: signal.Signals
) -> None:
    handler = signal.getsignal(number)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), number))
    timer.start()
    result = train(dataclasses.replace(tiny_config, epochs=100_000), tiny_data)
    assert result.ended == "interrupted"
    assert 1 <= len(result.history) < 100_000
    assert validate(result.model, tiny_data) == result.val_ndcg_10
    assert signal.getsignal(number) is handler


def test_an_exception_of_on_epoch_passes_through(tiny_config: TrainConfig, tiny_data: TrainingData) -> None:
    seen: list[tuple[int, float]] = []

    def stop_at_2(epoch: int, score: float) -> None:
        seen.append((epoch, score))
        if epoch == 2:
            raise LookupError

    with pytest.raises(LookupError):
        train(tiny_config, tiny_data, on_epoch=stop_at_2)
    assert [epoch for epoch, _ in seen] == [1, 2]


def test_a_tracker_is_told_every_metric(tiny_config: TrainConfig, tiny_data: TrainingData) -> None:
    class Recorder(Tracker):
        def __init__(self) -> None:
            self.logged: list[tuple[int, dict[str, float]]] = []
            self.totals: dict[str, object] = {}
            self.watched: list[torch.nn.Module] = []

        def watch(self, model: torch.nn.Module, every: int) -> None:
            self.watched.append(model)

        def log(self, metrics: dict[str, float | int], step: int) -> None:
            self.logged.append((step, dict(metrics)))

        def summary(self, values: dict[str, object]) -> None:
            self.totals |= values

    recorder = Recorder()
    result = train(dataclasses.replace(tiny_config, log_every=1), tiny_data, tracker=recorder)
    names = set().union(*(metrics for _, metrics in recorder.logged))
    assert {"batch_loss", "avg_train_loss", "epoch", "val_ndcg_10", "total_parameters"} <= names
    steps = [step for step, _ in recorder.logged]
    assert steps == sorted(steps)
    assert steps[-1] == result.steps
    assert recorder.watched == [result.model]
    assert recorder.totals["total_parameters"] == 30522 * 48
    assert recorder.totals["val_ndcg_10"] == result.val_ndcg_10


def test_the_default_batch_is_no_larger_than_the_data(tiny_config: TrainConfig) -> None:
    config = dataclasses.replace(tiny_config, batch_size=None)
    assert [batch_size_for(config, pairs) for pairs in (5, 100, 1_000, 10_000, 1_000_000)] == [5, 32, 128, 1024, 8192]
    assert batch_size_for(dataclasses.replace(config, tower="recurrent"), 1_000_000) == 2048
    with pytest.raises(UserError, match="100 training pairs"):
        batch_size_for(dataclasses.replace(config, batch_size=101), 100)


def test_a_saved_model_knows_how_it_was_made(tiny_config: TrainConfig, tmp_path: object) -> None:
    config = dataclasses.replace(tiny_config, output=f"{tmp_path}/model", epochs=1)
    result, output = train_and_save(config)
    card = (output / "README.md").read_text()
    assert f"{result.val_ndcg_10:.4f}" in card
    assert "full corpus" in card
    assert "--epochs 1" in card
    assert {file.name for file in output.iterdir()} == {
        "README.md",
        "accumulators.safetensors",
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "model.safetensors",
        "tokenizer.json",
    }


def test_no_validation_query_is_trained_on(tiny_data: TrainingData) -> None:
    assert not set(tiny_data.examples.queries) & set(tiny_data.validation.queries)
    assert np.all(tiny_data.examples.positives.lengths >= 1)


def test_matryoshka_makes_the_first_numbers_a_vector_of_their_own(
    tiny_config: TrainConfig, tiny_data: TrainingData
) -> None:
    config = dataclasses.replace(tiny_config, loss="infonce")

    def cut(model: TwoTowersModel) -> float:
        queries = F.normalize(model.encode_query_tokens(tiny_data.validation_queries)[:, :6])
        documents = F.normalize(model.encode_document_tokens(tiny_data.validation_documents)[:, :6])
        return ndcg_10(top_k(queries, documents, 10), tiny_data.validation)

    plain, nested = (train(dataclasses.replace(config, matryoshka=dims), tiny_data).model for dims in ((), (6, 12)))
    assert cut(nested) > cut(plain) + 0.05
    with pytest.raises(UserError, match="--matryoshka 48 but the vectors have 48 numbers"):
        train(dataclasses.replace(config, matryoshka=(48,)), tiny_data)


def test_margins_are_learned_from_a_teacher(
    tiny_config: TrainConfig, tiny_data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWO_TOWERS_CACHE", str(tmp_path / "cache"))
    train(tiny_config, tiny_data).model.save(tmp_path / "teacher")
    config = dataclasses.replace(tiny_config, loss="margin-mse", teacher=str(tmp_path / "teacher"), negatives="all")
    with pytest.raises(UserError, match="prepared without a teacher"):
        train(config, tiny_data)
    result = train(config, prepare(config))
    assert result.val_ndcg_10 > 1.3 * result.untrained_ndcg_10
