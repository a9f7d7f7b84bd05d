"""Digests of texts, settings and arrays: the names of cache files, and the identity of data and models."""

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def digest_of(parts: "Iterable[str | bytes | NDArray[Any]]", size: int = 16) -> str:
    """BLAKE2b of ``parts``, joined, in ``2 * size`` hexadecimal digits. The caller separates texts that could run
    together."""
    digest = hashlib.blake2b(digest_size=size)
    for part in parts:
        part = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(part if isinstance(part, bytes) else part.data)
    return digest.hexdigest()


def sha256_of_text(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hexadecimal: what a manifest compares."""
    return hashlib.sha256(text.encode()).hexdigest()
