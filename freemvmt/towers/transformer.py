"""A pre-trained transformer, and the mean of its outputs: what teaches, and what rows are distilled from."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from freemvmt.errors import UserError
from freemvmt.text.arrays import TokenArray

_TOKENS = 8192  # of a batch, padding counted


class Transformer:
    """The encoder in ``folder``, read only; texts come as tokens of its own tokenizer, without special ones."""

    def __init__(self, folder: Path, device: torch.device, precision: torch.dtype = torch.float32) -> None:
        import transformers

        try:
            with quiet(transformers.logging):
                self._encoder: Any = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{folder} holds no transformer that can be read ({error}); give another") from error
        self._encoder.train(False).to(device, precision)
        self.device = device
        self.before, self.after = _special_tokens(folder / "tokenizer.json")
        self.width: int = self._encoder.config.hidden_size
        longest = getattr(self._encoder.config, "max_position_embeddings", None) or 512
        self._longest = longest - len(self.before) - len(self.after)

    @torch.no_grad()
    def encode(self, tokens: TokenArray) -> Tensor:
        """The mean of the outputs over a text's tokens, special ones among them: (texts, width) float32."""
        tokens = tokens.cut(self._longest)
        vectors = torch.empty(len(tokens), self.width, device=self.device)
        lengths = tokens.lengths + len(self.before) + len(self.after)
        order = np.argsort(lengths, kind="stable")
        start = 0
        while start < len(order):
            # As many texts as fill a batch, padded to the longest of them, which is the last.
            filled = (np.arange(1, len(order) - start + 1) * lengths[order[start:]]) > _TOKENS
            stop = start + max(1, int(filled.argmax()) if filled.any() else len(filled))
            part = order[start:stop]
            vectors[torch.from_numpy(part).to(self.device)] = self._mean(tokens.take(part))
            start = stop
        return vectors

    def _mean(self, tokens: TokenArray) -> Tensor:
        lengths = tokens.lengths + len(self.before) + len(self.after)
        ids = np.zeros((len(tokens), int(lengths.max())), np.int64)
        inside = np.arange(ids.shape[1]) < lengths[:, None]
        for number in range(len(tokens)):
            ids[number, : lengths[number]] = [*self.before, *tokens[number].tolist(), *self.after]
        mask = torch.from_numpy(inside).to(self.device)
        outputs = self._encoder(
            input_ids=torch.from_numpy(ids).to(self.device), attention_mask=None if inside.all() else mask.long()
        ).last_hidden_state
        counted = mask.unsqueeze(2)
        mean: Tensor = (outputs.float() * counted).sum(1) / counted.sum(1)
        return mean


@functools.cache
def _special_tokens(tokenizer: Path) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text."""
    from tokenizers import Tokenizer

    reader = Tokenizer.from_file(str(tokenizer))
    reader.no_truncation()
    reader.no_padding()
    plain, whole = (reader.encode("a", add_special_tokens=special).ids for special in (False, True))
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    raise UserError(f"{tokenizer}: special tokens stand within a text; give another model")


@contextmanager
def quiet(logging: Any) -> Iterator[None]:
    """Without what a library says on its own."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
