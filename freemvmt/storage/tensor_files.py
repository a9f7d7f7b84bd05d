"""Tensors kept between runs: a file of safetensors and a sum over all of it, which tells where one is damaged."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from freemvmt.storage.files import whole_file


class Damaged(Exception):  # noqa: N818 - what is wrong, not that something is
    """A file is not as it was written; the message says how that was seen."""


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """``save_file``, but the system's refusal stays an ``OSError``; theirs holds its number only in its text."""
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        if not (number := re.search(r"os error (\d+)", str(error))):
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def keep(path: Path, tensors: dict[str, Tensor], told: str = "") -> None:
    """Write ``tensors``, and a text about them, whole or not at all. Raises ``UserError`` where that cannot be."""
    with whole_file(path) as part:
        save_tensors(tensors, part, {"told": told, "sum": _sum_of(told, tensors)})


def read_kept(path: Path) -> tuple[dict[str, Tensor], str]:
    """What ``keep`` wrote, (tensors, text). Raises ``FileNotFoundError`` and ``Damaged``."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise Damaged(str(error)) from error
    told = metadata.get("told", "")
    if metadata.get("sum") != _sum_of(told, tensors):
        raise Damaged("its sum is another")
    return tensors, told


def _sum_of(told: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(told.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
