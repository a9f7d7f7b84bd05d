"""A whole training recorded by W&B itself, offline, and read back from the file that it wrote."""

import dataclasses
from pathlib import Path

import pytest

from freemvmt.config import TrainConfig
from freemvmt.training import train_and_save

import wandb_file


def test_a_training_records_every_metric_the_config_and_the_histograms(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_PROJECT", "towers-of-a-test")
    changes = {"wandb": True, "log_every": 2, "watch_every": 5, "log_model": True, "output": str(tmp_path / "model")}
    config = dataclasses.replace(tiny_config, **changes)
    result, output = train_and_save(config)
    run = wandb_file.read(tmp_path / "wandb")

    assert run.project == "towers-of-a-test"
    for name, value in dataclasses.asdict(config).items():
        assert run.config[name] == (list(value) if isinstance(value, tuple) else value), name
    assert run.config["pairs"] == result.pairs
    losses = run.series("batch_loss")
    assert list(losses) == [1, *range(2, result.steps + 1, 2)]
    assert all(loss >= 0 for loss in losses.values())
    scores = [epoch["val_ndcg_10"] for epoch in result.history]
    assert list(run.series("val_ndcg_10").values()) == pytest.approx(scores)
    assert len(run.series("avg_train_loss")) == config.epochs
    assert set(run.series("epoch").values()) == {1, 2, 3}
    assert set(run.series("total_parameters").values()) == {30522 * 48}
    for kind in ("gradients", "parameters"):
        histograms = run.series(f"{kind}/document_tower.table/_type")
        assert histograms, f"no histogram of {kind}"
        assert set(histograms.values()) == {"histogram"}
    assert run.summary["val_ndcg_10"] == pytest.approx(result.val_ndcg_10)
    assert run.summary["best_epoch"] == result.best_epoch
    assert sorted(run.artifacts["model:model"]) == sorted(file.name for file in output.iterdir())
    assert run.exit_code == 0
