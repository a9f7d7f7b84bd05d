"""The initial token vectors: a model's token table, or the model's output for each token alone."""

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from freemvmt.data.ragged import TokenArray
from freemvmt.errors import UserError
from freemvmt.runtime.home import cache_folder
from freemvmt.runtime.threads import in_threads
from freemvmt.storage.files import sha256_of
from freemvmt.storage.sentence_config import read_sentence_config
from freemvmt.storage.tensor_files import all_finite, load_cached, save_cached
from freemvmt.towers.transformer import pretrained_tower

logger = logging.getLogger(__name__)

# The names of the token table in encoders, decoders, T5 and static models.
TABLE_NAMES = ("word_embeddings.weight", "embed_tokens.weight", "tok_embeddings.weight", "wte.weight",
               "shared.weight", "embedding.weight", "embeddings")  # fmt: skip

_IDF_BLOCK = 1024  # documents whose tokens are sorted together; times the largest vocabulary it is below 2 ** 32


def token_table(weights: Path, vocabulary_size: int) -> Tensor:
    """The token table of a safetensors file, (vocabulary, width), float32.

    Reads only the table. Raises ``UserError`` when the file is damaged, or has no table with a row for each token.
    """
    try:
        with safe_open(weights, framework="pt") as file:
            names = sorted(file.keys(), key=len)
            for ending in TABLE_NAMES:
                for name in names:
                    if name == ending or name.endswith("." + ending):
                        table = _expand_model2vec(file, file.get_tensor(name).float())
                        break
                else:
                    continue
                break
            else:
                raise UserError(
                    f"{weights} holds no token table (none of {', '.join(TABLE_NAMES)}); give another --base"
                )
    except (SafetensorError, OSError) as error:
        raise UserError(f"{weights} is not a sound safetensors file ({error}); fetch it again") from error
    if table.ndim != 2 or len(table) < vocabulary_size:
        raise UserError(
            f"{weights}: a token table of shape {tuple(table.shape)} has no row for each of the tokenizer's "
            f"{vocabulary_size} tokens; give a --base whose tokenizer belongs to its weights"
        )
    if not all_finite(table):
        raise UserError(f"{weights}: the token table holds numbers that are not finite; give another --base")
    return table


def _expand_model2vec(file: Any, table: Tensor) -> Tensor:
    """Give each token its own row: model2vec may share rows (``mapping``) and weight tokens (``weights``)."""
    names = set(file.keys())
    if "mapping" in names:
        mapping = file.get_tensor("mapping").long()
        if mapping.ndim != 1 or (len(mapping) and not 0 <= int(mapping.min()) <= int(mapping.max()) < len(table)):
            raise SafetensorError("its mapping names rows that are not there")
        table = table[mapping]
    if "weights" in names:
        weights = file.get_tensor("weights").float()
        if weights.shape != table.shape[:1]:
            raise SafetensorError("it has not one weight a token")
        table = table * weights.unsqueeze(1)
    return table


def idf(documents: TokenArray, vocabulary_size: int) -> NDArray[np.float32]:
    """Inverse document frequency of each token, ln(1 + N / (1 + df)), (vocabulary,).

    N is the number of documents, df the number of documents with the token (Spärck Jones 1972, smoothed).
    """
    frequency = np.zeros(vocabulary_size, np.int64)
    lock = threading.Lock()

    def count(start: int) -> None:
        block = documents.slice(start, min(start + _IDF_BLOCK, len(documents)))
        # One code for each (document, token); equal codes are counted once, at the first.
        document_of_token = np.repeat(np.arange(len(block), dtype=np.int64), block.lengths)
        codes = (document_of_token * vocabulary_size + block.ids).astype(np.uint32)
        codes.sort()
        first = np.diff(codes, prepend=np.uint32(2**32 - 1)) != 0
        counts = np.bincount(codes[first] % vocabulary_size, minlength=vocabulary_size)
        with lock:
            np.add(frequency, counts, out=frequency)

    in_threads(count, range(0, len(documents), _IDF_BLOCK))
    return np.log1p(len(documents) / (1.0 + frequency)).astype(np.float32)


def principal_directions(table: Tensor, dim: int) -> Tensor:
    """The ``dim`` directions in which the rows of ``table`` vary most, (dim, width): the best linear head."""
    rows = table.double()
    _, directions = torch.linalg.eigh(rows.T @ rows)  # eigenvalues ascend
    head: Tensor = directions[:, -dim:].flip(1).T.to(table.dtype).contiguous()
    return head


def encoded_rows(folder: Path, vocabulary_size: int) -> Tensor:
    """What the transformer in ``folder`` makes of each token alone, without a prompt, (vocabulary, width); cached."""
    pooling = read_sentence_config(folder).pooling
    name = "outputs" if pooling == "mean" else f"{pooling}-outputs"
    path = cache_folder("rows") / f"{sha256_of(folder / 'model.safetensors')[:32]}-{name}.safetensors"
    cached = load_cached(path, "rows")[0].get("outputs", torch.empty(0))
    if len(cached) == vocabulary_size:
        return cached
    logger.info("encoding %s tokens by the whole model; the next time they are there", f"{vocabulary_size:,}")
    single_tokens = TokenArray(np.arange(vocabulary_size, dtype=np.int32), np.arange(vocabulary_size + 1))
    with torch.no_grad():
        outputs: Tensor = pretrained_tower(folder)(single_tokens)
    save_cached(path, {"outputs": outputs})
    return outputs


def half_whitened(outputs: Tensor, std: float) -> Tensor:
    """The principal components of ``outputs`` (rows, width), each divided by the square root of its singular value.

    The outputs are centred first; the result has the standard deviation ``std``.
    """
    centred = outputs.double() - outputs.double().mean(0)
    values, directions = torch.linalg.eigh(centred.T @ centred)  # squares of the singular values, ascending
    components = (centred @ directions).flip(1) / values.flip(0).clamp(min=1e-12) ** 0.25
    rows: Tensor = (components * (std / components.std())).float().contiguous()
    return rows
