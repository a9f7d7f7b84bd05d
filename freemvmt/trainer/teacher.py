"""The vectors of a teacher, a better model, computed once for each text and cached."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from freemvmt.config import TOWER_OF, ModelConfig, Side
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import QUIET, Console
from freemvmt.runtime.devices import matrix_dtype
from freemvmt.storage import hub


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
        if _is_ours(folder):
            self._model = TwoTowersModel.load(folder).to(device)
        else:
            config = ModelConfig(base=str(folder), max_length=max_length, tower="transformer")
            self._model = TwoTowersModel(config).to(device, matrix_dtype("auto", device))

    def vectors(self, texts: Sequence[str], side: Side, console: Console = QUIET) -> NDArray[np.float16]:
        """Vectors of length 1, (texts, width), from the cache or computed and cached."""
        return self._model.cached_vectors(TOWER_OF[side], texts, console).half().cpu().numpy()


def _is_ours(folder: Path) -> bool:
    """Whether ``folder`` holds a model of ours, which may have a weight file for each tower."""
    path = folder / "config.json"
    try:
        return path.is_file() and "two_towers" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{folder}/config.json cannot be read ({error}); give another --teacher") from error
