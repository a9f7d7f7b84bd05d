"""Vectors of texts in the shape of OpenAI's API: which sizes there are, and what an answer holds."""

import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np

from freemvmt.errors import UserError
from freemvmt.search.encoder import Encoder, plain
from freemvmt.search.index.ranking import Vectors
from freemvmt.search.stores.layout import MODEL_FOLDER

Side = Literal["query", "document"]


def check_size(wanted: int, sizes: list[int]) -> None:
    """Raise ``UserError`` unless vectors can have ``wanted`` numbers: one of ``sizes``, the model's own the first."""
    if wanted not in sizes:
        cut = f" or, cut, {' or '.join(map(str, sizes[1:]))}" if sizes[1:] else ""
        message = f"dimensions is {wanted}, but vectors of this model have {sizes[0]} numbers{cut}"
        raise UserError(f"{message}; ask for that, or leave it out")


def trained_sizes(bundle: Path | None, own: int) -> list[int]:
    """The sizes below ``own`` that the model of ``bundle`` was trained for (``--matryoshka``), the largest first.

    None of them where indexing (``--dim``) turned the vectors: their first numbers are no longer those.
    """
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        assert bundle is not None
        described = json.loads((bundle / MODEL_FOLDER / "config.json").read_bytes())
        trained = described["training"]["config"]
        sizes = sorted((int(size) for size in trained["matryoshka"]), reverse=True)
        if described["model"]["dim"] in (trained["dim"], *sizes):
            return [size for size in sizes if size < own]
    return []


def encode(model: Encoder, texts: list[str], side: Side, size: int | None) -> tuple[Vectors, int]:
    """Vectors of ``texts``, (n, ``size`` or the model's own), each of length 1, and the number of tokens read."""
    tokens = model.tokenizer.encode(texts)
    encode_tokens = model.encode_query_tokens if side == "query" else model.encode_document_tokens
    rows = plain(encode_tokens(tokens)).astype("<f4", copy=False)
    if size is not None and size < rows.shape[1]:
        rows = rows[:, :size]
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows / np.where(lengths > 0, lengths, 1)  # a text without a token stays zeros
    return rows, len(tokens.ids)


def answer(rows: Vectors, count: int, model_id: str, encoding: Literal["float", "base64"]) -> dict[str, object]:
    """What is answered: ``rows`` in the order of the texts; ``count`` tokens were read."""
    packed = [base64.b64encode(row).decode() for row in rows] if encoding == "base64" else list(rows)
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(packed)]
    return {
        "object": "list",
        "data": data,
        "model": model_id,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }
