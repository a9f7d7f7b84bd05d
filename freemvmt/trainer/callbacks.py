"""What happens beside a training: records, the progress bar, early stopping, mining.

A callback has no state that a checkpoint would have to hold, and draws no random number. What several processes must
agree on is asked in the loop of ``training``, not here. So a training that was stopped goes on bit for bit, and every
process makes the same calls in the same order.
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
    """Does nothing: the base of those that do something at one of these moments."""

    def on_epoch_start(self, run: TrainingRun) -> None:
        """An epoch begins, or goes on after a stop."""

    def on_step(self, run: TrainingRun, loss: float) -> None:
        """A step was made, with this loss, which is finite."""

    def on_measured(self, run: TrainingRun) -> None:
        """An epoch was measured, also one that was cut short."""

    def on_epoch(self, run: TrainingRun) -> Ended | None:
        """An epoch is over; why the training ends with it, if it does."""
        return None


class TrackMetrics(Callback):
    """Records the loss and the scores of a run with a tracker."""

    def __init__(self, tracker: Tracker, run: TrainingRun) -> None:
        self._tracker, self._parameters = tracker, run.parameters
        tracker.watch(run.model, run.config.watch_every)
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
    """Shows how far a training is, and how fast."""

    def __init__(self, bar: Bar, run: TrainingRun) -> None:
        self._bar = bar
        bar.advance(run.state.step)

    def on_epoch_start(self, run: TrainingRun) -> None:
        """The speed is that of the epoch."""
        self._clock, self._first = time.perf_counter(), run.state.losses

    def on_step(self, run: TrainingRun, loss: float) -> None:
        """One step further."""
        state = run.state
        rate = (state.losses - self._first) * run.sampler.batch_size / (time.perf_counter() - self._clock)
        self._bar.advance(note=f"epoch {state.epoch}/{run.config.epochs}  loss {loss:.4f}  {rate:,.0f} pairs/s")


class OnEpoch(Callback):
    """Tells a function (epoch, validation NDCG@10) after each epoch; what it raises ends the training."""

    def __init__(self, function: Callable[[int, float], None]) -> None:
        self._function = function

    def on_epoch(self, run: TrainingRun) -> None:
        """Call it."""
        self._function(run.state.epoch, run.state.history[-1]["val_ndcg_10"])


class EarlyStopping(Callback):
    """Ends a training after --patience epochs without a better validation NDCG@10."""

    def on_epoch(self, run: TrainingRun) -> Ended | None:
        """Compare with the best epoch."""
        patience, best = run.config.patience, run.state.best
        return "patience" if patience and best and run.state.epoch - best.epoch >= patience else None


class SelfMining(Callback):
    """Mines new negatives with the model as it is, after every --self-mine-every epochs but the last."""

    def on_epoch(self, run: TrainingRun) -> None:
        """Replace the negatives that the rows came with."""
        every, epoch = run.config.self_mine_every, run.state.epoch
        if every and epoch % every == 0 and epoch < run.config.epochs:
            run.objective.set_negatives(mine(run.model, run.data, MiningConfig(by="model")).negatives)
