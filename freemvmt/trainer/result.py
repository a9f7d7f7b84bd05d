"""The result of a training: the best model, its scores, and the record that is saved with it."""

import dataclasses
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from freemvmt.config import TrainConfig
from freemvmt.evaluation.metrics import bounds_of, interval_of_ndcg_10, protocol_of
from freemvmt.model import TwoTowersModel
from freemvmt.search.index.ranking import Ranking
from freemvmt.storage.model_card import write_card
from freemvmt.trainer.dataset import TrainingData
from freemvmt.trainer.history import History
from freemvmt.trainer.validation import rank_validation

Ended = Literal["finished", "patience", "interrupted", "diverged"]  # why a training is over


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """The result of a training: ``model`` is that of ``best_epoch``, with the validation NDCG@10 ``val_ndcg_10``.

    ``ended`` is the reason for the end. If the loss diverged, it did so at step ``steps``. ``ranking`` is the model's
    on the validation corpus, if it was the last one to be measured.
    """

    model: TwoTowersModel
    val_ndcg_10: float
    best_epoch: int
    untrained_ndcg_10: float
    history: list[dict[str, float]] = field(repr=False)
    curve: list[list[float]] = field(repr=False)
    pairs: int
    steps: int
    seconds: float
    ended: Ended
    ranking: Ranking | None = field(default=None, repr=False)


def save(config: TrainConfig, data: TrainingData, result: TrainingResult, output: Path) -> None:
    """Write the model folder, with the record, card and history of the training."""
    result.model.record = record_of(config, data, result)
    history = History(result.curve, result.history, result.untrained_ndcg_10)
    card = write_card(config, result.model.record, output.name, result.model.sentence)
    result.model.save(output, card, history.write)


def record_of(config: TrainConfig, data: TrainingData, result: TrainingResult) -> dict[str, Any]:
    """The record of the training for the model folder."""
    validation = data.validation
    ranking = result.ranking or rank_validation(result.model, data)
    interval = interval_of_ndcg_10(ranking, validation)
    frozen: dict[str, Any] = {}
    if data.frozen is not None:
        retention = data.frozen.retention(result.val_ndcg_10)
        frozen = {"frozen_ndcg@10": round(data.frozen.ndcg_10, 6), "retention": round(retention, 4)}
    return {
        "version": version("two-towers"),
        "data": data.name,
        "pairs": result.pairs,
        "dim": result.model.dim,
        "config": dataclasses.asdict(config),
        "ended": result.ended,
        "scores": {
            "ndcg@10": round(result.val_ndcg_10, 6),
            "untrained_ndcg@10": round(result.untrained_ndcg_10, 6),
            "best_epoch": result.best_epoch,
            "interval_95": {"ndcg@10": bounds_of(interval)},
            **frozen,
        },
        "validation": {
            "collection": validation.name,
            "protocol": protocol_of(validation),
            "queries": len(validation.queries),
            "documents": len(validation.documents),
        },
    }
