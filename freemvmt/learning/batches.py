"""From the numbers of a batch's pairs to its loss: slices of token arrays, towers, masks."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from freemvmt.config import TrainConfig
from freemvmt.devices import matrix_dtype
from freemvmt.learning.losses import InfoNCE, TripletLoss
from freemvmt.learning.negatives import draw_given, known_positives
from freemvmt.model import TwoTowersModel
from freemvmt.text.arrays import TokenArray
from freemvmt.text.corpus import Examples


class BatchLoss:
    """The loss of a batch of (query number, passage number) pairs of ``examples``."""

    def __init__(
        self,
        config: TrainConfig,
        model: TwoTowersModel,
        examples: Examples,
        queries: TokenArray,
        passages: TokenArray,
    ) -> None:
        self._model, self._examples, self._queries, self._passages = model, examples, queries, passages
        precision = matrix_dtype(config.precision, model.device)
        self._triplet = TripletLoss(config.margin, config.negatives, precision, config.seed)
        self._infonce = InfoNCE(config.temperature, precision)
        self._is_triplet = config.loss == "triplet"
        self._given = self._is_triplet and config.negatives == "given"
        self._generator = np.random.default_rng([config.seed, 0])  # draws among a row's given negatives

    def __call__(self, queries: NDArray[np.int64], passages: NDArray[np.int64]) -> Tensor:
        """The loss, a scalar with a gradient."""
        device = self._model.device
        known = known_positives(queries, passages, self._examples.positives).to(device)
        if not self._given:
            query_vectors, document_vectors = self._model(self._queries.take(queries), self._passages.take(passages))
            loss = self._triplet if self._is_triplet else self._infonce
            return loss(query_vectors, document_vectors, known)
        drawn, has_given = draw_given(queries, self._examples.negatives, self._generator)
        query_vectors, document_vectors = self._model(
            self._queries.take(queries), self._passages.take(np.concatenate([passages, drawn]))
        )
        positives, given = document_vectors[: len(passages)], document_vectors[len(passages) :]
        return self._triplet(query_vectors, positives, known, (given, from_numpy(has_given).to(device)))
