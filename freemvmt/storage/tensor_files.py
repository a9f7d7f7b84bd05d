"""Tensors in a safetensors file with a checksum, which detects a damaged file."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from freemvmt.storage.files import atomic_file


class CorruptFile(Exception):  # noqa: N818 - the name says what is wrong
    """A file is not as it was written; the message says what is wrong."""


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


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
