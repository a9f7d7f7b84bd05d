"""What an engine is asked, and what it gives: one protocol for all adapters."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Found = tuple[NDArray[np.int64], NDArray[np.float32]]  # numbers of documents and their scores, best first


@dataclass(frozen=True, eq=False)
class Rows:
    """Documents: their numbers (n), texts, two metadata fields, and vectors (n, dim) of length 1."""

    numbers: NDArray[np.int64]
    texts: list[str]
    sources: list[str]
    words: NDArray[np.int64]
    vectors: NDArray[np.float32]

    def part(self, start: int, stop: int) -> "Rows":
        """Documents ``start`` to ``stop``."""
        cut = slice(start, stop)
        return Rows(self.numbers[cut], self.texts[cut], self.sources[cut], self.words[cut], self.vectors[cut])


@dataclass(frozen=True)
class Filter:
    """Documents of ``source`` (any when None) with ``low <= words < high``."""

    source: str | None
    low: int
    high: int

    def sql(self) -> str:
        """The same for engines with a language of their own."""
        return f"words >= {self.low} and words < {self.high}" + (
            f" and source == '{self.source}'" if self.source else ""
        )


class Engine(Protocol):
    """A corpus on disk, opened or made at ``folder``."""

    def __init__(self, folder: Path, dim: int) -> None: ...
    def add(self, rows: Rows) -> None: ...
    def settle(self) -> None:
        """What an engine wants after a bulk load: train and build its indexes."""

    def delete(self, numbers: Sequence[int]) -> None: ...
    def dense(self, vector: NDArray[np.float32], k: int, filter: Filter | None = None) -> Found: ...
    def bm25(self, query: str, k: int, filter: Filter | None = None) -> Found: ...
    def texts(self, numbers: Sequence[int]) -> list[str]: ...
    def numbers(self) -> list[int]: ...
