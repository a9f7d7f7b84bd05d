"""The optimizers: row-wise Adagrad for token tables, AdamW for the rest, clipping, and the learning rate schedule."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from freemvmt.config import TrainConfig
from freemvmt.model import TwoTowersModel


class Optimizer(Protocol):
    """An optimizer, of ``torch.optim`` or ours; each parameter group has its learning rate under ``lr``."""

    param_groups: list[dict[str, object]]

    def zero_grad(self) -> None:
        """Forget the gradients."""

    def step(self) -> object:
        """Update the parameters."""


class RowwiseAdagrad:
    """Adagrad with one accumulator for each row: the sum of its mean squared gradients (Gupta et al. 2014; DLRM).

    The first step of a row has root mean square ``lr``, whatever the size of its gradient. Later steps shrink with the
    square root of the number of updates, so rare words move far and frequent ones settle. Gradients must be sparse;
    ``sums`` has one float for each row. This is no ``torch.optim.Optimizer``, whose constructor imports the compiler,
    which takes seconds.
    """

    def __init__(self, tables: Iterable[torch.nn.Parameter], lr: float, eps: float = 1e-10) -> None:
        self.param_groups: list[dict[str, object]] = [{"lr": lr}]
        self._eps = eps
        self.tables = list(tables)
        self.sums = [torch.zeros(len(table), device=table.device) for table in self.tables]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for table in self.tables:
            table.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update the rows that have a gradient, and delete the gradient."""
        rate = self.param_groups[0]["lr"]
        assert isinstance(rate, float)
        for table, sums in zip(self.tables, self.sums, strict=True):
            if table.grad is None:
                continue
            rows, values = _distinct_rows(table.grad)  # (updated,), (updated, width)
            squares = sums[rows] + torch.linalg.vector_norm(values, dim=1).square() / values.shape[1]
            sums[rows] = squares
            table.index_add_(0, rows, values.mul_((-rate / (squares.sqrt() + self._eps)).unsqueeze(1)))
            table.grad = None  # its values were overwritten by the steps


def _distinct_rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, their gradients) of a sparse gradient, with each row once."""
    rows, values = gradient._indices()[0], gradient._values()
    if not bool((rows.diff() > 0).all()):  # a table that was used twice; autograd drops the flag for this
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
    return rows, values


class Optimizers:
    """All optimizers of a training: row-wise Adagrad for the token tables, AdamW for the rest.

    Towers have a learning rate of their own, beside that of heads and temperature. The gradients of a transformer are
    not sparse, so AdamW has its table too. ``accumulators`` are the initial sums of the tables, (rows,) by table; 0
    where a table is missing.
    """

    def __init__(
        self,
        model: TwoTowersModel,
        config: TrainConfig,
        temperature: torch.nn.Parameter,
        accumulators: dict[str, Tensor],
    ) -> None:
        self._clip_norm, self._warmup = config.clip_norm, config.warmup
        factors = {"recurrent": config.recurrence_rate_factor, "transformer": config.encoder_rate_factor}
        learning = {side: tower for side, tower in model.towers().items() if tower.table.requires_grad}
        tables = model.learning_tables()
        adagrad = RowwiseAdagrad(tables.values(), lr=config.table_rate)
        for name, sums in zip(tables, adagrad.sums, strict=True):
            if name in accumulators:
                sums.copy_(accumulators[name])
        self._adagrad = adagrad
        self.parts: list[Optimizer] = [adagrad]
        ids = {id(table) for table in tables.values()}
        self._clipped: list[torch.nn.Parameter] = []
        for kind, factor in factors.items():
            towers = [tower for side, tower in learning.items() if model.config.kind_of(side) == kind]
            weights = [weight for tower in towers for weight in tower.parameters() if id(weight) not in ids]
            self._add(weights, config.learning_rate * factor)
            ids |= {id(weight) for weight in weights}
        all_weights = [*model.parameters(), temperature]
        remaining = [weight for weight in all_weights if weight.requires_grad and id(weight) not in ids]
        self._add(remaining, config.learning_rate)

    def _add(self, weights: list[torch.nn.Parameter], rate: float) -> None:
        if weights:
            self.parts.append(torch.optim.AdamW(weights, lr=rate))
            self._clipped += weights

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self.parts:
            optimizer.zero_grad()

    def clip_and_step(self) -> None:
        """Clip the joint norm of all gradients but the tables' to --clip-norm, and update the weights.

        Row-wise Adagrad needs no clipping: its steps do not grow with the gradient.
        """
        if self._clipped and self._clip_norm:
            torch.nn.utils.clip_grad_norm_(self._clipped, self._clip_norm)
        for optimizer in self.parts:
            optimizer.step()

    def set_rates(self, done: float) -> None:
        """Set the learning rates for the share ``done`` of the training.

        They rise linearly from 0 to those of the flags during the share --warmup, then fall linearly to 0.
        """
        factor = done / self._warmup if done < self._warmup else (1 - done) / (1 - self._warmup)
        for optimizer in self.parts:
            for group in optimizer.param_groups:
                first = group.setdefault("first_lr", group["lr"])
                assert isinstance(first, float)
                group["lr"] = first * factor

    def accumulators(self, model: TwoTowersModel) -> dict[str, Tensor]:
        """A copy of row-wise Adagrad's sums, (rows,) by table."""
        names = {id(table): name for name, table in model.tables().items()}
        pairs = zip(self._adagrad.tables, self._adagrad.sums, strict=True)
        return {names[id(table)]: sums.cpu().clone() for table, sums in pairs}
