"""From the numbers of a batch's pairs to its loss: slices of token arrays, towers, masks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from freemvmt.config import TrainConfig
from freemvmt.devices import matrix_dtype
from freemvmt.learning.losses import TripletLoss
from freemvmt.learning.negatives import draw_given, known_positives
from freemvmt.learning.softmaxes import Distillation, InfoNCE
from freemvmt.model import TwoTowersModel
from freemvmt.text.arrays import TokenArray
from freemvmt.text.corpus import Examples


@dataclass(frozen=True, eq=False)
class Taught:
    """A teacher's vectors of all training queries and passages, (n, width), of length 1."""

    queries: NDArray[np.float16]
    passages: NDArray[np.float16]


class BatchLoss:
    """The loss of a batch of (query number, passage number) pairs of ``examples``."""

    def __init__(
        self,
        config: TrainConfig,
        model: TwoTowersModel,
        examples: Examples,
        queries: TokenArray,
        passages: TokenArray,
        taught: Taught | None = None,
    ) -> None:
        self._model, self._examples, self._taught = model, examples, taught
        length = config.train_length or config.max_length
        self._queries, self._passages = queries.cut(length), passages.cut(length)
        precision = matrix_dtype(config.precision, model.device)
        for tower in model.towers():
            tower.train_in(precision)
        self._triplet = TripletLoss(config.margin, config.negatives, precision, config.seed)
        self._infonce = InfoNCE(config.temperature, precision)
        self._distillation, self._distill = Distillation(config.temperature, precision), config.distill
        self._is_triplet = config.loss == "triplet"
        self._given = self._is_triplet and config.negatives == "given"
        self._generator = np.random.default_rng([config.seed, 0])  # draws among a row's given negatives

    def __call__(self, queries: NDArray[np.int64], passages: NDArray[np.int64]) -> Tensor:
        """The loss, a scalar with a gradient."""
        device = self._model.device
        known = known_positives(queries, passages, self._examples.positives).to(device)
        if self._given:
            drawn, has_given = draw_given(queries, self._examples.negatives, self._generator)
            query_vectors, vectors = self._model(
                self._queries.take(queries), self._passages.take(np.concatenate([passages, drawn]))
            )
            positives, given = vectors[: len(passages)], vectors[len(passages) :]
            loss = self._triplet(query_vectors, positives, known, (given, from_numpy(has_given).to(device)))
        else:
            query_vectors, positives = self._model(self._queries.take(queries), self._passages.take(passages))
            loss = (self._triplet if self._is_triplet else self._infonce)(query_vectors, positives, known)
        if self._taught is None:
            return loss
        right_queries, right_passages = (
            from_numpy(vectors).float().to(device)
            for vectors in (self._taught.queries[queries], self._taught.passages[passages])
        )
        return loss + self._distill * self._distillation(query_vectors, positives, (right_queries, right_passages))
