"""Vectors of a model that knows more, made once and kept: a chunk of texts is a file, so a stop loses one chunk."""

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from freemvmt import hub
from freemvmt.console import QUIET, Console
from freemvmt.devices import matrix_dtype
from freemvmt.errors import UserError
from freemvmt.files import cache_folder, sha256_of, whole_file
from freemvmt.model import TwoTowersModel
from freemvmt.text.tokens import Tokenizer, digest_texts
from freemvmt.towers.transformer import Transformer

logger = logging.getLogger(__name__)

_CHUNK = 4096  # texts

Side = Literal["queries", "documents"]


class Teacher:
    """The model ``name``: a transformer (Hub name or folder), or the folder of a model of ours."""

    def __init__(self, name: str, max_length: int, device: torch.device) -> None:
        folder = hub.encoder_folder(name, "--teacher")
        self._ours = "two_towers" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._folder, self._max_length, self._device = folder, max_length, device
        digest = hashlib.blake2b(f"{max_length}\0".encode(), digest_size=16)
        for file in ("model.safetensors", "config.json", "tokenizer.json"):
            digest.update(sha256_of(folder / file).encode())
        self._digest = digest

    def vectors(self, texts: Sequence[str], side: Side, console: Console = QUIET) -> NDArray[np.float16]:
        """Vectors of length 1, (texts, width); from the cache where these texts were encoded before."""
        parts = []
        with console.progress(f"teacher   {side}", len(texts)) as bar:
            for start in range(0, len(texts), _CHUNK):
                chunk = texts[start : start + _CHUNK]
                path = cache_folder() / "teacher" / f"{self._key(chunk, side)}.npy"
                if (found := _read(path, len(chunk))) is None:
                    found = F.normalize(self._encoders[side](chunk)).half().cpu().numpy()
                    try:
                        with whole_file(path) as part, part.open("wb") as file:
                            np.save(file, found)
                    except UserError as error:
                        logger.info("the teacher's vectors are not kept: %s", error)
                parts.append(found)
                bar.advance(len(chunk))
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float16)

    @functools.cached_property
    def _encoders(self) -> dict[Side, Callable[[Sequence[str]], torch.Tensor]]:
        """Loaded when the first vectors are not in the cache."""
        if self._ours:
            model = TwoTowersModel.load(self._folder).to(self._device)
            return {"queries": model.encode_queries, "documents": model.encode_documents}
        tokenizer = Tokenizer.from_file(self._folder / "tokenizer.json", self._max_length)
        transformer = Transformer(self._folder, self._device, matrix_dtype("auto", self._device))

        def encode(texts: Sequence[str]) -> torch.Tensor:
            return transformer.encode(tokenizer.encode(texts))

        return {"queries": encode, "documents": encode}

    def _key(self, texts: Sequence[str], side: Side) -> str:
        digest = self._digest.copy()
        digest.update(side.encode() if self._ours else b"")
        digest_texts(digest, texts)
        return digest.hexdigest()


def _read(path: Path, texts: int) -> NDArray[np.float16] | None:
    try:
        found: NDArray[np.float16] = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError):
        found = np.empty(0, np.float16)
    if found.ndim != 2 or len(found) != texts or found.dtype != np.float16 or not np.isfinite(found).all():
        logger.warning("the teacher's vectors in %s are damaged; making them anew", path.name)
        return None
    return found
