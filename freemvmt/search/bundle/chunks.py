"""The vectors of a corpus while it is indexed, in checked files of one chunk each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import overload

from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import Console
from freemvmt.search.index.ranking import Vectors
from freemvmt.search.stores.rows import Rows
from freemvmt.storage.digests import digest_of
from freemvmt.storage.mapped_tensors import map_tensors
from freemvmt.storage.tensor_files import load_cached, save_checked

_NAME = "vectors"  # of the one tensor in a file


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
        return map_tensors(self._paths[number])[_NAME]


def encode_chunks(model: TwoTowersModel, rows: Rows, size: int, folder: Path, console: Console) -> Chunks:
    """Encode all rows, ``size`` into each file in ``folder``; a sound file of the same model and texts is reused."""
    folder.mkdir(exist_ok=True)
    model_digest = model.digest()
    paths: list[Path] = []
    with console.progress("encoding", len(rows)) as bar:
        for number, start in enumerate(range(0, len(rows), size)):
            contents = [rows.content(row) for row in range(start, min(start + size, len(rows)))]
            path = folder / f"{number:06d}-{digest_of([model_digest, json.dumps(contents)])}.safetensors"
            if not load_cached(path, _NAME)[0]:
                save_checked(path, {_NAME: model.encode_documents(contents).cpu()})
            paths.append(path)
            bar.advance(len(contents))
    return Chunks(paths)
