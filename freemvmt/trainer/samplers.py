"""The batches of each epoch, drawn from data in memory or from the windows of a stream."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from freemvmt.config import TrainConfig
from freemvmt.errors import UserError
from freemvmt.runtime.console import count_of
from freemvmt.trainer.dataset import Stream, TrainingData, Window
from freemvmt.trainer.objective import Objective
from freemvmt.trainer.state import Progress

Pairs = NDArray[np.int64]  # (pairs, 2): query, passage

MIN_BATCH, STEPS_OF_AN_EPOCH = 32, 5  # limits of the automatic batch size (--batch-size None)
MAX_BATCH = {"average": 8192, "recurrent": 2048, "transformer": 128}  # because of the memory for each token in training
ALIGN_BATCH = {"average": 256, "recurrent": 512, "transformer": 128}  # --loss align has no negatives to gain by more


class BatchSampler:
    """The batches of data in memory: ``steps`` in an epoch, of about ``batch_size`` of the ``pairs`` each.

    A query that learns without a label is a pair without a passage, -1.
    """

    def __init__(self, config: TrainConfig, pairs: Pairs, batch_size: int) -> None:
        self._config, self._pairs = config, pairs
        self.batch_size = batch_size
        self.pairs = len(self._pairs)
        self.steps = math.ceil(self.pairs / batch_size)

    def done(self, state: Progress) -> float:
        """The share of the training that is done."""
        return state.step / (self._config.epochs * self.steps)

    def rest_of_epoch(self, state: Progress, objective: Objective) -> Iterator[Pairs]:
        """The remaining batches of ``state.epoch``. The caller counts each batch in ``state.taken``."""
        order = np.random.default_rng([self._config.seed, state.epoch]).permutation(len(self._pairs))
        yield from np.array_split(self._pairs[order], self.steps)[state.taken :]


class StreamSampler(BatchSampler):
    """The batches of a stream, window by window. A batch has no passage twice, and at least ``min_size`` pairs.

    ``steps`` is an estimate: it assumes that all windows have as many batches as the first.
    """

    def __init__(self, config: TrainConfig, pairs: Pairs, batch_size: int, stream: Stream, min_size: int) -> None:
        super().__init__(config, pairs, batch_size)
        self._stream, self._min_size = stream, min_size
        self._steps_of_window = self.steps
        self.steps *= self._stream.count or 1

    def done(self, state: Progress) -> float:
        """Computed from the windows that are done.

        If the number of windows is unknown, the share stops at --warmup, and the learning rates stay constant.
        """
        share = state.window + min(state.taken / self._steps_of_window, 1)
        if self._stream.count is None:
            return min(share if state.epoch == 1 else 1.0, self._config.warmup)
        return min((state.epoch - 1 + share / self._stream.count) / self._config.epochs, 1.0)

    def rest_of_epoch(self, state: Progress, objective: Objective) -> Iterator[Pairs]:
        """As in ``BatchSampler``; ``objective`` reads each window before its first batch."""
        for number, window in enumerate(self._stream.windows(state.epoch, state.window), start=state.window):
            if number > state.window:
                state.window, state.taken = number, 0
            pairs = _pairs_of(window)
            objective.read(window)
            generator = np.random.default_rng([self._config.seed, state.epoch, number])
            batches = without_repeats(pairs[generator.permutation(len(pairs))], math.ceil(len(pairs) / self.batch_size))
            batches = [batch for batch in batches if len(batch) >= self._min_size]
            self._steps_of_window = max(len(batches), 1)
            yield from batches[state.taken :]


def without_repeats(pairs: Pairs, count: int) -> Sequence[Pairs]:
    """Split ``pairs`` into ``count`` batches of about equal size, so that no batch has a passage twice.

    A passage that has more pairs than there are batches loses the surplus pairs.
    """
    if not len(pairs):
        return []
    batch_of = np.repeat(np.arange(count), [len(part) for part in np.array_split(pairs, count)])
    codes = batch_of * (int(pairs[:, 1].max()) + 1) + pairs[:, 1]
    _, first = np.unique(codes, return_index=True)
    repeats = np.setdiff1d(np.arange(len(pairs)), first)
    used = {
        (int(batch_of[position]), int(pairs[position, 1]))
        for position in first[np.isin(pairs[first, 1], pairs[repeats, 1])]
    }
    for position in repeats.tolist():
        passage = int(pairs[position, 1])
        candidates = ((int(batch_of[position]) + step) % count for step in range(1, count))
        target = next((batch for batch in candidates if (batch, passage) not in used), -1)
        batch_of[position] = target
        used.add((target, passage))
    order = np.argsort(batch_of, kind="stable")
    order = order[batch_of[order] >= 0]
    ends = np.searchsorted(batch_of[order], np.arange(1, count))
    return np.split(pairs[order], ends)


def _pairs_of(data: TrainingData | Window) -> Pairs:
    return np.stack(data.examples.pairs(), axis=1)


def _texts_of(config: TrainConfig, data: TrainingData) -> Pairs:
    """The pairs, and the queries that have no answer; each query once if passages are not learned from."""
    examples = data.examples
    alone, pairs = np.flatnonzero(examples.positives.lengths == 0), _pairs_of(data)
    if config.learns_without_labels:
        alone, pairs = np.arange(len(examples.positives)), pairs[:0]
    if config.frozen == "query":
        alone = alone[:0]
    return np.concatenate([pairs, np.stack([alone, np.full(len(alone), -1)], axis=1)])


def batch_size_for(config: TrainConfig, pairs: int) -> int:
    """The batch size in pairs; ``UserError`` when --batch-size exceeds the number of ``pairs``."""
    if config.batch_size is None:
        largest = ALIGN_BATCH if config.loss == "align" else MAX_BATCH
        learning = {config.kind_of(side) for side in config.sides if side != config.frozen}
        # A large batch has harder negatives, but an epoch needs several steps.
        power_of_two = 1 << int(math.log2(max(pairs / STEPS_OF_AN_EPOCH, 1)))
        return min(max(MIN_BATCH, power_of_two), min(largest[kind] for kind in learning), pairs)
    if config.batch_size > pairs:
        count = count_of(pairs, "training pair")
        raise UserError(f"--batch-size is {config.batch_size}, more than there is: {count}; give {pairs} or less")
    return config.batch_size


def make_sampler(config: TrainConfig, data: TrainingData, processes: int) -> BatchSampler:
    """The sampler of ``data``; ``UserError`` when a batch has fewer pairs than there are processes."""
    pairs = _texts_of(config, data) if config.aligns_texts else _pairs_of(data)
    batch_size = batch_size_for(config, len(pairs))
    if batch_size < processes:
        raise UserError(f"a batch of {batch_size} for {processes} processes; give a larger --batch-size")
    if data.stream is not None:
        return StreamSampler(config, pairs, batch_size, data.stream, min_size=max(2, processes))
    return BatchSampler(config, pairs, batch_size)
