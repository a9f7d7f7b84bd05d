"""The progress of a training, and the conversion of its whole state to tensors and JSON for a checkpoint."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from freemvmt.data.ragged import IdLists
from freemvmt.model import TwoTowersModel
from freemvmt.trainer.history import thinned
from freemvmt.trainer.objective import Objective
from freemvmt.trainer.optimizers import Optimizer, Optimizers, RowwiseAdagrad


@dataclass
class Best:
    """The best epoch so far: validation NDCG@10, weights by their stored names, accumulators of the tables."""

    score: float
    epoch: int
    weights: dict[str, Tensor]
    accumulators: dict[str, Tensor]


@dataclass
class Progress:
    """The progress of a training.

    ``step`` counts all steps, ``losses`` those of ``epoch``, and ``loss`` is the sum of their losses. ``taken`` counts
    the batches of the current ``window`` of a stream, or of the epoch if the data is in memory.
    """

    step: int = 0
    epoch: int = 1
    window: int = 0
    taken: int = 0
    losses: int = 0
    loss: float = 0.0
    curve: list[list[float]] = field(default_factory=list)  # (step, loss), every ``spacing`` steps
    spacing: int = 1
    history: list[dict[str, float]] = field(default_factory=list)
    best: Best | None = None
    untrained: float = 0.0
    seconds: float = 0.0

    def count_step(self, loss: float) -> None:
        """Record a step with its loss."""
        self.step += 1
        self.taken += 1
        self.losses += 1
        self.loss += loss
        self.curve, self.spacing = thinned(self.curve, self.spacing, self.step, loss)

    def close_epoch(
        self, score: float, model: TwoTowersModel, optimizers: Optimizers, *, is_last: bool = False
    ) -> None:
        """Record the end of an epoch with validation NDCG@10 ``score``, and its weights if it is the best so far.

        The weights are copied, because the next epoch moves them; after the last one they are the model's own.
        """
        mean = self.loss / self.losses if self.losses else math.nan
        self.history.append({"step": self.step, "epoch": self.epoch, "avg_train_loss": mean, "val_ndcg_10": score})
        self.window = self.taken = self.losses = 0
        self.loss = 0.0
        if self.best is None or score > self.best.score:
            weights = {
                name: weight.detach() if is_last else weight.detach().clone()
                for name, weight in trained_tensors(model).items()
            }
            self.best = Best(score, self.epoch, weights, optimizers.accumulators(model))


def trained_tensors(model: TwoTowersModel) -> dict[str, Tensor]:
    """The weights of all sides but a frozen one, by their stored names; a change in place changes the model."""
    frozen = {side for side, tower in model.towers().items() if not tower.table.requires_grad}
    return {name: tensor for name, tensor in model.tensors().items() if name.split(".")[0] not in frozen}


def state_dict(
    model: TwoTowersModel, objective: Objective, optimizers: Optimizers, state: Progress
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of a training: (all tensors by name, everything else as JSON values)."""
    tensors = {f"model/{name}": tensor for name, tensor in trained_tensors(model).items()}
    tensors["temperature"] = objective.temperature.weight
    for place, optimizer in enumerate(optimizers.parts):
        tensors |= {f"optimizer/{place}/{name}": tensor for name, tensor in _state_of(optimizer).items()}
    tensors |= {f"random/{name}": tensor for name, tensor in _random_states(objective).items()}
    if (mined := objective.mined) is not None:
        tensors["mined/ids"], tensors["mined/offsets"] = map(torch.from_numpy, (mined.ids, mined.offsets))
    plain = dataclasses.asdict(dataclasses.replace(state, best=None))
    plain["draws"] = objective.numpy_generator.bit_generator.state
    if state.best is not None:
        tensors |= {f"best/{name}": tensor for name, tensor in state.best.weights.items()}
        tensors |= {f"best_sums/{name}": tensor for name, tensor in state.best.accumulators.items()}
        plain["best"] = {"score": state.best.score, "epoch": state.best.epoch}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, plain


@torch.no_grad()
def load_state_dict(
    model: TwoTowersModel,
    objective: Objective,
    optimizers: Optimizers,
    tensors: dict[str, Tensor],
    plain: dict[str, Any],
) -> Progress:
    """Restore the result of ``state_dict`` in a new training, and return its progress.

    Raises ``KeyError``, ``RuntimeError`` and the like if it does not fit.
    """
    model_tensors = trained_tensors(model)
    for name, tensor in model_tensors.items():
        tensor.copy_(_check_shape(tensors[f"model/{name}"], tensor))
    objective.temperature.weight.copy_(tensors["temperature"])
    for place, optimizer in enumerate(optimizers.parts):
        _restore_optimizer(optimizer, _with_prefix(f"optimizer/{place}/", tensors))
    _restore_random_states(objective, _with_prefix("random/", tensors))
    objective.numpy_generator.bit_generator.state = plain["draws"]
    if "mined/ids" in tensors:
        objective.set_negatives(IdLists(tensors["mined/ids"].numpy(), tensors["mined/offsets"].numpy()))
    best = None
    if plain["best"]:
        weights, accumulators = _with_prefix("best/", tensors), _with_prefix("best_sums/", tensors)
        for name, tensor in model_tensors.items():
            _check_shape(weights[name], tensor)
        best = Best(float(plain["best"]["score"]), int(plain["best"]["epoch"]), weights, accumulators)
    numbers = {
        attribute.name: attribute.type(plain[attribute.name])
        for attribute in dataclasses.fields(Progress)
        if attribute.type in (int, float)
    }
    curve = [[int(step), float(loss)] for step, loss in plain["curve"]]
    return Progress(**numbers, curve=curve, history=[dict(entry) for entry in plain["history"]], best=best)


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, by the rest of the name."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _random_states(objective: Objective) -> dict[str, Tensor]:
    """The states of PyTorch's random generators."""
    states = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda:{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    if objective.generator is not None:
        states["chooser"] = objective.generator.get_state()
    return states


def _restore_random_states(objective: Objective, states: dict[str, Tensor]) -> None:
    """Restore the result of ``_random_states``."""
    torch.set_rng_state(states["torch"])
    for name, state in states.items():
        if name.startswith("cuda:"):
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda:")))
    if objective.generator is not None:
        objective.generator.set_state(states["chooser"])


def _state_of(optimizer: Optimizer) -> dict[str, Tensor]:
    if isinstance(optimizer, RowwiseAdagrad):
        return {str(place): sums for place, sums in enumerate(optimizer.sums)}
    assert isinstance(optimizer, torch.optim.Optimizer)
    state = optimizer.state_dict()["state"]
    return {
        f"{number}/{name}": torch.as_tensor(value) for number, values in state.items() for name, value in values.items()
    }


def _restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    if isinstance(optimizer, RowwiseAdagrad):
        for place, sums in enumerate(optimizer.sums):
            sums.copy_(_check_shape(tensors[str(place)], sums))
        return
    assert isinstance(optimizer, torch.optim.Optimizer)
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split("/")
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _check_shape(tensor: Tensor, like: Tensor) -> Tensor:
    if tensor.shape != like.shape:
        raise ValueError(f"a tensor of {tuple(tensor.shape)} where one of {tuple(like.shape)} belongs")
    return tensor
