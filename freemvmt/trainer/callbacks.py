"""Callbacks of the training loop: tracking, the progress bar, early stopping, mining.

A callback has no state that a checkpoint needs, and draws no random numbers, so a resumed training continues bit for
bit. Decisions that several processes must share are made in the loop of ``training``, not here, so every process makes
the same calls in the same order.
"""

import time
from collections.abc import Callable

from freemvmt.config import MiningConfig
from freemvmt.runtime.console import Bar
from freemvmt.trainer.mining import mine
from freemvmt.trainer.result import Ended
from freemvmt.trainer.run import TrainingRun
from freemvmt.trainer.tracking import Tracker


class Callback:
    """The base class: does nothing at each of these moments."""

    def on_epoch_start(self, run: TrainingRun) -> None:
        """An epoch begins, or continues after a resume."""

    def on_step(self, run: TrainingRun, loss: float) -> None:
        """A step was made; its ``loss`` is finite."""

    def on_measured(self, run: TrainingRun) -> None:
        """An epoch was measured, complete or interrupted."""

    def on_epoch(self, run: TrainingRun) -> Ended | None:
        """An epoch is complete. Returns the reason to end the training, or None."""
        return None


class TrackMetrics(Callback):
    """Records the loss and the scores of a run with a tracker."""

    def __init__(self, tracker: Tracker, run: TrainingRun) -> None:
        self._tracker, self._parameters = tracker, run.parameters
        tracker.watch(run.learning_part(), run.config.watch_every)
        tracker.summary({"total_parameters": run.parameters, "untrained_val_ndcg_10": run.state.untrained})

    def on_step(self, run: TrainingRun, loss: float) -> None:
        """Record the loss of every ``log_every``-th step."""
        step = run.state.step
        if step == 1 or step % run.config.log_every == 0:
            values = {"batch_loss": loss, "epoch": run.state.epoch, "total_parameters": self._parameters}
            self._tracker.log(values, step)

    def on_measured(self, run: TrainingRun) -> None:
        """Record the epoch's mean loss and validation NDCG@10."""
        entry = run.state.history[-1]
        self._tracker.log({name: entry[name] for name in ("epoch", "avg_train_loss", "val_ndcg_10")}, run.state.step)


class ProgressBar(Callback):
    """Shows the progress and speed of a training."""

    def __init__(self, bar: Bar, run: TrainingRun) -> None:
        self._bar = bar
        bar.advance(run.state.step)

    def on_epoch_start(self, run: TrainingRun) -> None:
        """Start the clock: the speed is measured within an epoch."""
        self._epoch_start, self._first_step = time.perf_counter(), run.state.losses

    def on_step(self, run: TrainingRun, loss: float) -> None:
        """Advance by one step."""
        state = run.state
        rate = (state.losses - self._first_step) * run.sampler.batch_size / (time.perf_counter() - self._epoch_start)
        self._bar.advance(note=f"epoch {state.epoch}/{run.config.epochs}  loss {loss:.4f}  {rate:,.0f} pairs/s")


class OnEpoch(Callback):
    """Calls a function with (epoch, validation NDCG@10) after each epoch; an exception from it ends the training."""

    def __init__(self, function: Callable[[int, float], None]) -> None:
        self._function = function

    def on_epoch(self, run: TrainingRun) -> None:
        """Call the function."""
        self._function(run.state.epoch, run.state.history[-1]["val_ndcg_10"])


class EarlyStopping(Callback):
    """Ends a training after --patience epochs without a better validation NDCG@10."""

    def on_epoch(self, run: TrainingRun) -> Ended | None:
        """End the training if the best epoch is too long ago."""
        patience, best = run.config.patience, run.state.best
        return "patience" if patience and best and run.state.epoch - best.epoch >= patience else None


class SelfMining(Callback):
    """Mines new negatives with the current model every --self-mine-every epochs, but not after the last epoch."""

    def on_epoch(self, run: TrainingRun) -> None:
        """Replace the negatives of the data."""
        every, epoch = run.config.self_mine_every, run.state.epoch
        if every and epoch % every == 0 and epoch < run.config.epochs:
            run.objective.set_negatives(mine(run.model, run.data, MiningConfig(by="model")).negatives)
