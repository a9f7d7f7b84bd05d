"""The transformer tower: a pre-trained encoder, and the mean of its outputs.

It is the reference for the other towers, it teaches them, and rows are distilled from it.
"""

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from freemvmt.data.ragged import TokenArray
from freemvmt.errors import UserError

_TOKENS = 8192  # of texts that go through the encoder together, padding counted


@dataclass(frozen=True, eq=False)
class Encoder:
    """What an encoder is apart from its weights: ``config``, as `transformers` writes it, and the special tokens that
    stand before and after a text."""

    config: dict[str, Any]
    before: list[int]
    after: list[int]

    def module(self) -> Any:
        """The encoder with weights yet to be loaded, on the device that is the default; ``UserError`` if it is none."""
        import transformers

        known = {key: value for key, value in self.config.items() if key not in ("model_type", "auto_map")}
        try:
            config = transformers.AutoConfig.for_model(self.config["model_type"], **known)
            with quiet(transformers.logging):
                return transformers.AutoModel.from_config(config)  # type: ignore[no-untyped-call]
        except Exception as error:  # each library below checks in its own way
            reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"the encoder's configuration describes none ({reason}); save the model again") from error


class TransformerTower(nn.Module):
    """The mean of the outputs over a text's tokens, special ones among them; a text without tokens gives zeros.

    ``table`` (vocabulary, width) holds the encoder's token rows, and everything else is in ``encoder``.
    """

    def __init__(self, table: nn.Parameter, encoder: Any, before: list[int], after: list[int]) -> None:
        super().__init__()
        self.table, self.encoder = table, encoder
        encoder.set_input_embeddings(nn.Identity())  # rows come from the table
        self._before, self._after = before, after
        self._precision = torch.float32
        longest = getattr(encoder.config, "max_position_embeddings", None) or 512
        self._longest: int = longest - len(before) - len(after)

    def train_in(self, precision: torch.dtype) -> None:
        """Let matrix products be of ``precision`` in training; a trained tower encodes in what its weights are."""
        self._precision = precision

    def measure(self) -> None:
        """Nothing here depends on how the table is scaled."""

    def forward(self, tokens: TokenArray) -> Tensor:
        """(texts, width) float32 on the table's device."""
        device, width = self.table.device, self.table.shape[1]
        if not len(tokens):
            return torch.zeros(0, width, device=device)
        tokens = tokens.cut(self._longest)
        order = np.argsort(tokens.lengths, kind="stable")
        parts = [self._mean(tokens.take(order[start:stop])) for start, stop in self._groups(tokens.lengths[order])]
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        vectors = torch.cat(parts)[torch.from_numpy(place).to(device)]
        return vectors * torch.from_numpy(tokens.lengths > 0).to(device).unsqueeze(1)

    def split(self, tokens: TokenArray) -> Tensor:
        """Raises ``UserError``: what a token adds here depends on all others."""
        raise UserError(
            "a transformer's score cannot be split over the words of a text; average and recurrent ones can"
        )

    def _groups(self, rising: Any) -> Iterator[tuple[int, int]]:
        """(first text, one beyond the last) of each group of texts with ``rising`` lengths: the last is the longest."""
        lengths = rising + len(self._before) + len(self._after)
        start = 0
        while start < len(lengths):
            filled = np.arange(1, len(lengths) - start + 1) * lengths[start:] > _TOKENS
            stop = start + max(1, int(filled.argmax()) if filled.any() else len(filled))
            yield start, stop
            start = stop

    def _mean(self, tokens: TokenArray) -> Tensor:
        lengths = tokens.lengths + len(self._before) + len(self._after)
        ids = np.zeros((len(tokens), int(lengths.max())), np.int64)
        inside = np.arange(ids.shape[1]) < lengths[:, None]
        for number in range(len(tokens)):
            ids[number, : lengths[number]] = [*self._before, *tokens[number].tolist(), *self._after]
        device = self.table.device
        mask = torch.from_numpy(inside).to(device)
        in_bf16 = self.training and self._precision == torch.bfloat16
        with torch.autocast(device.type, torch.bfloat16, enabled=in_bf16):
            outputs = self.encoder(
                inputs_embeds=F.embedding(torch.from_numpy(ids).to(device), self.table),
                attention_mask=None if inside.all() else mask.long(),
            ).last_hidden_state
        counted = mask.unsqueeze(2)
        mean: Tensor = (outputs.float() * counted).sum(1) / counted.sum(1)
        return mean


def pretrained_tower(folder: Path) -> TransformerTower:
    """The tower of the encoder in ``folder`` (weights, config.json, tokenizer.json), with no training in mind."""
    import transformers

    try:
        with quiet(transformers.logging):
            encoder: Any = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no transformer that can be read ({error}); give another") from error
    table = encoder.get_input_embeddings().weight
    tower = TransformerTower(table, encoder, *special_tokens((folder / "tokenizer.json").read_text(encoding="utf-8")))
    return tower.train(False)


def encoder_of(tower: TransformerTower, tokenizer: str) -> Encoder:
    """What ``tower`` is apart from its weights; ``tokenizer`` is the text of its tokenizer.json."""
    return Encoder(json.loads(tower.encoder.config.to_json_string(use_diff=False)), *special_tokens(tokenizer))


@functools.lru_cache(maxsize=4)
def special_tokens(tokenizer: str) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text; ``tokenizer`` is the text of a tokenizer.json."""
    from tokenizers import Tokenizer

    reader = Tokenizer.from_str(tokenizer)
    reader.no_truncation()
    reader.no_padding()
    plain, whole = (reader.encode("a", add_special_tokens=special).ids for special in (False, True))
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    raise UserError("special tokens of this model stand within a text; give another model")


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
