"""The vectors of a corpus while it is indexed, in checked files of one chunk each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import torch
from torch.nn import functional as F

from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import Bar, Console
from freemvmt.search.index.ranking import Vectors
from freemvmt.search.stores.rows import Rows
from freemvmt.storage.digests import digest_of
from freemvmt.storage.mapped_tensors import map_tensors
from freemvmt.storage.tensor_files import load_cached, save_checked

_NAME = "vectors"  # of the one tensor in a file

_PART = 1024  # documents that a transformer encodes between two steps of the progress bar


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


def encode_chunks(
    model: TwoTowersModel, directions: torch.Tensor | None, rows: Rows, size: int, folder: Path, console: Console
) -> Chunks:
    """Encode all rows, ``size`` into each file in ``folder``; a sound file of the same model and texts is reused.

    ``directions`` reduce the vectors, see ``TwoTowersModel.cut``.
    """
    folder.mkdir(exist_ok=True)
    model_digest = digest_of([model.digest(), b"" if directions is None else directions.contiguous().numpy()])
    paths: list[Path] = []
    with console.progress("encoding", len(rows)) as bar:
        for number, start in enumerate(range(0, len(rows), size)):
            contents = [rows.content(row) for row in range(start, min(start + size, len(rows)))]
            path = folder / f"{number:06d}-{digest_of([model_digest, json.dumps(contents)])}.safetensors"
            if load_cached(path, _NAME)[0]:
                bar.advance(len(contents))
            else:
                vectors = encode_documents(model, contents, bar)
                if directions is not None:
                    vectors = F.normalize(vectors @ directions.T)
                save_checked(path, {_NAME: vectors.cpu().contiguous()})
            paths.append(path)
    return Chunks(paths)


def encode_documents(model: TwoTowersModel, texts: Sequence[str], bar: Bar) -> torch.Tensor:
    """Vectors of documents, (n, dim). Those of a transformer come from the cache that training fills, or go there."""
    if model.config.kind_of("document") != "transformer":
        vectors = model.encode_documents(texts)
        bar.advance(len(texts))
        return vectors
    parts = []
    for start in range(0, len(texts), _PART):
        part = texts[start : start + _PART]
        parts.append(model.cached_vectors("document", part))
        bar.advance(len(part))
    return torch.cat(parts)
