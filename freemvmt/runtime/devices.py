"""The device that computes, the number type of its large matrices, and how malloc reuses memory."""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from freemvmt.errors import UserError, first_line

if TYPE_CHECKING:  # imported where it is used: a server without PyTorch needs this module
    import torch

KINDS = ("cpu", "cuda", "mps")
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # numbers of malloc.h


def pick_device(name: str) -> "torch.device":
    """The device ``name``; ``auto`` is a GPU (one for each process) or the CPU. ``UserError`` if it cannot be used."""
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
        raise UserError(f"--device {name} cannot be used here ({first_line(error)}); give auto or cpu") from error
    return device


def matrix_dtype(precision: Literal["auto", "fp32", "bf16"], device: "torch.device") -> "torch.dtype":
    """The number type of matrix products in training; ``auto`` is bf16 where that is faster, else fp32."""
    import torch

    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and _multiplies_bf16_faster(torch.cpu.get_capabilities())
    return torch.bfloat16 if native else torch.float32


def _multiplies_bf16_faster(capabilities: Mapping[str, object]) -> bool:
    """Whether a processor with these ``torch.cpu.get_capabilities`` multiplies bf16 faster than fp32.

    Intel's AVX-512 instruction does not: a Sapphire Rapids whose AMX is hidden by its virtual machine multiplies bf16
    at half the speed of fp32, in all shapes that the towers and losses have.
    """
    if capabilities.get("amx_bf16"):
        return True
    return bool(capabilities.get("avx512_bf16")) and not str(capabilities.get("cpu_name", "")).startswith("Intel")


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next allocation; no effect without glibc.

    A training step of a recurrent tower allocates and frees gigabytes. If the memory goes back to the system each time,
    the system clears every page again, which took a third of the step on a virtual machine.
    """
    _set_malloc_options({_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 2**28})


def share_freed_memory() -> None:
    """Let the threads of this process reuse each other's freed memory; no effect without glibc.

    Otherwise each thread has its own heap, and a server that keeps adding documents grows by megabytes a minute.
    """
    _set_malloc_options({_ARENA_MAX: 2})


def keep_arrow_to_malloc() -> None:
    """Let Arrow allocate by the C library; to be called before Arrow is loaded. ``ARROW_DEFAULT_MEMORY_POOL`` is kept.

    Arrow's own allocator takes large pages, which the system clears, and keeps them: to read 100,000 rows took twice
    the time and 50 MB more.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def return_freed_memory() -> None:
    """Let the C library return to the system what it keeps after many texts were freed; no effect without glibc."""
    with suppress(OSError, AttributeError):
        _c_library().malloc_trim(0)


def _c_library() -> Any:
    import ctypes  # every command imports this module, and ctypes is a tenth of the start of `--help`

    return ctypes.CDLL(None)


def _set_malloc_options(options: Mapping[int, int]) -> None:
    with suppress(OSError, AttributeError):
        mallopt = _c_library().mallopt
        for option, value in options.items():
            mallopt(option, value)
