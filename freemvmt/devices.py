"""Which device computes, in which numbers it multiplies large matrices, and how many pieces share the cores."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import torch

from freemvmt.errors import UserError

KINDS = ("cpu", "cuda", "mps")


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is the first GPU when there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in KINDS:
            raise UserError(f"--device {name} is not one of {', '.join(KINDS)}; give auto or cpu")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:100]
        raise UserError(f"--device {name} cannot be used here ({reason}); give auto or cpu") from error
    return device


def matrix_dtype(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
    """The numbers of similarity matrices; ``auto`` is bf16 where the processor multiplies it natively, else fp32."""
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known = torch.cpu.get_capabilities()
        native = device.type == "cpu" and bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32


def in_threads(work: Callable[[int], object], pieces: Sequence[int]) -> None:
    """Call ``work`` with each of ``pieces``, a thread a core, and PyTorch's kernels on one core in each.

    Where a piece goes through many small steps, no core waits for another between them.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(pieces) < 2:
        for piece in pieces:
            work(piece)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(work, pieces):
                pass
    finally:
        torch.set_num_threads(threads)  # what the threads said counts for those that start later
