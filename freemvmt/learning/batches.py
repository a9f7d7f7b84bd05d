"""From the numbers of a batch's pairs to its loss: slices of token arrays, towers, masks, sizes of vectors."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, from_numpy
from torch.nn import functional as F

from freemvmt.config import TrainConfig
from freemvmt.devices import matrix_dtype
from freemvmt.errors import UserError
from freemvmt.learning.losses import MarginMSE, TripletLoss
from freemvmt.learning.negatives import Known, draw_given, known_positives
from freemvmt.learning.preparation import TrainingData, Window
from freemvmt.learning.ranks import Ranks
from freemvmt.learning.softmaxes import Distillation, InfoNCE, Temperature
from freemvmt.model import TwoTowersModel
from freemvmt.text.arrays import IdLists


@dataclass(frozen=True, eq=False)
class _Batch:
    """Vectors of length 1: (batch, dim) of queries, (batch + given, dim) of documents; see ``losses``."""

    queries: Tensor
    documents: Tensor
    known: Known
    given: Tensor | None
    taught: tuple[Tensor, Tensor] | None

    def cut(self, dim: int) -> "_Batch":
        """The same with the first ``dim`` numbers of each vector, at length 1 again."""
        queries, documents = F.normalize(self.queries[:, :dim]), F.normalize(self.documents[:, :dim])
        return _Batch(queries, documents, self.known, self.given, self.taught)


class BatchLoss:
    """The loss of a batch of (query number, passage number) pairs of ``data``.

    ``draws`` draws among a row's given negatives, ``chooser`` among a batch's; ``mined`` are the negatives that mining
    has put in the place of the given ones. Of several processes (``ranks``) each encodes its share.
    """

    def __init__(
        self, config: TrainConfig, model: TwoTowersModel, data: TrainingData, ranks: Ranks | None = None
    ) -> None:
        if config.taught and data.taught is None:
            raise UserError("the data was prepared without a teacher's vectors; prepare it with the same flags")
        self._model, self._ranks = model, ranks or Ranks()
        self._taught = data.taught if config.taught else None
        self.mined: IdLists | None = None
        self._length = config.train_length or config.max_length
        self.read(data)
        precision = matrix_dtype(config.precision, model.device)
        for tower in model.towers():
            tower.train_in(precision)
        self.temperature = Temperature(config.temperature, model.device, config.learn_temperature)
        self._loss, self.chooser = _loss_of(config, self.temperature, precision)
        self._distillation = Distillation(Temperature(config.temperature, model.device), precision)
        self._distill = config.distill
        self._given = config.negatives == "given"
        self.draws = np.random.default_rng([config.seed, 0])
        self._dims = config.matryoshka
        if self._dims and max(self._dims) >= model.dim:
            raise UserError(f"--matryoshka {max(self._dims)} but the vectors have {model.dim} numbers; give fewer")

    def read(self, data: TrainingData | Window) -> None:
        """From now on the numbers of pairs are those of ``data``."""
        self._never, self._negatives = data.examples.never_negatives, data.examples.negatives
        self._queries, self._passages = data.queries.cut(self._length), data.passages.cut(self._length)

    def take_negatives(self, negatives: IdLists) -> None:
        """Let the given negatives be these."""
        self.mined = self._negatives = negatives

    def __call__(self, queries: NDArray[np.int64], passages: NDArray[np.int64]) -> Tensor:
        """The loss, a scalar with a gradient."""
        batch = self._encoded(queries, passages)
        return torch.stack([self._of(batch), *(self._of(batch.cut(dim)) for dim in self._dims)]).sum()

    def _of(self, batch: _Batch) -> Tensor:
        loss = self._loss(batch)
        if self._distill and batch.taught is not None:
            loss = loss + self._distill * self._distillation(batch.queries, batch.documents, batch.taught)
        return loss

    def _encoded(self, queries: NDArray[np.int64], passages: NDArray[np.int64]) -> _Batch:
        device, given = self._model.device, None
        if self._given:
            drawn, place = draw_given(queries, self._negatives, self.draws)
            given = from_numpy(np.where(place < 0, -1, place + len(passages))).to(device)
            passages = np.concatenate([passages, drawn])
        known = known_positives(queries, passages, self._never).to(device)
        own_queries, own_passages = (side[self._ranks.share(len(side))] for side in (queries, passages))
        asked, documents = self._model(self._queries.take(own_queries), self._passages.take(own_passages))
        asked = self._ranks.gather(asked, len(queries))
        documents = self._ranks.gather(documents, len(passages))
        taught = None
        if self._taught is not None:
            sides = (self._taught.queries[queries], self._taught.passages[passages])
            right_queries, right_passages = (from_numpy(side).float().to(device) for side in sides)
            taught = right_queries, right_passages
        return _Batch(asked, documents, known, given, taught)


def _loss_of(
    config: TrainConfig, temperature: Temperature, precision: torch.dtype
) -> tuple[Callable[[_Batch], Tensor], torch.Generator | None]:
    """The loss that ``config`` names, and what it draws negatives with, if it does."""
    if config.loss == "infonce":
        infonce = InfoNCE(temperature, precision)
        return lambda batch: infonce(batch.queries, batch.documents, batch.known), None
    if config.loss == "triplet":
        triplet = TripletLoss(config.margin, config.negatives, precision, config.seed)
        return lambda batch: triplet(batch.queries, batch.documents, batch.known, batch.given), triplet.generator
    margins = MarginMSE(config.negatives, precision, config.seed)

    def of_margins(batch: _Batch) -> Tensor:
        assert batch.taught is not None
        return margins(batch.queries, batch.documents, batch.known, batch.taught, batch.given)

    return of_margins, margins.generator
