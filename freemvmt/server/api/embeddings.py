"""Embeddings in the form of OpenAI's API: the sizes of vectors, encoding, and the response."""

import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np

from freemvmt.errors import UserError
from freemvmt.search.encoder import Encoder, to_numpy
from freemvmt.search.index.ranking import Vectors
from freemvmt.search.stores.layout import MODEL_FOLDER

Side = Literal["query", "document"]


def check_size(size: int, sizes: list[int]) -> None:
    """Raise ``UserError`` unless ``size`` is one of ``sizes``, which begin with the model's own."""
    if size not in sizes:
        shorter = f" or, cut, {' or '.join(map(str, sizes[1:]))}" if sizes[1:] else ""
        message = f"dimensions is {size}, but vectors of this model have {sizes[0]} numbers{shorter}"
        raise UserError(f"{message}; ask for that, or leave it out")


def trained_sizes(bundle: Path | None, model_size: int) -> list[int]:
    """The sizes below ``model_size`` that the model of ``bundle`` was trained for (``--matryoshka``), largest first.

    The list is empty when indexing rotated the vectors (``--dim``): their first numbers are no longer the trained ones.
    """
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        assert bundle is not None
        model_config = json.loads((bundle / MODEL_FOLDER / "config.json").read_bytes())
        trained = model_config["training"]["config"]
        sizes = sorted((int(size) for size in trained["matryoshka"]), reverse=True)
        if model_config["model"]["dim"] in (trained["dim"], *sizes):
            return [size for size in sizes if size < model_size]
    return []


def encode(model: Encoder, texts: list[str], side: Side, size: int | None) -> tuple[Vectors, int]:
    """The vectors of ``texts``, (n, ``size`` or the model's own size), each of length 1, and the number of tokens."""
    tokens = model.tokenizer.encode(texts)
    encode_tokens = model.encode_query_tokens if side == "query" else model.encode_document_tokens
    rows = to_numpy(encode_tokens(tokens)).astype("<f4", copy=False)
    if size is not None and size < rows.shape[1]:
        rows = rows[:, :size]
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows / np.where(lengths > 0, lengths, 1)  # a text without tokens keeps its zeros
    return rows, len(tokens.ids)


def answer(rows: Vectors, token_count: int, model_id: str, encoding: Literal["float", "base64"]) -> dict[str, object]:
    """The response body: ``rows`` in the order of the texts, and ``token_count``, the number of tokens encoded."""
    vectors = [base64.b64encode(row).decode() for row in rows] if encoding == "base64" else list(rows)
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {
        "object": "list",
        "data": data,
        "model": model_id,
        "usage": {"prompt_tokens": token_count, "total_tokens": token_count},
    }
