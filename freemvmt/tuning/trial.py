"""One trial of a sweep, in the process of the sweep or in a worker: its data, its record, its training."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from freemvmt.config import TrainConfig
from freemvmt.runtime.console import QUIET, Console
from freemvmt.trainer import tracking
from freemvmt.trainer.tracking import Tracker, WandbTracker

if TYPE_CHECKING:
    from freemvmt.trainer.dataset import TrainingData
    from freemvmt.trainer.result import TrainingResult

OnEpoch = Callable[[int, float], None]


def read(config: TrainConfig, console: Console = QUIET) -> "TrainingData":
    """The data of all trials, without the texts, which no trial reads."""
    from freemvmt.runtime.devices import return_freed_memory
    from freemvmt.trainer.dataset import prepare

    data = prepare(config, console).without_texts()
    return_freed_memory()
    return data


def train(*arguments: Any, **named: Any) -> "TrainingResult":
    """As ``freemvmt.training.train``, which is imported here, where a wrong flag is known no more."""
    from freemvmt.training import train

    return train(*arguments, **named)


@dataclasses.dataclass(frozen=True)
class Training:
    """The functions by which a sweep reads its data and trains its trials."""

    prepare: Callable[[TrainConfig, Console], "TrainingData"] = read
    train: Callable[..., "TrainingResult"] = train


OWN = Training()


def identity(data: "TrainingData") -> tuple[str, int]:
    """The name of a data set and its number of pairs: scores on others are not comparable."""
    return data.name, len(data.examples.pairs()[0])


def offline_tracker(config: TrainConfig, sweep_name: str, number: int) -> Tracker:
    """The record of a trial whose settings Optuna chose."""
    extra: dict[str, object] = {"sweep_name": sweep_name, "trial": number}
    return tracking.start(config, extra=extra, announce=False, online=False)


def offline_runs(tracker: Tracker) -> str:
    """The path pattern of W&B's offline runs; empty if nothing is recorded."""
    return tracker.offline_runs if isinstance(tracker, WandbTracker) else ""


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What trains every trial: the same function, on the same data."""

    train: Callable[..., "TrainingResult"]
    data: "TrainingData"
    console: Console = QUIET

    def score(self, config: TrainConfig, tracker: Tracker, on_epoch: OnEpoch) -> float:
        """Train by ``config`` and return NDCG@10 on the validation queries; ``tracker`` is closed.

        ``KeyboardInterrupt`` if a signal ended the training, which must end the sweep too.
        """
        failed = True
        try:
            result = self.train(config, self.data, tracker=tracker, console=self.console, on_epoch=on_epoch)
            failed = False
        finally:
            tracker.finish(failed=failed)
        if result.ended == "interrupted":
            raise KeyboardInterrupt
        return result.val_ndcg_10
