"""A running training: all its parts, created in the order that exact resume requires."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from freemvmt.config import TrainConfig
from freemvmt.errors import UserError
from freemvmt.evaluation.metrics import ndcg_10
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.devices import keep_freed_memory, pick_device
from freemvmt.search.index.ranking import Ranking
from freemvmt.trainer.checkpoints import Checkpoints
from freemvmt.trainer.dataset import TrainingData
from freemvmt.trainer.distributed import SingleProcess
from freemvmt.trainer.objective import Objective
from freemvmt.trainer.optimizers import Optimizers
from freemvmt.trainer.result import Ended, TrainingResult
from freemvmt.trainer.samplers import BatchSampler, make_sampler
from freemvmt.trainer.state import Progress, load_state_dict, state_dict, trained_tensors
from freemvmt.trainer.validation import rank_validation, validate
from freemvmt.trainer.warm_start import scale_by_idf, warm_start


@dataclass
class TrainingRun:
    """The parts of a training, and its progress (``state``)."""

    config: TrainConfig
    data: TrainingData
    model: TwoTowersModel
    objective: Objective
    optimizers: Optimizers
    sampler: BatchSampler
    checkpoints: Checkpoints
    ranks: SingleProcess
    state: Progress
    started: float = field(default_factory=time.perf_counter)
    seconds_before: float = 0.0  # seconds of training before this process resumed it
    ranking: Ranking | None = None  # of the last validation, if this process ranked it

    @classmethod
    def start(
        cls, config: TrainConfig, data: TrainingData, checkpoints: Checkpoints, ranks: SingleProcess
    ) -> "TrainingRun":
        """Create all parts of a training, and restore their state if there is a checkpoint to resume from.

        The order of the statements is the order in which random numbers are drawn: exact resume depends on it.
        """
        started = time.perf_counter()
        torch.manual_seed(config.seed)
        if set(config.kinds) != {"average"}:
            keep_freed_memory()
        model = data.start.with_own_queries() if data.start else TwoTowersModel(config.model_config())
        model.to(pick_device(config.device))
        accumulators = warm_start(model, config.init) if config.init else {}
        if config.frozen:
            model.freeze(config.frozen)
        saved = checkpoints.saved
        state = Progress(untrained=0.0 if saved else ranks.broadcast(lambda: validate(model, data)))
        if config.idf_scale and not config.init:
            scale_by_idf(model, data.passages, config.idf_scale)
        objective = Objective(config, model, data, ranks)
        optimizers = Optimizers(model, config, objective.temperature.weight, accumulators)
        sampler = make_sampler(config, data, ranks.size)
        run = cls(config, data, model, objective, optimizers, sampler, checkpoints, ranks, state, started)
        if saved:
            saved.restore(run)
            run.seconds_before = run.state.seconds
        if not ranks.is_first:
            # The ranks draw different dropout masks, because they encode different texts.
            torch.manual_seed(hash((config.seed, run.state.step, ranks.rank)))
        return run

    @property
    def parameters(self) -> int:
        """The number of the model's parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def learning_part(self) -> torch.nn.Module:
        """The model, or the tower that learns beside a frozen one."""
        frozen = self.config.frozen
        if frozen is None:
            return self.model
        return self.model.query_tower if frozen == "document" else self.model.document_tower

    def clock(self) -> float:
        """Seconds of training so far, including those before a resume."""
        return self.seconds_before + time.perf_counter() - self.started

    def validate(self) -> float:
        """NDCG@10 of the model as it is, over the whole validation corpus; the first rank measures it for all."""

        def score() -> float:
            self.ranking = rank_validation(self.model, self.data)
            return ndcg_10(self.ranking, self.data.validation)

        return self.ranks.broadcast(score)

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The content of a checkpoint: (all tensors by name, everything else as JSON values)."""
        return state_dict(self.model, self.objective, self.optimizers, self.state)

    def load_state_dict(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Restore the result of ``state_dict``; ``KeyError``, ``RuntimeError`` and the like if it does not fit."""
        self.state = load_state_dict(self.model, self.objective, self.optimizers, tensors, plain)

    def result(self, ended: Ended) -> TrainingResult:
        """The best epoch's model and scores. Raises ``UserError`` when the loss diverged in the first epoch."""
        state, best = self.state, self.state.best
        if best is None:
            raise UserError(f"the loss is not a number at step {state.step}, in the first epoch; lower --learning-rate")
        with torch.no_grad():
            for name, weight in trained_tensors(self.model).items():
                weight.copy_(best.weights[name])
        self.model.accumulators = best.accumulators
        return TrainingResult(
            self.model,
            best.score,
            best.epoch,
            state.untrained,
            state.history,
            state.curve,
            pairs=self.sampler.pairs,
            steps=state.step,
            seconds=self.clock(),
            ended=ended,
            ranking=self.ranking if best.epoch == state.history[-1]["epoch"] else None,
        )
