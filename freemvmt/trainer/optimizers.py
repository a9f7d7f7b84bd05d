"""How the weights move: row-wise Adagrad for token tables, AdamW for the rest, clipping, and the rate's schedule."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from freemvmt.config import OptimizerConfig
from freemvmt.model import TwoTowersModel


class Optimizer(Protocol):
    """What the loop asks of an optimizer, ``torch.optim``'s or ours; each group has its rate under ``lr``."""

    param_groups: list[dict[str, object]]

    def zero_grad(self) -> None:
        """Forget the gradients."""

    def step(self) -> object:
        """Move the parameters against their gradients."""


class RowwiseAdagrad:
    """Adagrad with one accumulator a row, its sum of mean squared gradients (Gupta et al. 2014; DLRM trains so).

    A row's first step has root mean square ``lr`` whatever the size of its gradient, and its steps shrink with the
    root of how often it was touched: rare words move far, frequent ones settle. Gradients must be sparse; ``sums`` has
    one float a row. Not a ``torch.optim.Optimizer``: making one of those imports the compiler, which takes seconds.
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
        """Move the rows that have a gradient, and use the gradient up."""
        rate = self.param_groups[0]["lr"]
        assert isinstance(rate, float)
        for table, sums in zip(self.tables, self.sums, strict=True):
            if table.grad is None:
                continue
            rows, values = _touched(table.grad)  # (touched,), (touched, width)
            squares = sums[rows] + torch.linalg.vector_norm(values, dim=1).square() / values.shape[1]
            sums[rows] = squares
            table.index_add_(0, rows, values.mul_((-rate / (squares.sqrt() + self._eps)).unsqueeze(1)))
            table.grad = None  # its values are steps by now


def _touched(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, their gradients) of a sparse gradient, each row once."""
    rows, values = gradient._indices()[0], gradient._values()
    if not bool((rows.diff() > 0).all()):  # one that a table got by two ways; autograd drops the flag that would say so
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
    return rows, values


class Optimizers:
    """All optimizers of a training, as one: row-wise Adagrad for the token tables, AdamW for the rest.

    Recurrences, heads and the temperature have rates of their own. A transformer's gradients are not sparse: all of it
    goes to AdamW. ``accumulators`` is what the tables' sums start with, (rows,) by table, where it is not 0.
    """

    def __init__(
        self,
        model: TwoTowersModel,
        config: OptimizerConfig,
        temperature: torch.nn.Parameter,
        accumulators: dict[str, Tensor],
    ) -> None:
        self._clip_norm, self._warmup = config.clip_norm, config.warmup
        tables, factor = model.tables(), config.recurrence_rate_factor
        if model.config.tower == "transformer":
            tables, factor = {}, config.encoder_rate_factor
        adagrad = RowwiseAdagrad(tables.values(), lr=config.learning_rate * config.table_rate_factor)
        for name, sums in zip(tables, adagrad.sums, strict=True):
            if name in accumulators:
                sums.copy_(accumulators[name])
        self._adagrad = adagrad
        self.parts: list[Optimizer] = [adagrad]
        ids = {id(table) for table in tables.values()}
        towers = [weight for tower in model.towers() for weight in tower.parameters() if id(weight) not in ids]
        ids |= {id(weight) for weight in towers}
        every = [*model.parameters(), temperature]
        rest = [weight for weight in every if weight.requires_grad and id(weight) not in ids]
        for weights, rate in ((towers, config.learning_rate * factor), (rest, config.learning_rate)):
            if weights:
                self.parts.append(torch.optim.AdamW(weights, lr=rate))
        self._clipped = towers + rest

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self.parts:
            optimizer.zero_grad()

    def clip_and_step(self) -> None:
        """Scale the gradients of all but the tables down to --clip-norm together, and move the weights.

        Row-wise Adagrad needs no clipping: its steps have one size whatever the size of the gradient.
        """
        if self._clipped and self._clip_norm:
            torch.nn.utils.clip_grad_norm_(self._clipped, self._clip_norm)
        for optimizer in self.parts:
            optimizer.step()

    def set_rates(self, done: float) -> None:
        """Set the rates that suit a training of which the share ``done`` is over.

        They rise in a line to those of the flags, in the share --warmup, and fall in a line to 0.
        """
        factor = done / self._warmup if done < self._warmup else (1 - done) / (1 - self._warmup)
        for optimizer in self.parts:
            for group in optimizer.param_groups:
                first = group.setdefault("first_lr", group["lr"])
                assert isinstance(first, float)
                group["lr"] = first * factor

    def accumulators(self, model: TwoTowersModel) -> dict[str, Tensor]:
        """A copy of the sums of row-wise Adagrad, (rows,), by table."""
        names = {id(table): name for name, table in model.tables().items()}
        pairs = zip(self._adagrad.tables, self._adagrad.sums, strict=True)
        return {names[id(table)]: sums.cpu().clone() for table, sums in pairs}
