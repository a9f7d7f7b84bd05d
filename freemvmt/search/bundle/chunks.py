"""The vectors of a corpus while it is indexed, in files of one chunk each, with checksums."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import Console
from freemvmt.search.index.ranking import Vectors
from freemvmt.search.stores.rows import Rows
from freemvmt.storage.files import atomic_file, sha256_of


class Chunks(Sequence[Vectors]):
    """A sequence of files of vectors; each access maps one file, and nothing else is held in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, number: int) -> Vectors: ...

    @overload
    def __getitem__(self, number: slice) -> "Chunks": ...

    def __getitem__(self, number: int | slice) -> "Vectors | Chunks":
        if isinstance(number, slice):
            return Chunks(self._paths[number])
        chunk: Vectors = np.load(self._paths[number], mmap_mode="r", allow_pickle=False)
        return chunk


def encode_chunks(model: TwoTowersModel, rows: Rows, size: int, folder: Path, console: Console) -> Chunks:
    """Encode all rows, ``size`` into each file in ``folder``; a file with the right checksum is reused."""
    folder.mkdir(exist_ok=True)
    model_digest = model.digest()
    paths: list[Path] = []
    with console.progress("encoding", len(rows)) as bar:
        for number, start in enumerate(range(0, len(rows), size)):
            contents = [rows.content(row) for row in range(start, min(start + size, len(rows)))]
            key = model_digest.copy()
            key.update(json.dumps(contents).encode())
            path = folder / f"{number:06d}-{key.hexdigest()[:32]}.npy"
            checksum_file = path.with_suffix(".sha256")
            if not (path.exists() and checksum_file.exists() and checksum_file.read_text() == sha256_of(path)):
                content = io.BytesIO()  # np.save to a path hides the reason when it fails
                np.save(content, model.encode_documents(contents).cpu().numpy())
                with atomic_file(path) as temporary:
                    temporary.write_bytes(content.getbuffer())
                with atomic_file(checksum_file) as temporary:
                    temporary.write_text(sha256_of(path))
            paths.append(path)
            bar.advance(len(contents))
    return Chunks(paths)
