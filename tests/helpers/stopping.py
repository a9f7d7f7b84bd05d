"""Trainings that are cut off."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from freemvmt.config import TrainConfig
from freemvmt.trainer.checkpoints import Checkpoints, last_checkpoint
from freemvmt.trainer.dataset import TrainingData
from freemvmt.trainer.result import TrainingResult
from freemvmt.trainer.run import TrainingRun
from freemvmt.training import train


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """What a power cut would be."""


class StoppedAt(Checkpoints):
    """Writes after step ``last`` and the one before it, which is as much as is kept, and stops for good."""

    last = 0

    def tick(self, run: TrainingRun) -> None:
        if run.state.step >= self.last - 1:
            self.write(run)
        if run.state.step == self.last:
            raise Stopped


def stopped_after(stops: Iterable[int], folder: Path, config: TrainConfig, data: TrainingData) -> TrainingResult:
    """The end of one training that was stopped after each of the steps ``stops`` and each time went on."""
    saved = None
    for number, last in enumerate(stops):
        checkpoints = StoppedAt(folder, config, data, saved=saved)
        checkpoints.last = last
        torch.manual_seed(number)  # what went before counts for nothing
        with pytest.raises(Stopped):
            train(config, data, checkpoints=checkpoints)
        saved = last_checkpoint(folder)
        assert int(saved.path.stem[5:]) == last
    torch.manual_seed(99)
    going_on = Checkpoints(folder, config, data, saved=saved)
    result = train(config, data, checkpoints=going_on)
    going_on.clear()
    assert not folder.exists()
    return result


def same(one: TrainingResult, other: TrainingResult) -> bool:
    weights = one.model.tensors(), other.model.tensors()
    return (
        weights[0].keys() == weights[1].keys()
        and all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        and all(torch.equal(sums, other.model.accumulators[name]) for name, sums in one.model.accumulators.items())
        and (one.history, one.curve, one.best_epoch, one.steps, one.ended, one.untrained_ndcg_10)
        == (other.history, other.curve, other.best_epoch, other.steps, other.ended, other.untrained_ndcg_10)
    )
