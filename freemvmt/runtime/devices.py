"""Which device computes, in which numbers it multiplies large matrices, and how its memory is used."""

import ctypes
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from freemvmt.errors import UserError
from freemvmt.runtime.threads import forget_pool

if TYPE_CHECKING:  # imported where it is used: what serves without it needs the rest
    import torch

KINDS = ("cpu", "cuda", "mps")
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # as malloc.h numbers them


def pick_device(name: str) -> "torch.device":
    """The device of that name; ``auto`` is a GPU where there is one (one for each process), else the CPU."""
    import torch

    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # as torchrun numbers a machine's processes
    try:
        device = torch.device(name)
        if device.type not in KINDS:
            raise UserError(f"--device {name} is not one of {', '.join(KINDS)}; give auto or cpu")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:100]
        raise UserError(f"--device {name} cannot be used here ({reason}); give auto or cpu") from error
    return device


def matrix_dtype(precision: Literal["auto", "fp32", "bf16"], device: "torch.device") -> "torch.dtype":
    """The numbers of similarity matrices; ``auto`` is bf16 where the processor multiplies it natively, else fp32."""
    import torch

    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known = torch.cpu.get_capabilities()
        native = device.type == "cpu" and bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32


def keep_freed_memory() -> None:
    """Let the C library keep what this process frees for what it takes next; without effect where it is not glibc.

    A training step of a recurrence takes and frees gigabytes. Given back to the system each time, every page of them
    is cleared anew, which on a virtual machine took a third of the step.
    """
    _tell_malloc({_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 2**28})


def share_freed_memory() -> None:
    """Let the threads of this process take what any of them has freed; without effect where it is not glibc.

    Else each thread keeps a heap of its own, and a server that adds documents for long grows by megabytes a minute.
    """
    _tell_malloc({_ARENA_MAX: 2})


def _tell_malloc(options: Mapping[int, int]) -> None:
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in options.items():
            mallopt(option, value)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_pool)
