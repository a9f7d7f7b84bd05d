"""What happens beside the loop, each without a training; and the loop's own step and epoch."""

import dataclasses
import math

import pytest
import torch

from freemvmt.config import TrainConfig
from freemvmt.runtime.console import Bar
from freemvmt.trainer.callbacks import Callback, EarlyStopping, OnEpoch, ProgressBar, SelfMining, TrackMetrics
from freemvmt.trainer.checkpoints import Checkpoints
from freemvmt.trainer.dataset import TrainingData
from freemvmt.trainer.distributed import SingleProcess
from freemvmt.trainer.run import TrainingRun
from freemvmt.trainer.state import Best, Progress
from freemvmt.trainer.tracking import Tracker
from freemvmt.training import run_epoch, step


def run_of(config: TrainConfig, data: TrainingData, **state: object) -> TrainingRun:
    run = TrainingRun.start(config, data, Checkpoints(None, config, data), SingleProcess())
    return dataclasses.replace(run, state=Progress(**state))  # type: ignore[arg-type]


class Notes(Tracker):
    """Keeps what is recorded."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float | int]]] = []

    def log(self, metrics: dict[str, float | int], step: int) -> None:
        self.logged.append((step, metrics))


def test_the_loss_of_the_first_step_and_of_every_few_is_recorded_and_so_is_each_epoch(
    tiny_config: TrainConfig, tiny_data: TrainingData
) -> None:
    run, notes = run_of(dataclasses.replace(tiny_config, log_every=2), tiny_data), Notes()
    callback = TrackMetrics(notes, run)
    for _ in range(5):
        run.state.count_step(0.5)
        callback.on_step(run, 0.5)
    run.state.close_epoch(0.25, run.model, run.optimizers)
    callback.on_measured(run)
    *losses, epoch = notes.logged
    assert [at for at, _ in losses] == [1, 2, 4]
    assert losses[0][1] == {"batch_loss": 0.5, "epoch": 1, "total_parameters": run.parameters}
    assert epoch == (5, {"epoch": 1, "avg_train_loss": 0.5, "val_ndcg_10": 0.25})


def test_the_bar_starts_where_a_stopped_training_was(tiny_config: TrainConfig, tiny_data: TrainingData) -> None:
    class Steps(Bar):
        done, note = 0, ""

        def advance(self, steps: int = 1, note: str = "") -> None:
            self.done, self.note = self.done + steps, note

    run, bar = run_of(tiny_config, tiny_data, step=7, epoch=2), Steps()
    callback = ProgressBar(bar, run)
    assert bar.done == 7
    callback.on_epoch_start(run)
    run.state.count_step(0.5)
    callback.on_step(run, 0.5)
    assert bar.done == 8
    assert bar.note.startswith(f"epoch 2/{tiny_config.epochs}  loss 0.5000  ")


def test_patience_counts_from_the_best_epoch(tiny_config: TrainConfig, tiny_data: TrainingData) -> None:
    best = Best(0.5, 2, {}, {})
    for patience, epoch, reason in ((None, 9, None), (2, 3, None), (2, 4, "patience"), (1, 3, "patience")):
        config = dataclasses.replace(tiny_config, patience=patience)
        run = run_of(config, tiny_data, epoch=epoch, best=best)
        assert EarlyStopping().on_epoch(run) == reason


def test_what_is_called_after_an_epoch_is_told_its_number_and_score(
    tiny_config: TrainConfig, tiny_data: TrainingData
) -> None:
    seen: list[tuple[int, float]] = []
    run = run_of(tiny_config, tiny_data, epoch=3, history=[{"val_ndcg_10": 0.1}, {"val_ndcg_10": 0.75}])
    OnEpoch(lambda epoch, score: seen.append((epoch, score))).on_epoch(run)
    assert seen == [(3, 0.75)]


@pytest.mark.parametrize(("epoch", "mined"), [(1, False), (2, True), (3, False), (4, False)])  # the last is of no use
def test_negatives_are_mined_after_every_few_epochs_but_the_last(
    tiny_config: TrainConfig, tiny_data: TrainingData, epoch: int, mined: bool
) -> None:
    config = dataclasses.replace(tiny_config, negatives="given", self_mine_every=2, epochs=4)
    run = run_of(config, tiny_data, epoch=epoch)
    SelfMining().on_epoch(run)
    assert (run.objective.mined is not None) == mined


def test_a_step_moves_the_weights_and_counts(tiny_config: TrainConfig, tiny_data: TrainingData) -> None:
    run = run_of(tiny_config, tiny_data)
    before = {name: weight.clone() for name, weight in run.model.tensors().items()}
    batch = next(run.sampler.rest_of_epoch(run.state, run.objective))
    value = step(run, batch)
    assert math.isfinite(value)
    assert (run.state.step, run.state.taken, run.state.losses, run.state.loss) == (1, 1, 1, value)
    assert any(not torch.equal(weight, before[name]) for name, weight in run.model.tensors().items())


def test_a_loss_that_is_not_finite_never_reaches_the_weights(
    tiny_config: TrainConfig, tiny_data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tiny_config, tiny_data)
    before = {name: weight.clone() for name, weight in run.model.tensors().items()}
    real = run.objective.__call__
    monkeypatch.setattr(type(run.objective), "__call__", lambda _, *pairs: real(*pairs) * math.nan)
    calls: list[str] = []

    class Said(Callback):
        def on_step(self, run: TrainingRun, loss: float) -> None:
            calls.append("step")

        def on_measured(self, run: TrainingRun) -> None:
            calls.append("measured")

    assert run_epoch(run, [Said()], lambda: False) == "diverged"
    assert calls == []
    assert run.state.step == 1
    assert run.state.history == []
    assert all(torch.equal(weight, before[name]) for name, weight in run.model.tensors().items())


def test_an_interruption_ends_the_epoch_after_the_step_and_measures(
    tiny_config: TrainConfig, tiny_data: TrainingData
) -> None:
    run = run_of(tiny_config, tiny_data)

    class Never(Callback):
        def on_epoch(self, run: TrainingRun) -> None:
            raise AssertionError("an epoch that was cut short is not over")

    assert run_epoch(run, [Never()], lambda: True) == "interrupted"
    assert run.state.step == 1
    assert len(run.state.history) == 1


def test_the_best_epoch_keeps_its_weights_while_later_ones_move(
    tiny_config: TrainConfig, tiny_data: TrainingData
) -> None:
    run = run_of(tiny_config, tiny_data)
    run.state.count_step(1.0)
    run.state.count_step(3.0)
    run.state.close_epoch(0.5, run.model, run.optimizers)
    first = {name: weight.clone() for name, weight in run.model.tensors().items()}
    with torch.no_grad():
        for weight in run.model.tensors().values():
            weight.add_(1.0)
    run.state.epoch = 2
    run.state.close_epoch(0.4, run.model, run.optimizers)
    best = run.state.best
    assert best is not None
    assert (best.epoch, best.score) == (1, 0.5)
    assert all(torch.equal(best.weights[name], weight) for name, weight in first.items())
    assert run.state.history[0]["avg_train_loss"] == 2.0
    assert math.isnan(run.state.history[1]["avg_train_loss"])
    assert (run.state.window, run.state.taken, run.state.losses, run.state.loss) == (0, 0, 0, 0.0)
