"""What a training is made of and how far it is, as tensors and JSON: what a checkpoint holds."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from freemvmt.learning.batches import BatchLoss
from freemvmt.learning.curve import thinned
from freemvmt.learning.optimizers import Optimizer, RowwiseAdagrad
from freemvmt.model import TwoTowersModel
from freemvmt.text.arrays import IdLists


@dataclass
class Best:
    """The best epoch so far: its validation NDCG@10, the weights by their stored names, the tables' accumulators."""

    score: float
    epoch: int
    weights: dict[str, Tensor]
    accumulators: dict[str, Tensor]


@dataclass
class Progress:
    """How far a training is: ``step`` steps in all; ``losses`` of them in ``epoch``, whose losses add up to ``loss``;
    in ``window`` of a stream, or in all that there is, ``taken`` batches of it."""

    step: int = 0
    epoch: int = 1
    window: int = 0
    taken: int = 0
    losses: int = 0
    loss: float = 0.0
    curve: list[list[float]] = field(default_factory=list)  # (step, loss), each ``spacing`` steps
    spacing: int = 1
    history: list[dict[str, float]] = field(default_factory=list)
    best: Best | None = None
    untrained: float = 0.0
    seconds: float = 0.0

    def took(self, loss: float) -> None:
        """Count a step and its loss."""
        self.step, self.taken, self.losses, self.loss = self.step + 1, self.taken + 1, self.losses + 1, self.loss + loss
        self.curve, self.spacing = thinned(self.curve, self.spacing, self.step, loss)


@dataclass
class Parts:
    """What a training is made of, apart from how far it is."""

    model: TwoTowersModel
    loss: BatchLoss
    optimizers: list[Optimizer]

    def stored(self, progress: Progress) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(all tensors by name, all else for JSON)."""
        tensors = {f"model/{name}": tensor for name, tensor in self.model.tensors().items()}
        tensors["temperature"] = self.loss.temperature.weight
        for place, optimizer in enumerate(self.optimizers):
            tensors |= {f"optimizer/{place}/{name}": tensor for name, tensor in _state_of(optimizer).items()}
        for name, tensor in _random_states(self.loss).items():
            tensors[f"random/{name}"] = tensor
        negatives = self.loss.mined
        if negatives is not None:
            tensors["mined/ids"], tensors["mined/offsets"] = map(torch.from_numpy, (negatives.ids, negatives.offsets))
        plain = dataclasses.asdict(dataclasses.replace(progress, best=None))
        plain["draws"] = self.loss.draws.bit_generator.state
        if progress.best is not None:
            tensors |= {f"best/{name}": tensor for name, tensor in progress.best.weights.items()}
            tensors |= {f"best_sums/{name}": tensor for name, tensor in progress.best.accumulators.items()}
            plain["best"] = {"score": progress.best.score, "epoch": progress.best.epoch}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, plain

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> Progress:
        """Take up what ``stored`` gave; raises ``KeyError``, ``RuntimeError`` and the like where it does not fit."""
        own = self.model.tensors()
        for name, tensor in own.items():
            tensor.copy_(_shaped(tensors[f"model/{name}"], tensor))
        self.loss.temperature.weight.copy_(tensors["temperature"])
        for place, optimizer in enumerate(self.optimizers):
            prefix = f"optimizer/{place}/"
            _put_state(optimizer, {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
        _put_random_states(
            self.loss, {n.removeprefix("random/"): t for n, t in tensors.items() if n.startswith("random/")}
        )
        self.loss.draws.bit_generator.state = plain["draws"]
        if "mined/ids" in tensors:
            self.loss.take_negatives(IdLists(tensors["mined/ids"].numpy(), tensors["mined/offsets"].numpy()))
        best = None
        if told := plain["best"]:
            weights, sums = (
                {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
                for prefix in ("best/", "best_sums/")
            )
            for name, tensor in own.items():
                _shaped(weights[name], tensor)
            best = Best(float(told["score"]), int(told["epoch"]), weights, sums)
        return Progress(
            step=int(plain["step"]),
            epoch=int(plain["epoch"]),
            window=int(plain["window"]),
            taken=int(plain["taken"]),
            losses=int(plain["losses"]),
            loss=float(plain["loss"]),
            curve=[[int(step), float(loss)] for step, loss in plain["curve"]],
            spacing=int(plain["spacing"]),
            history=[dict(entry) for entry in plain["history"]],
            best=best,
            untrained=float(plain["untrained"]),
            seconds=float(plain["seconds"]),
        )


def _random_states(loss: BatchLoss) -> dict[str, Tensor]:
    """Where PyTorch's generators are."""
    found = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        found |= {f"cuda:{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    if loss.chooser is not None:
        found["chooser"] = loss.chooser.get_state()
    return found


def _put_random_states(loss: BatchLoss, states: dict[str, Tensor]) -> None:
    """Put them where ``random_states`` found them."""
    torch.set_rng_state(states["torch"])
    for name, state in states.items():
        if name.startswith("cuda:"):
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda:")))
    if loss.chooser is not None:
        loss.chooser.set_state(states["chooser"])


def _state_of(optimizer: Optimizer) -> dict[str, Tensor]:
    if isinstance(optimizer, RowwiseAdagrad):
        return {str(place): sums for place, sums in enumerate(optimizer.sums)}
    assert isinstance(optimizer, torch.optim.Optimizer)
    state = optimizer.state_dict()["state"]
    return {
        f"{number}/{name}": torch.as_tensor(value) for number, kept in state.items() for name, value in kept.items()
    }


def _put_state(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    if isinstance(optimizer, RowwiseAdagrad):
        for place, sums in enumerate(optimizer.sums):
            sums.copy_(_shaped(tensors[str(place)], sums))
        return
    assert isinstance(optimizer, torch.optim.Optimizer)
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split("/")
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _shaped(found: Tensor, like: Tensor) -> Tensor:
    if found.shape != like.shape:
        raise ValueError(f"a tensor of {tuple(found.shape)} where one of {tuple(like.shape)} belongs")
    return found
