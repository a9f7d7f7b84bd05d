"""The loss of a batch of pairs: tokens, towers, positives, negatives, and the loss function."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, from_numpy
from torch.nn import functional as F

from freemvmt.config import TowerName, TrainConfig
from freemvmt.data.ragged import IdLists
from freemvmt.errors import UserError
from freemvmt.losses.alignment import alignment_loss
from freemvmt.losses.negatives import draw_given_negatives, known_positives
from freemvmt.losses.similarity import PositivePairs
from freemvmt.losses.softmax import Distillation, InfoNCE, Temperature
from freemvmt.losses.triplet import MarginMSE, TripletLoss
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.devices import matrix_dtype
from freemvmt.towers.unit_vectors import unit_vectors
from freemvmt.trainer.dataset import TrainingData, Window
from freemvmt.trainer.distributed import SingleProcess


@dataclass(frozen=True, eq=False)
class _Batch:
    """Vectors of length 1: (batch, dim) of queries, (batch + given negatives, dim) of documents; see ``losses``.

    ``teacher`` has the vectors of the same texts by the teacher or the frozen tower.
    """

    queries: Tensor
    documents: Tensor
    known: PositivePairs
    given_negatives: Tensor | None
    teacher: tuple[Tensor, Tensor] | None

    def cut(self, dim: int) -> "_Batch":
        """The batch with the first ``dim`` numbers of each vector, scaled to length 1."""
        queries, documents = unit_vectors(self.queries[:, :dim]), unit_vectors(self.documents[:, :dim])
        return _Batch(queries, documents, self.known, self.given_negatives, self.teacher)


class Objective:
    """The loss of a batch of (query number, passage number) pairs of ``data``.

    ``numpy_generator`` draws given negatives, ``generator`` draws negatives from a batch, if the loss draws any.
    ``mined`` are the negatives of the last mining, which replace those of the data; None before. Each process of
    ``ranks`` encodes its share of the batch.
    """

    def __init__(
        self, config: TrainConfig, model: TwoTowersModel, data: TrainingData, ranks: SingleProcess | None = None
    ) -> None:
        if config.compares_with_vectors and data.teacher_vectors is None:
            raise UserError("the data was prepared without a teacher's vectors; prepare it with the same flags")
        self._model, self._ranks = model, ranks or SingleProcess()
        self._teacher = data.teacher_vectors if config.compares_with_vectors else None
        if config.loss == "align" and self._teacher is not None and self._teacher.queries.shape[1] != model.dim:
            raise UserError(
                f"--loss align: the vectors to learn have {self._teacher.queries.shape[1]} numbers, the model's "
                f"{model.dim}; give a --teacher, a --base or a --dim of one size"
            )
        self._frozen = config.frozen
        self.mined: IdLists | None = None
        self._length = config.train_length or config.max_length
        self.read(data)
        precision = matrix_dtype(config.precision, model.device)
        for tower in model.towers().values():
            tower.train_in(precision)
        self.temperature = Temperature(config.temperature, model.device, config.learn_temperature)
        self._loss, self.generator = _make_loss(config, config.seed, self.temperature, precision)
        self._distillation = Distillation(Temperature(config.temperature, model.device), precision)
        self._distill = config.distill
        self._uses_given = config.negatives == "given" and not config.aligns_texts
        self.numpy_generator = np.random.default_rng([config.seed, 0])
        self._dims = config.matryoshka
        if self._dims and max(self._dims) >= model.dim:
            raise UserError(f"--matryoshka {max(self._dims)} but the vectors have {model.dim} numbers; give fewer")

    def read(self, data: TrainingData | Window) -> None:
        """Use the texts of ``data``: the numbers of pairs refer to it from now on."""
        self._never_negatives, self._negatives = data.examples.never_negatives, data.examples.negatives
        self._queries, self._passages = data.queries.cut(self._length), data.passages.cut(self._length)

    def set_negatives(self, negatives: IdLists) -> None:
        """Replace the negatives of the data."""
        self.mined = self._negatives = negatives

    def __call__(self, queries: NDArray[np.int64], passages: NDArray[np.int64]) -> Tensor:
        """The loss, a scalar with a gradient."""
        batch = self._encoded(queries, passages)
        return torch.stack(
            [self._loss_of_batch(batch), *(self._loss_of_batch(batch.cut(dim)) for dim in self._dims)]
        ).sum()

    def _loss_of_batch(self, batch: _Batch) -> Tensor:
        loss = self._loss(batch)
        if self._distill and batch.teacher is not None:
            loss = loss + self._distill * self._distillation(batch.queries, batch.documents, batch.teacher)
        return loss

    def _encoded(self, queries: NDArray[np.int64], passages: NDArray[np.int64]) -> _Batch:
        device, given_negatives = self._model.device, None
        passages = passages[passages >= 0]  # a query that learns without labels has none
        if self._uses_given:
            drawn, row = draw_given_negatives(queries, self._negatives, self.numpy_generator)
            given_negatives = from_numpy(np.where(row < 0, -1, row + len(passages))).to(device)
            passages = np.concatenate([passages, drawn])
        positives = known_positives(queries, passages, self._never_negatives).to(device)
        teacher = None
        if self._teacher is not None:
            sides = (self._teacher.queries[queries], self._teacher.passages[passages])
            teacher_queries, teacher_passages = (from_numpy(side).float().to(device) for side in sides)
            teacher = teacher_queries, teacher_passages
        query_vectors, document_vectors = self._vectors(queries, passages, teacher)
        return _Batch(query_vectors, document_vectors, positives, given_negatives, teacher)

    def _vectors(
        self, queries: NDArray[np.int64], passages: NDArray[np.int64], teacher: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Vectors of length 1, (queries, dim) and (passages, dim); those of a frozen side were made before."""
        own_queries, own_passages = (side[self._ranks.share(len(side))] for side in (queries, passages))
        if self._frozen is None:
            query_vectors, document_vectors = self._model(
                self._queries.take(own_queries), self._passages.take(own_passages)
            )
            query_vectors = self._ranks.gather(query_vectors, len(queries))
            return query_vectors, self._ranks.gather(document_vectors, len(passages))
        assert teacher is not None
        if self._frozen == "document":
            vectors = self._model.query_vectors(self._queries.take(own_queries))
            return self._ranks.gather(vectors, len(queries)), F.normalize(teacher[1])
        vectors = self._model.document_vectors(self._passages.take(own_passages))
        return F.normalize(teacher[0]), self._ranks.gather(vectors, len(passages))


def _alignment(frozen: TowerName | None, batch: _Batch) -> Tensor:
    """The alignment of each side that learns, added."""
    assert batch.teacher is not None
    sides = {"query": (batch.queries, batch.teacher[0]), "document": (batch.documents, batch.teacher[1])}
    return torch.stack([alignment_loss(*pair) for side, pair in sides.items() if side != frozen]).sum()


def _make_loss(
    config: TrainConfig, seed: int, temperature: Temperature, precision: torch.dtype
) -> tuple[Callable[[_Batch], Tensor], torch.Generator | None]:
    """The loss function that ``config`` names, and its random generator, if it draws negatives."""
    if config.loss == "align":
        return functools.partial(_alignment, config.frozen), None
    if config.loss == "infonce":
        infonce = InfoNCE(temperature, precision)
        return lambda batch: infonce(batch.queries, batch.documents, batch.known), None
    if config.loss == "triplet":
        triplet = TripletLoss(config.margin, config.negatives, precision, seed)
        return lambda batch: triplet(
            batch.queries, batch.documents, batch.known, batch.given_negatives
        ), triplet.generator
    margin_mse = MarginMSE(config.negatives, precision, seed)

    def margin_mse_loss(batch: _Batch) -> Tensor:
        assert batch.teacher is not None
        return margin_mse(batch.queries, batch.documents, batch.known, batch.teacher, batch.given_negatives)

    return margin_mse_loss, margin_mse.generator
