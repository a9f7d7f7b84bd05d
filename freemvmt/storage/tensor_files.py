"""Tensors in a safetensors file with a checksum, which detects a damaged file; and whether numbers are finite."""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from freemvmt.errors import UserError
from freemvmt.runtime.home import mark_used, trim_cache, warn_uncached
from freemvmt.storage.digests import digest_of
from freemvmt.storage.files import atomic_file

logger = logging.getLogger(__name__)


class CorruptFile(Exception):  # noqa: N818 - the name says what is wrong
    """A file is not as it was written; the message says what is wrong."""


def all_finite(tensor: Tensor) -> bool:
    """Whether no number of ``tensor`` is NaN or infinite. ``isfinite`` would first write a tensor of truth values."""
    return not tensor.numel() or all(bool(end.isfinite()) for end in torch.aminmax(tensor))


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """``save_file``, but a system error is an ``OSError``."""
    with as_os_error(path):
        save_file(tensors, path, metadata)


@contextmanager
def as_os_error(path: Path) -> Iterator[None]:
    """Turn a system error into an ``OSError``; safetensors and tokenizers have its number only in the message."""
    try:
        yield
    except Exception as error:
        if not (match := re.search(r"os error (\d+)", str(error))):
            raise
        raise OSError(int(match[1]), os.strerror(int(match[1])), str(path)) from error


def save_checked(path: Path, tensors: dict[str, Tensor], text: str = "") -> None:
    """Write ``tensors`` and ``text`` whole or not at all; ``UserError`` if the file cannot be written."""
    with atomic_file(path) as part:
        save_tensors(tensors, part, {"told": text, "sum": _checksum(text, tensors)})


def load_checked(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read what ``save_checked`` wrote: (tensors, text). Raises ``FileNotFoundError`` and ``CorruptFile``."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptFile(str(error)) from error
    text = metadata.get("told", "")
    if metadata.get("sum") != _checksum(text, tensors):
        raise CorruptFile("its sum is another")
    return tensors, text


def save_cached(path: Path, tensors: dict[str, Tensor], text: str = "") -> None:
    """As ``save_checked``, for a file of the cache, which is kept within its limit. If the file cannot be written,
    nothing is cached, and a note says so once a process."""
    try:
        save_checked(path, tensors, text)
        trim_cache()
    except (UserError, OSError) as error:
        warn_uncached(error)


def load_cached(path: Path, what: str) -> tuple[dict[str, Tensor], str]:
    """As ``load_checked``, but ({}, "") if the file is missing, or damaged: then a warning says that of ``what``."""
    try:
        content = load_checked(path)
        mark_used(path)
        return content
    except FileNotFoundError:
        pass
    except CorruptFile as error:
        logger.warning("the %s in %s are damaged (%s); making them anew", what, path, error)
    return {}, ""


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    def parts() -> Iterator[str | NDArray[Any]]:
        yield text
        for name, tensor in sorted(tensors.items()):
            yield f"{name} {tensor.dtype} {tuple(tensor.shape)}"
            if tensor.numel():
                yield tensor.contiguous().view(-1).view(torch.uint8).numpy()

    return digest_of(parts())
