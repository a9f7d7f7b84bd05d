"""Optimizers that touch only the rows which a batch used."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from freemvmt.config import TrainConfig
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


def optimizers_for(
    model: TwoTowersModel, config: TrainConfig, temperature: torch.nn.Parameter, gathered: dict[str, Tensor]
) -> list[Optimizer]:
    """Row-wise Adagrad for the token tables, AdamW for recurrences and for whatever else there is, at their rates.

    A transformer's gradients are not sparse: all of it goes to AdamW.

    ``gathered`` is what the tables' accumulators start with, by table, where it is not 0.
    """
    lr = config.learning_rate
    tables, above = model.tables(), config.recurrence_rate_factor
    if config.tower == "transformer":
        tables, above = {}, config.encoder_rate_factor
    adagrad = RowwiseAdagrad(tables.values(), lr=lr * config.table_rate_factor)
    for name, sums in zip(tables, adagrad.sums, strict=True):
        if name in gathered:
            sums.copy_(gathered[name])
    chosen: list[Optimizer] = [adagrad]
    ids = {id(table) for table in tables.values()}
    towers = [weight for tower in model.towers() for weight in tower.parameters() if id(weight) not in ids]
    ids |= {id(weight) for weight in towers}
    rest = [weight for weight in [*model.parameters(), temperature] if weight.requires_grad and id(weight) not in ids]
    for weights, rate in ((towers, lr * above), (rest, lr)):
        if weights:
            chosen.append(torch.optim.AdamW(weights, lr=rate))
    return chosen


def clip(optimizers: list[Optimizer], norm: float) -> None:
    """Scale the gradients of all but the tables down to ``norm`` together; row-wise Adagrad needs no such thing."""
    dense = [
        weight
        for optimizer in optimizers
        if isinstance(optimizer, torch.optim.Optimizer)
        for group in optimizer.param_groups
        for weight in group["params"]
    ]
    if dense and norm:
        torch.nn.utils.clip_grad_norm_(dense, norm)


def set_rate_factor(optimizers: list[Optimizer], done: float, warmup: float) -> None:
    """Run at the rates that suit a training of which the share ``done`` is over: they rise in a line to those that the
    optimizers were made with, in the share ``warmup``, and fall in a line to 0."""
    factor = done / warmup if done < warmup else (1 - done) / (1 - warmup)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            first = group.setdefault("first_lr", group["lr"])
            assert isinstance(first, float)
            group["lr"] = first * factor


def accumulators(model: TwoTowersModel, optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """A copy of the sums of row-wise Adagrad, (rows,), by table."""
    (adagrad,) = (optimizer for optimizer in optimizers if isinstance(optimizer, RowwiseAdagrad))
    names = {id(table): name for name, table in model.tables().items()}
    return {names[id(table)]: sums.cpu().clone() for table, sums in zip(adagrad.tables, adagrad.sums, strict=True)}
