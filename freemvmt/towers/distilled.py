"""Rows distilled from a transformer: each token alone through the whole model (Tulkens and van Dongen 2024, Model2Vec).

Centred, turned to principal components and divided by the square root of their singular values, so that the few
directions that all tokens share do not drown the rest; then as far spread as the raw table.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from freemvmt.errors import UserError
from freemvmt.files import sha256_of
from freemvmt.homes import cache_folder, note_uncached
from freemvmt.kept import Damaged, keep, read_kept
from freemvmt.text.arrays import TokenArray
from freemvmt.towers.transformer import pretrained_tower

logger = logging.getLogger(__name__)


def distilled_rows(folder: Path, table: Tensor) -> Tensor:
    """Rows (vocabulary, width) in place of ``table``, by the transformer in ``folder``; kept in the cache."""
    path = cache_folder("rows") / f"{sha256_of(folder / 'model.safetensors')[:32]}.safetensors"
    try:
        rows = read_kept(path)[0].get("rows", table[:0])
        if len(rows) == len(table):
            return rows
    except (FileNotFoundError, NotADirectoryError):
        pass
    except Damaged as error:
        logger.warning("the rows in %s are damaged (%s); making them anew", path, error)
    logger.info("distilling %s rows from the whole model; the next time they are there", f"{len(table):,}")
    alone = TokenArray(np.arange(len(table), dtype=np.int32), np.arange(len(table) + 1, dtype=np.int64))
    with torch.no_grad():
        rows = half_whitened(pretrained_tower(folder)(alone), float(table.std()))
    try:
        keep(path, {"rows": rows})
    except (UserError, OSError) as error:
        note_uncached(error)
    return rows


def half_whitened(outputs: Tensor, spread: float) -> Tensor:
    """``outputs`` (rows, width) centred, turned to principal components, each divided by the root of its singular
    value; their standard deviation is ``spread``."""
    centred = outputs.double() - outputs.double().mean(0)
    values, directions = torch.linalg.eigh(centred.T @ centred)  # squares of the singular values, rising
    components = (centred @ directions).flip(1) / values.flip(0).clamp(min=1e-12) ** 0.25
    rows: Tensor = (components * (spread / components.std())).float().contiguous()
    return rows
