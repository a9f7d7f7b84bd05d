"""Work that runs side by side in the threads of one process."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from freemvmt.runtime.cores import cores

A = TypeVar("A")


B = TypeVar("B")


def at_once(first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """What both give, called at the same time: for two that wait for C code or for a server, not for each other."""
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max(2, cores()), "two-towers")
    other = _pool.submit(second)
    try:
        return first(), other.result()
    finally:
        other.cancel()


def forget_pool() -> None:
    """A process that was forked has none of its parent's threads."""
    global _pool
    _pool = None


_pool: ThreadPoolExecutor | None = None


def in_threads(work: Callable[[int], object], pieces: Sequence[int]) -> None:
    """Call ``work`` with each of ``pieces``, a thread for each of PyTorch's, whose kernels then use one core in each.

    Where a piece goes through many small steps, no core waits for another between them.
    """
    import torch

    before = torch.get_num_threads()
    threads = min(before, cores())
    if threads == 1 or len(pieces) < 2:
        for piece in pieces:
            work(piece)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(work, pieces):
                pass
    finally:
        torch.set_num_threads(before)  # what the threads said counts for those that start later
