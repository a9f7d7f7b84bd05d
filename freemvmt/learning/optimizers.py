"""Optimizers that touch only the rows which a batch used."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class RowwiseAdagrad(torch.optim.Optimizer):
    """Adagrad with one accumulator a row, its sum of mean squared gradients (Gupta et al. 2014; DLRM trains so).

    A row's first step has root mean square ``lr`` whatever the size of its gradient, and its steps shrink with the
    root of how often it was touched: rare words move far, frequent ones settle. State is one float a row.
    """

    def __init__(self, tables: Iterable[Tensor], lr: float, eps: float = 1e-10) -> None:
        super().__init__(tables, {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move the rows that have a gradient, which must be sparse."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                rows, values = _touched(table.grad)  # (touched,), (touched, width)
                if "sum" not in self.state[table]:
                    self.state[table]["sum"] = torch.zeros(len(table), device=table.device)
                total = self.state[table]["sum"]
                squares = total[rows] + values.square().mean(1)
                total[rows] = squares
                values = values * (-group["lr"] / (squares.sqrt() + group["eps"])).unsqueeze(1)
                table.index_add_(0, rows, values)


def _touched(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, their gradients) of a sparse gradient, each row once."""
    rows, values = gradient._indices()[0], gradient._values()
    if not bool((rows.diff() > 0).all()):  # one that a table got by two ways; autograd drops the flag that would say so
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
    return rows, values


def optimizers_for(
    model: torch.nn.Module, tables: list[torch.nn.Parameter], lr: float, table_factor: float
) -> list[Any]:
    """Row-wise Adagrad at ``lr * table_factor`` for the token tables, AdamW at ``lr`` for whatever else there is."""
    chosen: list[torch.optim.Optimizer] = [RowwiseAdagrad(tables, lr=lr * table_factor)]
    ids = {id(table) for table in tables}
    if rest := [parameter for parameter in model.parameters() if id(parameter) not in ids]:
        chosen.append(torch.optim.AdamW(rest, lr=lr))
    return chosen


def set_rate_factor(optimizers: list[Any], factor: float) -> None:
    """Run at ``factor`` times the rates that the optimizers were made with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("first_lr", group["lr"]) * factor
