"""The vectors of a teacher, a better model, computed once for each text and cached."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from freemvmt.config import Side, TowerName
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import QUIET, Console
from freemvmt.runtime.devices import matrix_dtype
from freemvmt.storage import hub
from freemvmt.storage.digests import digest_of
from freemvmt.storage.files import sha256_of
from freemvmt.storage.sentence_config import SentenceConfig, read_sentence_config
from freemvmt.towers.model_folder import ACCUMULATORS
from freemvmt.towers.transformer import pretrained_tower
from freemvmt.towers.vector_cache import cached_vectors


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
        own = hub.local_folder(name)
        folder = own if own and _is_ours(own) else hub.encoder_folder(name, "--teacher")
        self._is_ours = _is_ours(folder)
        self._folder, self._max_length, self._device = folder, max_length, device
        weights = sorted(path for path in folder.glob("*.safetensors") if path.name != ACCUMULATORS)
        files = (*weights, folder / "config.json", folder / "tokenizer.json")
        self._sentence = SentenceConfig() if self._is_ours else read_sentence_config(folder)
        self._cache_name = digest_of([f"{max_length}\0", *map(sha256_of, files), self._sentence.key])

    def vectors(self, texts: Sequence[str], side: Side, console: Console = QUIET) -> NDArray[np.float16]:
        """Vectors of length 1, (texts, width), from the cache or computed and cached."""
        has_sides = self._is_ours or self._sentence.has_prompts
        name = f"{self._cache_name}-{side}" if has_sides else self._cache_name
        return cached_vectors(name, texts, lambda missing: self._encoders[side](missing), console, f"teacher   {side}")

    @functools.cached_property
    def _encoders(self) -> dict[Side, Callable[[Sequence[str]], torch.Tensor]]:
        """The encoders, loaded only when a vector is not in the cache."""
        if self._is_ours:
            model = TwoTowersModel.load(self._folder).to(self._device)
            return {"queries": model.encode_queries, "documents": model.encode_documents}
        tokenizer = Tokenizer.from_file(self._folder / "tokenizer.json", self._max_length)
        tower = pretrained_tower(self._folder).to(self._device, matrix_dtype("auto", self._device))

        @torch.no_grad()
        def encode(texts: Sequence[str], side: TowerName) -> torch.Tensor:
            vectors: torch.Tensor = tower(tower.prompted(tokenizer.encode(texts), side))
            return vectors

        return {"queries": lambda texts: encode(texts, "query"), "documents": lambda texts: encode(texts, "document")}


def _is_ours(folder: Path) -> bool:
    """Whether ``folder`` holds a model of ours, which may have a weight file for each tower."""
    path = folder / "config.json"
    try:
        return path.is_file() and "two_towers" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{folder}/config.json cannot be read ({error}); give another --teacher") from error
