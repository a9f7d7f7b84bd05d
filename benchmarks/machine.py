"""What this machine can do, measured: the roofs that a figure of speed is held against.

uv run python benchmarks/machine.py
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch

ROUNDS = 7


def read_bandwidth() -> float:
    """Bytes a second that all cores read from memory: the sum of 1 GiB."""
    numbers = torch.ones(2**28)
    return 4 * len(numbers) / _seconds(numbers.sum)


def row_bandwidth(dtype: torch.dtype, rows: int, width: int, per_text: int = 64) -> float:
    """Bytes a second that PyTorch's ``embedding_bag`` takes in from random rows of a table that fits in the cache."""
    table = torch.randn(rows, width).to(dtype)
    ids = torch.randint(0, rows, (2_000_000,), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    offsets = torch.arange(0, len(ids), per_text, dtype=torch.int32)
    taken = _seconds(lambda: torch.nn.functional.embedding_bag(ids, table, offsets, mode="mean"))
    return len(ids) * width * table.element_size() / taken


def matrix_speed(dtype: torch.dtype, size: int = 2048, width: int = 384) -> float:
    """Operations a second of the product of two (size, width) matrices, a multiplication and an addition each one."""
    left, right = torch.randn(size, width).to(dtype), torch.randn(size, width).to(dtype)
    return 2 * size * size * width / _seconds(lambda: left @ right.T)


def _seconds(work: Callable[[], object]) -> float:
    work()
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> int:
    """Print the roofs."""
    sys.stdout.write(f"memory   {read_bandwidth() / 1e9:7.1f} GB/s read\n")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        rows = row_bandwidth(dtype, 1000, 384) / 1e9
        sys.stdout.write(f"{name:<9}{rows:7.1f} GB/s of cached rows   {matrix_speed(dtype) / 1e9:7.1f} GFLOP/s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
