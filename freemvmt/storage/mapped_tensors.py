"""The tensors of a safetensors file as NumPy arrays over a memory map: nothing is copied, and PyTorch is not needed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freemvmt.errors import UserError

_TYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I64": np.int64, "I32": np.int32, "I8": np.int8}
_MAX_HEADER = 100_000_000  # bytes


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors of the file, read-only; ``UserError`` when it is damaged."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > _MAX_HEADER:
                raise ValueError("its header is too long")
            header = json.loads(file.read(size))
        content = np.memmap(path, np.uint8, "r", 8 + size).view(np.ndarray)
        header.pop("__metadata__", None)
        return {name: _tensor(content, **entry) for name, entry in header.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); save the model again") from error


def _tensor(content: NDArray[np.uint8], dtype: str, shape: list[int], data_offsets: list[int]) -> NDArray[Any]:
    start, stop = data_offsets
    if not 0 <= start <= stop <= len(content):
        raise ValueError("a tensor lies outside of it")
    return content[start:stop].view(_TYPES[dtype]).reshape(shape)
