"""One training in several processes (`torchrun`): each encodes its share of a batch, and all see the whole batch.

The vectors of a batch are gathered on every rank, so that the loss is that of one process with the whole batch. Its
gradient reaches each rank's own share of the texts; of a token table only the rows that were touched are exchanged.
Every rank then takes the same step, and the weights stay equal without being sent.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from freemvmt.errors import UserError
from freemvmt.towers.sparse_rows import sparse_rows, sums_by

_TIMEOUT = timedelta(minutes=30)  # that ranks wait for the first one, which measures


class SingleProcess:
    """One process alone: nothing is shared."""

    rank, size = 0, 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and says what there is to say."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of ``count`` texts this process encodes."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def gather(self, vectors: Tensor, count: int) -> Tensor:
        """The vectors of all ``count`` texts, (count, dim), from each process's share; with gradient to the own."""
        return vectors

    def exchange(self, weights: Iterable[torch.nn.Parameter], computed_by_all: Iterable[torch.nn.Parameter]) -> None:
        """Let every gradient be the sum over the processes, or their mean where each has computed all of it."""

    def any_rank(self, said: bool) -> bool:
        """Whether ``said`` is true in one of the processes at least."""
        return said

    def broadcast(self, measure: Callable[[], float]) -> float:
        """What ``measure`` gives in the first process, in every process."""
        return measure()

    def first_rank_first(self, work: Callable[[], Any]) -> Any:
        """What ``work`` gives in this process; the first one does it before the others, which find it in the cache."""
        return work()

    @contextmanager
    def session(self) -> Iterator[None]:
        """The processes work together while the block runs; one that ended early is a ``UserError`` in the others."""
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
            reason = str(error).splitlines()[0]
            raise UserError(f"the processes do not find each other ({reason}); start them with torchrun") from error
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def gather(self, vectors: Tensor, count: int) -> Tensor:
        """All shares, in the order of the ranks."""
        gathered: Tensor = _Gathered.apply(vectors, self, count)
        return gathered

    def all_of(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes, which may differ in their first dimension."""
        lengths = [torch.zeros(1, dtype=torch.int64, device=self._device) for _ in range(self.size)]
        self._dist.all_gather(lengths, torch.tensor([len(tensor)], device=self._device))
        sizes = [int(length) for length in lengths]
        padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        found = [torch.empty_like(padded) for _ in sizes]
        self._dist.all_gather(found, padded)
        return [part[:size] for part, size in zip(found, sizes, strict=True)]

    @torch.no_grad()
    def exchange(self, weights: Iterable[torch.nn.Parameter], computed_by_all: Iterable[torch.nn.Parameter]) -> None:
        """Rows of tables by what was touched, all else as one tensor."""
        dense = []
        for weight in weights:
            if weight.grad is not None and weight.grad.is_sparse:
                weight.grad = self._rows_of_all(weight.grad.coalesce(), weight.shape)
            else:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                dense.append(weight.grad)
        means = [weight.grad.div_(self.size) for weight in computed_by_all if weight.grad is not None]
        if not (several := [*dense, *means]):
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in several])
        self._dist.all_reduce(flat)
        parts = flat.split([one.numel() for one in several])  # type: ignore[no-untyped-call]
        for gradient, part in zip(several, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _rows_of_all(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        numbers = torch.cat(self.all_of(gradient.indices()[0]))
        values = torch.cat(self.all_of(gradient.values()))
        return sparse_rows(*sums_by(numbers, values), shape)

    def any_rank(self, said: bool) -> bool:
        """By a sum over all."""
        flag = torch.tensor([float(said)], device=self._device)
        self._dist.all_reduce(flag)
        return bool(flag > 0)

    def broadcast(self, measure: Callable[[], float]) -> float:
        """The others wait for it."""
        value = torch.tensor([measure() if self.is_first else 0.0], dtype=torch.float64, device=self._device)
        self._dist.broadcast(value, 0)
        return float(value)

    def first_rank_first(self, work: Callable[[], Any]) -> Any:
        """The others wait until the first has done it."""
        if self.is_first:
            made = work()
            self._dist.barrier()
            return made
        self._dist.barrier()
        return work()

    @contextmanager
    def session(self) -> Iterator[None]:
        """The group ends with the block."""
        try:
            yield
        except RuntimeError as error:  # gloo says it in words, NCCL by a kind of error of its own
            words = ("gloo", "NCCL", "Connection reset", "Connection closed", "Broken pipe")
            if not any(word in str(error) for word in words):
                raise
            raise UserError("another process of this training has ended; see what it said, and --resume") from error
        self._dist.destroy_process_group()


class _Gathered(torch.autograd.Function):
    """Every rank has the whole loss, so that the gradient of its own share is there without being sent."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, group: ProcessGroup, count: int) -> Tensor:
        ctx.share = group.share(count)
        return torch.cat(group.all_of(vectors))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.share], None, None


def is_first_process() -> bool:
    """Whether this process speaks for all that `torchrun` has started."""
    return os.environ.get("RANK", "0") == "0"


def process_group(device: torch.device) -> SingleProcess:
    """The processes that `torchrun` has started this one with; this one alone where it has not."""
    return ProcessGroup(device) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else SingleProcess()
