"""The vectors of a teacher, a better model, computed once for each text and cached.

A cache file holds one chunk of vectors, so an interruption loses at most one chunk. The key of a text is its hash, so
data sets share the cache.
"""

import functools
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from freemvmt.config import Side
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.data.values import passage_id
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import QUIET, Console
from freemvmt.runtime.devices import matrix_dtype
from freemvmt.runtime.home import cache_folder
from freemvmt.storage import hub
from freemvmt.storage.digests import digest_of
from freemvmt.storage.files import sha256_of
from freemvmt.storage.tensor_files import load_cached, save_cached
from freemvmt.towers.transformer import pretrained_tower

_CHUNK = 4096  # texts


@dataclass(frozen=True, eq=False)
class TeacherVectors:
    """The teacher's vectors of all training queries and passages, (n, width), of length 1."""

    queries: NDArray[np.float16]
    passages: NDArray[np.float16]


class Teacher:
    """The model ``name``: a transformer (Hub name or folder), or the folder of a model of ours.

    Raises ``UserError`` when it does not exist or cannot be read.
    """

    def __init__(self, name: str, max_length: int, device: torch.device) -> None:
        folder = hub.encoder_folder(name, "--teacher")
        try:
            self._is_ours = "two_towers" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{folder}/config.json cannot be read ({error}); give another --teacher") from error
        self._folder, self._max_length, self._device = folder, max_length, device
        files = ("model.safetensors", "config.json", "tokenizer.json")
        self._cache_name = digest_of([f"{max_length}\0", *(sha256_of(folder / file) for file in files)])

    def vectors(self, texts: Sequence[str], side: Side, console: Console = QUIET) -> NDArray[np.float16]:
        """Vectors of length 1, (texts, width), from the cache or computed and cached."""
        keys, first, index = np.unique(_hashes(texts), return_index=True, return_inverse=True)
        folder = cache_folder("teacher") / (f"{self._cache_name}-{side}" if self._is_ours else self._cache_name)
        all_vectors, is_cached = _read_cached(folder, keys)
        missing = np.flatnonzero(~is_cached)
        with console.progress(f"teacher   {side}", len(missing)) as bar:
            for start in range(0, len(missing), _CHUNK):
                chunk = missing[start : start + _CHUNK]
                outputs = F.normalize(self._encoders[side]([texts[number] for number in first[chunk]]))
                vectors = outputs.half().cpu().numpy()
                _write_cached(folder, keys[chunk], vectors)
                if not all_vectors.shape[1]:
                    all_vectors = np.empty((len(keys), vectors.shape[1]), np.float16)
                all_vectors[chunk] = vectors
                bar.advance(len(chunk))
        return all_vectors[index]

    @functools.cached_property
    def _encoders(self) -> dict[Side, Callable[[Sequence[str]], torch.Tensor]]:
        """The encoders, loaded only when a vector is not in the cache."""
        if self._is_ours:
            model = TwoTowersModel.load(self._folder).to(self._device)
            return {"queries": model.encode_queries, "documents": model.encode_documents}
        tokenizer = Tokenizer.from_file(self._folder / "tokenizer.json", self._max_length)
        tower = pretrained_tower(self._folder).to(self._device, matrix_dtype("auto", self._device))

        @torch.no_grad()
        def encode(texts: Sequence[str]) -> torch.Tensor:
            vectors: torch.Tensor = tower(tokenizer.encode(texts))
            return vectors

        return {"queries": encode, "documents": encode}


def _hashes(texts: Sequence[str]) -> NDArray[np.uint64]:
    """A hash of 64 bits for each text. The chance of a collision among 100 million texts is 1 in 3,000."""
    return np.frombuffer(bytes.fromhex("".join(map(passage_id, texts))), np.uint64)


def _read_cached(folder: Path, keys: NDArray[np.uint64]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """(the cached vectors of ``keys``; whether each key is cached). ``keys`` are ascending."""
    cached_vectors, is_cached = np.empty((len(keys), 0), np.float16), np.zeros(len(keys), np.bool_)
    for path in sorted(folder.glob("[!.]*.safetensors")):
        tensors, _ = load_cached(path, "teacher's vectors")
        if not tensors:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            continue
        file_keys, vectors = tensors["keys"].numpy().view(np.uint64), tensors["vectors"].numpy()
        if not cached_vectors.shape[1]:
            cached_vectors = np.empty((len(keys), vectors.shape[1]), np.float16)
        position = np.searchsorted(keys, file_keys)
        position[position == len(keys)] = 0
        matches = keys[position] == file_keys if len(keys) else np.zeros(len(file_keys), np.bool_)
        cached_vectors[position[matches]] = vectors[matches]
        is_cached[position[matches]] = True
    return cached_vectors, is_cached


def _write_cached(folder: Path, keys: NDArray[np.uint64], vectors: NDArray[np.float16]) -> None:
    tensors = {"keys": torch.from_numpy(keys.view(np.int64)), "vectors": torch.from_numpy(vectors)}
    save_cached(folder / f"{digest_of([keys])}.safetensors", tensors)
