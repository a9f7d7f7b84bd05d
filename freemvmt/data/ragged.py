"""Ragged arrays: many lists of numbers as one flat array and one array of offsets, without padding."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class IdLists:
    """Many lists of ids.

    List ``i`` is ``ids[offsets[i]:offsets[i + 1]]``. ``offsets`` begins with 0 and is one longer than the number of
    lists.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def from_pairs(cls, lists: NDArray[np.int64], ids: NDArray[np.int64], count: int) -> Self:
        """``count`` lists, where list ``lists[i]`` contains ``ids[i]``. Within a list the order stays the same."""
        order = np.argsort(lists, kind="stable")
        return cls(ids[order].astype(np.int32), offsets_of(np.bincount(lists, minlength=count)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> NDArray[np.int32]:
        return self.ids[self.offsets[number] : self.offsets[number + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of ids in each list."""
        return np.diff(self.offsets)

    def take(self, index: NDArray[np.int64]) -> Self:
        """The lists at ``index``, in that order. An index may occur twice."""
        starts = self.offsets[index]
        return self._slices(starts, self.offsets[index + 1] - starts)

    def slice(self, start: int, stop: int) -> Self:
        """Lists ``start`` to ``stop``, without copying their ids."""
        offsets = self.offsets[start : stop + 1]
        return type(self)(self.ids[offsets[0] : offsets[-1]], offsets - offsets[0])

    def followed_by(self, other: Self) -> Self:
        """These lists, then those of ``other``."""
        ids = np.concatenate([self.ids, other.ids])
        return type(self)(ids, np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]]))

    def cut(self, length: int) -> Self:
        """The first ``length`` ids of each list."""
        lengths = self.lengths
        if lengths.max(initial=0) <= length:
            return self
        return self._slices(self.offsets[:-1], np.minimum(lengths, length))

    def with_empty(self, count: int) -> Self:
        """The same lists, followed by ``count`` empty ones."""
        return type(self)(self.ids, np.append(self.offsets, np.full(count, self.offsets[-1])))

    def _slices(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Self:
        """The lists that begin at ``starts`` in the flat array and have these ``lengths``."""
        offsets = offsets_of(lengths)
        # Position in the source = position in the result + (start in the source - start in the result).
        source = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return type(self)(self.ids[source], offsets)


class TokenArray(IdLists):
    """The token ids of many texts. Text ``i`` is ``ids[offsets[i]:offsets[i + 1]]``."""

    def padded(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(ids, whether it is a token), each (texts, tokens): as wide as the longest text, at least 1."""
        is_token = np.arange(max(int(self.lengths.max(initial=0)), 1)) < self.lengths[:, None]
        ids = np.zeros(is_token.shape, np.int64)
        ids[is_token] = self.ids
        return ids, is_token


def length_groups(lengths: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of groups of texts with at most ``most`` tokens each, padding included; at least one text each.

    ``lengths`` are ascending: the last text of a group is its longest.
    """
    start = 0
    while start < len(lengths):
        is_full = np.arange(1, len(lengths) - start + 1) * np.maximum(lengths[start:], 1) > most
        stop = start + max(1, int(is_full.argmax()) if is_full.any() else len(is_full))
        yield start, stop
        start = stop


def offsets_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The offsets of consecutive lists of these lengths."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
