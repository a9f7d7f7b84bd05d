"""The transformer tower: a pre-trained encoder, and its outputs pooled to one vector, by default their mean.

It is the reference for the other towers and their teacher, and token vectors are distilled from it.
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

from freemvmt.config import MAX_INTEGER, TowerName
from freemvmt.data.ragged import TokenArray, length_groups
from freemvmt.errors import UserError, first_line
from freemvmt.runtime.console import count_of
from freemvmt.runtime.devices import matrix_dtype
from freemvmt.storage.sentence_config import SentenceConfig, read_sentence_config
from freemvmt.towers.prompts import Prompt

# Tokens in a batch of the encoder, padding included. A core is a quarter faster if what a layer makes fits its cache.
_TOKENS, _TOKENS_ON_GPU = 2048, 8192
_PROVENANCE = ("_name_or_path", "transformers_version")  # of a configuration: where it was read, and by what


@dataclass(frozen=True, eq=False)
class EncoderConfig:
    """An encoder without its weights: ``config`` as `transformers` writes it, but not where it was read from, how its
    outputs become a vector, and the text of its tokenizer.json."""

    config: dict[str, Any]
    sentence: SentenceConfig
    tokenizer: str

    def __post_init__(self) -> None:
        plain = {key: value for key, value in self.config.items() if key not in _PROVENANCE}
        object.__setattr__(self, "config", plain)

    @property
    def key(self) -> str:
        """A text that tells it from others with the same tokenizer."""
        return json.dumps(self.config, sort_keys=True) + self.sentence.key

    def module(self) -> Any:
        """The encoder with random weights, on the default device; ``UserError`` when ``config`` describes none."""
        import transformers

        settings = {key: value for key, value in self.config.items() if key not in ("model_type", "auto_map")}
        try:
            config = transformers.AutoConfig.for_model(self.config["model_type"], **settings)
            with silenced(transformers.logging):
                return transformers.AutoModel.from_config(config)  # type: ignore[no-untyped-call]
        except Exception as error:  # each library below raises its own errors
            reason = first_line(error)
            raise UserError(f"the encoder's configuration describes none ({reason}); save the model again") from error


class TransformerTower(nn.Module):
    """The pooled outputs over a text's tokens, special ones included; a text without tokens gives zeros.

    ``table`` (vocabulary, width) holds the token vectors, ``encoder`` all other weights. ``sentence`` says how outputs
    are pooled, and ``tokenizer``, the text of a tokenizer.json, has the special tokens.
    """

    def __init__(self, table: nn.Parameter, encoder: Any, sentence: SentenceConfig, tokenizer: str) -> None:
        super().__init__()
        self.table, self.encoder = table, encoder
        encoder.set_input_embeddings(nn.Identity())  # rows come from the table
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # not used; where the files lack its weights, they would be random
        self.sentence = sentence
        self._before, self._after = special_tokens(tokenizer)
        self._precision = torch.float32
        length = min(_positions(encoder), sentence.max_tokens or MAX_INTEGER)
        self._max_length = length - len(self._before) - len(self._after)
        sides: tuple[TowerName, TowerName] = ("query", "document")
        self._prompts = {side: Prompt(text, tokenizer) for side in sides if (text := sentence.prompt(side))}
        if self._max_length <= self.prompt_tokens:
            tokens = count_of(length, "token")
            raise UserError(f"the encoder reads {tokens}, too few for its prompt and a text; give another model")

    @property
    def width(self) -> int:
        """Numbers in a vector; some encoders have narrower token vectors."""
        return int(self.encoder.config.hidden_size)

    def max_length(self, tokens: int) -> int:
        """The longest input of the encoder, special tokens included, for texts of at most ``tokens`` tokens."""
        return min(tokens, self._max_length) + len(self._before) + len(self._after)

    @property
    def prompt_tokens(self) -> int:
        """The tokens of the longest prompt."""
        return max((prompt.tokens for prompt in self._prompts.values()), default=0)

    def text_tokens(self, side: TowerName) -> int:
        """The tokens that are read of a text of ``side``, beside special tokens and prompt."""
        return self._max_length - (self._prompts[side].tokens if side in self._prompts else 0)

    def train_in(self, precision: torch.dtype) -> None:
        """Compute matrix products in ``precision`` during training.

        Encoding uses float32 on a CPU, and on a GPU bfloat16 where it multiplies that natively.
        """
        self._precision = precision

    def measure(self) -> None:
        """No effect: nothing here depends on the scale of the table."""

    def prompted(self, tokens: TokenArray, side: TowerName) -> TokenArray:
        """``tokens`` of texts of ``side``, with the prompt of that side before each text."""
        return self._prompts[side].before(tokens, self._max_length) if side in self._prompts else tokens

    def forward(self, tokens: TokenArray) -> Tensor:
        """(texts, width) float32 on the table's device; ``tokens`` come from ``prompted``."""
        device, width = self.table.device, self.width
        if not len(tokens):
            return torch.zeros(0, width, device=device)
        tokens = tokens.cut(self._max_length)
        order = np.argsort(tokens.lengths, kind="stable")
        lengths = tokens.lengths[order] + len(self._before) + len(self._after)
        most = _TOKENS if self.table.device.type == "cpu" else _TOKENS_ON_GPU
        groups = [self._encode(tokens.take(order[start:stop])) for start, stop in length_groups(lengths, most)]
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        return torch.cat(groups)[torch.from_numpy(rank).to(device)]

    def split(self, tokens: TokenArray) -> Tensor:
        """Raises ``UserError``: the contribution of a token depends on all other tokens."""
        raise UserError(
            "a transformer's score cannot be split over the words of a text; average and recurrent ones can"
        )

    def _encode(self, tokens: TokenArray) -> Tensor:
        ids, is_token = (torch.from_numpy(array).to(self.table.device) for array in tokens.padded())
        return self.encode_padded(ids, is_token.long())

    def encode_padded(self, ids: Tensor, mask: Tensor) -> Tensor:
        """As ``forward``, from ids (texts, tokens) without special tokens, and a mask of 1 for tokens, 0 for padding.

        It computes with tensors alone, so it can be traced into a graph.
        """
        ids, mask = ids[:, : self._max_length], mask[:, : self._max_length]
        before, after = (ids.new_tensor([special]).expand(ids.shape[0], -1) for special in (self._before, self._after))
        lengths = mask.sum(1, keepdim=True)
        ends = len(self._before) + lengths + torch.arange(len(self._after), device=ids.device)
        ids = torch.cat([before, ids, torch.zeros_like(after)], 1).scatter(1, ends, after)
        mask = torch.cat([torch.ones_like(before), mask, torch.zeros_like(after)], 1)
        mask = mask.scatter(1, ends, torch.ones_like(after))
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self._is_in_bf16(ids.device)):
            outputs = self.encoder(
                inputs_embeds=F.embedding(ids, self.table), attention_mask=None if bool(mask.all()) else mask
            ).last_hidden_state
        if self.sentence.pooling == "mean":
            weights = mask.unsqueeze(2)
            pooled: Tensor = (outputs.float() * weights).sum(1) / weights.sum(1)
        else:
            places = mask.sum(1) - 1 if self.sentence.pooling == "lasttoken" else torch.zeros_like(mask[:, 0])
            pooled = outputs[torch.arange(len(places), device=places.device), places].float()
        return pooled * (lengths > 0)

    def _is_in_bf16(self, device: torch.device) -> bool:
        if self.training:
            return self._precision == torch.bfloat16
        return device.type == "cuda" and matrix_dtype("auto", device) == torch.bfloat16


def _positions(encoder: Any) -> int:
    """The tokens that an encoder reads. Where rows of its positions are for padding, as in RoBERTa, they are fewer."""
    positions = getattr(encoder.config, "max_position_embeddings", None) or 512
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(positions - module.padding_idx - 1)
    return int(positions)


def pretrained_tower(folder: Path) -> TransformerTower:
    """The tower of the encoder in ``folder`` (weights, config.json, tokenizer.json), in evaluation mode."""
    import transformers

    try:
        with silenced(transformers.logging):
            encoder: Any = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no transformer that can be read ({error}); give another") from error
    if getattr(encoder.config, "is_encoder_decoder", False):
        raise UserError(f"{folder} is an encoder with a decoder ({encoder.config.model_type}); give an encoder alone")
    table = encoder.get_input_embeddings().weight
    tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
    return TransformerTower(table, encoder, read_sentence_config(folder), tokenizer).train(False)


def encoder_of(tower: TransformerTower, tokenizer: str) -> EncoderConfig:
    """The description of the encoder of ``tower``; ``tokenizer`` is the text of its tokenizer.json."""
    config = json.loads(tower.encoder.config.to_json_string(use_diff=False))
    return EncoderConfig(config, tower.sentence, tokenizer)


@functools.lru_cache(maxsize=4)
def special_tokens(tokenizer: str) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text; ``tokenizer`` is the text of a tokenizer.json."""
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_str(tokenizer)
    loaded.no_truncation()
    loaded.no_padding()
    bare, full = (loaded.encode("a", add_special_tokens=special).ids for special in (False, True))
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    raise UserError("special tokens of this model stand within a text; give another model")


@contextmanager
def silenced(logging: Any) -> Iterator[None]:
    """Silence a library's own log and progress bars."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
