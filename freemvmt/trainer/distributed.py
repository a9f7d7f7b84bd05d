"""One training in several processes (`torchrun`): each encodes its share of a batch, and all see the whole batch.

All ranks gather the vectors of a batch, so the loss equals that of one process with the whole batch. Each rank computes
the gradient for its own share of the texts. The ranks then exchange their gradients, of token tables only the rows that
were used. Every rank takes the same step, so the weights stay equal and are never sent.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from freemvmt.errors import UserError, first_line
from freemvmt.towers.sparse_rows import sparse_rows, sums_by

_TIMEOUT = timedelta(minutes=30)  # of waiting for the first rank, which measures alone


class SingleProcess:
    """A training in one process."""

    rank, size = 0, 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """The part of ``count`` texts that this process encodes."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def gather(self, vectors: Tensor, count: int) -> Tensor:
        """The vectors of all ``count`` texts, (count, dim); only those of the own share pass a gradient back."""
        return vectors

    def exchange(self, weights: Iterable[torch.nn.Parameter], computed_by_all: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes, or by the mean for weights in ``computed_by_all``."""

    def any_rank(self, condition: bool) -> bool:
        """Whether ``condition`` is true in at least one process."""
        return condition

    def broadcast(self, measure: Callable[[], float]) -> float:
        """The result of ``measure`` in the first process, returned in every process."""
        return measure()

    def first_rank_first(self, work: Callable[[], Any]) -> Any:
        """The result of ``work`` in this process. The first process goes first, so the others find a cache."""
        return work()

    @contextmanager
    def session(self) -> Iterator[None]:
        """The block in which the processes work together. Raises ``UserError`` when another process has ended early."""
        yield


class ProcessGroup(SingleProcess):
    """One of several processes that `torchrun` has started."""

    def __init__(self, device: torch.device) -> None:
        import torch.distributed as dist

        self._dist: Any = dist
        self._device = device
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
        except (RuntimeError, ValueError) as error:
            reason = first_line(error)
            raise UserError(f"the processes do not find each other ({reason}); start them with torchrun") from error
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def gather(self, vectors: Tensor, count: int) -> Tensor:
        """The shares of all ranks, in their order."""
        gathered: Tensor = _GatherShares.apply(vectors, self, count)
        return gathered

    def all_of(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes; their first dimensions may differ."""
        lengths = [torch.zeros(1, dtype=torch.int64, device=self._device) for _ in range(self.size)]
        self._dist.all_gather(lengths, torch.tensor([len(tensor)], device=self._device))
        sizes = [int(length) for length in lengths]
        padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        gathered = [torch.empty_like(padded) for _ in sizes]
        self._dist.all_gather(gathered, padded)
        return [values[:size] for values, size in zip(gathered, sizes, strict=True)]

    @torch.no_grad()
    def exchange(self, weights: Iterable[torch.nn.Parameter], computed_by_all: Iterable[torch.nn.Parameter]) -> None:
        """Exchange the used rows of tables, and all other gradients as one tensor."""
        dense = []
        for weight in weights:
            if not weight.requires_grad:
                continue
            if weight.grad is not None and weight.grad.is_sparse:
                weight.grad = self._rows_of_all(weight.grad.coalesce(), weight.shape)
            else:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                dense.append(weight.grad)
        means = [weight.grad.div_(self.size) for weight in computed_by_all if weight.grad is not None]
        if not (gradients := [*dense, *means]):
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self._dist.all_reduce(flat)
        totals = flat.split([gradient.numel() for gradient in gradients])  # type: ignore[no-untyped-call]
        for gradient, total in zip(gradients, totals, strict=True):
            gradient.copy_(total.view_as(gradient))

    def _rows_of_all(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        numbers = torch.cat(self.all_of(gradient.indices()[0]))
        values = torch.cat(self.all_of(gradient.values()))
        return sparse_rows(*sums_by(numbers, values), shape)

    def any_rank(self, condition: bool) -> bool:
        """Computed as a sum over all ranks."""
        flag = torch.tensor([float(condition)], device=self._device)
        self._dist.all_reduce(flag)
        return bool(flag > 0)

    def broadcast(self, measure: Callable[[], float]) -> float:
        """The other ranks wait for the first."""
        value = torch.tensor([measure() if self.is_first else 0.0], dtype=torch.float64, device=self._device)
        self._dist.broadcast(value, 0)
        return float(value)

    def first_rank_first(self, work: Callable[[], Any]) -> Any:
        """The other ranks wait until the first has finished."""
        if self.is_first:
            result = work()
            self._dist.barrier()
            return result
        self._dist.barrier()
        return work()

    @contextmanager
    def session(self) -> Iterator[None]:
        """Destroy the group at the end of the block."""
        try:
            yield
        except RuntimeError as error:  # gloo raises it as a plain RuntimeError, NCCL as a subclass
            words = ("gloo", "NCCL", "Connection reset", "Connection closed", "Broken pipe")
            if not any(word in str(error) for word in words):
                raise
            raise UserError("another process of this training has ended; see what it said, and --resume") from error
        self._dist.destroy_process_group()


class _GatherShares(torch.autograd.Function):
    """Gathering, whose gradient needs no communication: every rank computes the whole loss."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, group: ProcessGroup, count: int) -> Tensor:
        ctx.share = group.share(count)
        return torch.cat(group.all_of(vectors))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.share], None, None


def is_first_process() -> bool:
    """Whether this process is the one of `torchrun` that writes messages."""
    return os.environ.get("RANK", "0") == "0"


def process_group(device: torch.device) -> SingleProcess:
    """The group of processes that `torchrun` started, or this process alone."""
    return ProcessGroup(device) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else SingleProcess()
