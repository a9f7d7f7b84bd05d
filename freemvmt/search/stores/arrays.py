"""Arrays and strings in files that NumPy reads: large files are memory-mapped and not copied.

An array (n,) is a .npy file. Strings are two files: their UTF-8, one after the other (.utf8), and the offsets at which
each begins and the last ends (.npy).
"""

import mmap
import os
from collections.abc import Iterable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from freemvmt.errors import UserError

_OFFSET = np.dtype("<i8")
_MAPPED_FROM = 2**20  # bytes; a smaller file is read, because a mapped one holds one of the files a process may open
_BLOCK = 1024  # strings that are written at once


def damaged(path: Path, reason: object) -> UserError:
    """The error for a file of a bundle that does not hold what it should."""
    return UserError(f"{path} is damaged ({reason}); index the corpus again")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write ``array`` (n,); unlike ``np.save``, the ``OSError`` of a write that fails names the reason."""
    with path.open("wb") as file:
        _write_header(file, array.dtype, len(array))
        file.write(array.data)


def _write_header(file: BinaryIO, dtype: np.dtype[Any], count: int) -> None:
    """The header of ``count`` elements; NumPy pads it, so its size does not depend on ``count``."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)


def read_array(path: Path, *dtypes: np.dtype[Any]) -> NDArray[Any]:
    """The array that ``path`` holds; ``UserError`` unless it has one dimension and one of ``dtypes``."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise damaged(path, error.strerror) from error
    except Exception as error:  # NumPy parses the header as Python, and raises whatever that raises
        raise damaged(path, "no array that NumPy reads") from error
    if array.ndim != 1 or array.dtype not in dtypes:
        raise damaged(path, f"its values are of another kind than {' or '.join(map(str, dtypes))}")
    return np.asarray(array) if array.nbytes >= _MAPPED_FROM else np.array(array)


def write_strings(stem: Path, strings: Iterable[str]) -> None:
    """Write ``strings`` to the files ``stem``.utf8 and ``stem``.npy; only a block of them is in memory."""
    items, end, count = iter(strings), 0, 1
    with Path(f"{stem}.utf8").open("wb") as content, Path(f"{stem}.npy").open("wb") as offsets:
        _write_header(offsets, _OFFSET, 0)
        offsets.write(bytes(_OFFSET.itemsize))
        while block := [text.encode() for text in islice(items, _BLOCK)]:
            content.writelines(block)
            ends = end + np.cumsum([len(text) for text in block], dtype=_OFFSET)
            offsets.write(ends.data)
            end, count = int(ends[-1]), count + len(block)
        offsets.seek(0)
        _write_header(offsets, _OFFSET, count)


class StoredStrings:
    """The strings that ``write_strings`` wrote; opening them takes the same time whatever their number.

    ``UserError`` when a file is missing, or is not the other's.
    """

    def __init__(self, stem: Path) -> None:
        self.path = Path(f"{stem}.utf8")
        self._offsets = read_array(Path(f"{stem}.npy"), _OFFSET)
        self._content = _content_of(self.path)
        if not len(self._offsets) or self._offsets[0] != 0 or self._offsets[-1] != len(self._content):
            raise damaged(self.path, "its offsets are those of another text")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def read(self, first: int, count: int) -> list[str]:
        """The ``count`` strings from ``first`` on; ``UserError`` when they are damaged."""
        ends = self._offsets[first : first + count + 1].tolist()
        if ends[0] < 0 or ends[-1] > len(self._content) or ends != sorted(ends):
            raise damaged(self.path, "text that lies outside of it")
        try:
            return [self._content[start:stop].decode() for start, stop in pairwise(ends)]
        except UnicodeDecodeError as error:
            raise damaged(self.path, error) from error

    def all(self) -> list[str]:
        """All strings."""
        return self.read(0, len(self))

    def check(self) -> None:
        """Raise ``UserError`` unless all strings can be read."""
        if (np.diff(self._offsets) < 0).any():
            raise damaged(self.path, "text that lies outside of it")
        content = np.frombuffer(self._content, np.uint8)
        try:
            content.tobytes().decode()
        except UnicodeDecodeError as error:
            raise damaged(self.path, error) from error
        starts = self._offsets[self._offsets < len(content)]
        if ((content[starts] & 0xC0) == 0x80).any():  # a continuation byte of UTF-8
            raise damaged(self.path, "text that begins within a character")


def _content_of(path: Path) -> bytes | mmap.mmap:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < _MAPPED_FROM:
                return file.read()
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise damaged(path, error.strerror) from error
