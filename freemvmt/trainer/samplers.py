"""The batches of each epoch, from all of the data in memory or from a window of a stream at a time."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from freemvmt.config import TrainConfig
from freemvmt.errors import UserError
from freemvmt.trainer.dataset import TrainingData, Window
from freemvmt.trainer.objective import Objective
from freemvmt.trainer.state import Progress

Pairs = NDArray[np.int64]  # (pairs, 2): query, passage

MIN_BATCH, STEPS_OF_AN_EPOCH = 32, 5  # what --batch-size None keeps to
MAX_BATCH = {"average": 8192, "recurrent": 2048, "transformer": 128}  # for all that is kept of a token in training


class BatchSampler:
    """The batches of ``data``, all of which is in memory: ``steps`` an epoch, about ``batch_size`` pairs each."""

    def __init__(self, config: TrainConfig, data: TrainingData, batch_size: int) -> None:
        self._config = config
        self._pairs = _pairs_of(data)
        self.batch_size = batch_size
        self.steps = math.ceil(len(self._pairs) / batch_size)

    def done(self, state: Progress) -> float:
        """The share of the training that is over."""
        return state.step / (self._config.epochs * self.steps)

    def rest_of_epoch(self, state: Progress, objective: Objective) -> Iterator[Pairs]:
        """The batches of ``state.epoch`` that are still to come; who takes one counts it in ``state.taken``."""
        order = np.random.default_rng([self._config.seed, state.epoch]).permutation(len(self._pairs))
        yield from np.array_split(self._pairs[order], self.steps)[state.taken :]


class StreamSampler(BatchSampler):
    """The batches of a stream: those of a window, then of the next. No passage stands twice in a batch.

    ``steps`` is what it will be if all windows are as the first one.
    """

    def __init__(self, config: TrainConfig, data: TrainingData, batch_size: int, least: int) -> None:
        super().__init__(config, data, batch_size)
        assert data.stream is not None
        self._stream, self._least = data.stream, least
        self._steps_of_window = self.steps
        self.steps *= self._stream.count or 1

    def done(self, state: Progress) -> float:
        """By windows; where it is not known how many there are, the rates stay as they are after the warm-up's share
        of the first one."""
        share = state.window + min(state.taken / self._steps_of_window, 1)
        if self._stream.count is None:
            return min(share if state.epoch == 1 else 1.0, self._config.warmup)
        return min((state.epoch - 1 + share / self._stream.count) / self._config.epochs, 1.0)

    def rest_of_epoch(self, state: Progress, objective: Objective) -> Iterator[Pairs]:
        """As of ``BatchSampler``; ``objective`` reads each window before its first batch."""
        for number, window in enumerate(self._stream.windows(state.epoch, state.window), start=state.window):
            if number > state.window:
                state.window, state.taken = number, 0
            pairs = _pairs_of(window)
            objective.read(window)
            draw = np.random.default_rng([self._config.seed, state.epoch, number])
            batches = without_repeats(pairs[draw.permutation(len(pairs))], math.ceil(len(pairs) / self.batch_size))
            batches = [batch for batch in batches if len(batch) >= self._least]
            self._steps_of_window = max(len(batches), 1)
            yield from batches[state.taken :]


def without_repeats(pairs: Pairs, count: int) -> Sequence[Pairs]:
    """``pairs`` in ``count`` batches of about one size, so that no passage stands twice in one.

    A passage that stands in more pairs than there are batches is left out of the others.
    """
    if not len(pairs):
        return []
    batch_of = np.repeat(np.arange(count), [len(part) for part in np.array_split(pairs, count)])
    codes = batch_of * (int(pairs[:, 1].max()) + 1) + pairs[:, 1]
    _, first = np.unique(codes, return_index=True)
    again = np.setdiff1d(np.arange(len(pairs)), first)
    taken = {(int(batch_of[place]), int(pairs[place, 1])) for place in first[np.isin(pairs[first, 1], pairs[again, 1])]}
    for place in again.tolist():
        passage = int(pairs[place, 1])
        others = ((int(batch_of[place]) + step) % count for step in range(1, count))
        free = next((batch for batch in others if (batch, passage) not in taken), -1)
        batch_of[place] = free
        taken.add((free, passage))
    order = np.argsort(batch_of, kind="stable")
    order = order[batch_of[order] >= 0]
    ends = np.searchsorted(batch_of[order], np.arange(1, count))
    return np.split(pairs[order], ends)


def _pairs_of(data: TrainingData | Window) -> Pairs:
    return np.stack(data.examples.pairs(), axis=1)


def batch_size_for(config: TrainConfig, pairs: int) -> int:
    """The batch size in pairs; ``UserError`` when there are fewer pairs than were asked for in one batch."""
    if config.batch_size is None:
        # A large batch has hard negatives, but an epoch needs its steps.
        fitting = 1 << int(math.log2(max(pairs / STEPS_OF_AN_EPOCH, 1)))
        return min(max(MIN_BATCH, fitting), MAX_BATCH[config.tower], pairs)
    if config.batch_size > pairs:
        raise UserError(
            f"--batch-size is {config.batch_size} but there are {pairs} training pairs; give {pairs} or less"
        )
    return config.batch_size


def make_sampler(config: TrainConfig, data: TrainingData, processes: int) -> BatchSampler:
    """The sampler of ``data``; ``UserError`` where a batch would be too small for the processes that share it."""
    batch_size = batch_size_for(config, len(data.examples.positives.ids))
    if batch_size < processes:
        raise UserError(f"a batch of {batch_size} for {processes} processes; give a larger --batch-size")
    if data.stream is not None:
        return StreamSampler(config, data, batch_size, least=max(2, processes))
    return BatchSampler(config, data, batch_size)
