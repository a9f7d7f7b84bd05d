"""One digest for texts, settings and arrays: the names of cache files, and the identity of data."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def digest_of(parts: Iterable[str | bytes | NDArray[Any]], size: int = 16) -> str:
    """BLAKE2b of ``parts``, joined, in ``2 * size`` hexadecimal digits. The caller separates texts that could run
    together."""
    digest = hashlib.blake2b(digest_size=size)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(part.data)
        else:
            digest.update(part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part)
    return digest.hexdigest()
