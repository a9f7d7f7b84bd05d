"""Vectors of texts that are slow to encode, computed once for each text and cached.

A cache file holds one chunk of vectors, so an interruption loses at most one chunk. The key of a text is its hash, so
data sets share the cache. The name of a cache says what encodes: two encoders never share one.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch.nn import functional as F

from freemvmt.data.values import passage_id
from freemvmt.runtime.console import QUIET, Console
from freemvmt.runtime.home import cache_folder
from freemvmt.storage.digests import digest_of
from freemvmt.storage.tensor_files import load_cached, save_cached

_CHUNK = 1024  # texts


def cached_vectors(
    name: str,
    texts: Sequence[str],
    encode: Callable[[Sequence[str]], torch.Tensor],
    console: Console = QUIET,
    label: str = "encoding",
) -> NDArray[np.float16]:
    """Vectors of length 1, (texts, width), from the cache ``name``, or by ``encode``, and then cached.

    ``encode`` is called only for texts that are not in the cache; ``label`` stands beside the progress bar.
    """
    keys, first, index = np.unique(_hashes(texts), return_index=True, return_inverse=True)
    folder = cache_folder("vectors") / name
    vectors, is_cached = _read(folder, keys)
    missing = np.flatnonzero(~is_cached)
    with console.progress(label, len(missing)) as bar:
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            outputs = F.normalize(encode([texts[number] for number in first[chunk]])).half().cpu().numpy()
            _write(folder, keys[chunk], outputs)
            if not vectors.shape[1]:
                vectors = np.empty((len(keys), outputs.shape[1]), np.float16)
            vectors[chunk] = outputs
            bar.advance(len(chunk))
    return vectors[index]


def _hashes(texts: Sequence[str]) -> NDArray[np.uint64]:
    """A hash of 64 bits for each text. The chance of a collision among 100 million texts is 1 in 3,000."""
    return np.frombuffer(bytes.fromhex("".join(map(passage_id, texts))), np.uint64)


def _read(folder: Path, keys: NDArray[np.uint64]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """(the cached vectors of ``keys``; whether each key is cached). ``keys`` are ascending."""
    cached_vectors, is_cached = np.empty((len(keys), 0), np.float16), np.zeros(len(keys), np.bool_)
    for path in sorted(folder.glob("[!.]*.safetensors")):
        with suppress(SafetensorError, OSError, KeyError):  # ``load_cached`` says what is wrong
            if not _find(_keys_in(path), keys)[1].any():
                continue
        tensors, _ = load_cached(path, "vectors")
        if not tensors:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            continue
        vectors = tensors["vectors"].numpy()
        if not cached_vectors.shape[1]:
            cached_vectors = np.empty((len(keys), vectors.shape[1]), np.float16)
        position, matches = _find(tensors["keys"].numpy().view(np.uint64), keys)
        cached_vectors[position[matches]] = vectors[matches]
        is_cached[position[matches]] = True
    return cached_vectors, is_cached


def _find(some: NDArray[np.uint64], keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(where in ``keys``, which are ascending, each of ``some`` stands; whether it does)."""
    if not len(keys):
        return np.zeros(len(some), np.int64), np.zeros(len(some), np.bool_)
    position = np.searchsorted(keys, some)
    position[position == len(keys)] = 0
    return position, keys[position] == some


@cache
def _keys_in(path: Path) -> NDArray[np.uint64]:
    """The keys in a cache file, whose name is their digest, so they never change. A corpus is looked up in parts, and
    each file is read whole only for a part that it has vectors of."""
    with safe_open(path, framework="np") as file:
        keys: NDArray[np.uint64] = file.get_tensor("keys").view(np.uint64)
    return keys


def _write(folder: Path, keys: NDArray[np.uint64], vectors: NDArray[np.float16]) -> None:
    tensors = {"keys": torch.from_numpy(keys.view(np.int64)), "vectors": torch.from_numpy(vectors)}
    save_cached(folder / f"{digest_of([keys])}.safetensors", tensors)
