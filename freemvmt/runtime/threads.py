"""Parallel work in the threads of one process."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

from freemvmt.runtime.cores import cores

A = TypeVar("A")
B = TypeVar("B")

_pool: ThreadPoolExecutor | None = None


def side_by_side(first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """Call both functions at the same time; return both results.

    They must not wait for each other. It is faster if they wait for C code or for a server.
    """
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max(2, cores()), "two-towers")
    future = _pool.submit(second)
    try:
        return first(), future.result()
    finally:
        future.cancel()


def _forget_pool() -> None:
    """Drop the pool: a forked process has none of its parent's threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


@contextmanager
def behind_others() -> Iterator[None]:
    """In this block, the thread and those that it starts do not interrupt other threads; no effect outside Linux.

    It keeps its share of the cores. But when it has waited, for a disk perhaps, it does not take the core from a thread
    that runs: a search goes on beside a change that is written.
    """
    is_batch = False
    with suppress(AttributeError, OSError):  # another system, or a sandbox that forbids it
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            is_batch = True
    try:
        yield
    finally:
        if is_batch:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def in_threads(work: Callable[[int], object], pieces: Sequence[int], threads: int | None = None) -> None:
    """Call ``work`` with each of ``pieces``, in ``threads`` threads; in each, PyTorch's kernels use one core.

    ``threads`` None: as many as PyTorch has. This is faster if a piece takes many small steps: no core waits for
    another between the steps.
    """
    import torch

    torch_threads = torch.get_num_threads()
    threads = min(threads or torch_threads, cores())
    if threads == 1 or len(pieces) < 2:
        for piece in pieces:
            work(piece)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(work, pieces):
                pass
    finally:
        torch.set_num_threads(torch_threads)  # the threads' set_num_threads(1) also holds for later threads
