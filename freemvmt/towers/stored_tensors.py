"""The tensors of a model folder: their names, and checks that end in one line."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from freemvmt.config import ModelConfig, TowerName
from freemvmt.errors import UserError
from freemvmt.storage.sentence_config import SentenceConfig
from freemvmt.storage.tensor_files import all_finite
from freemvmt.towers.factory import Tower, make_tower
from freemvmt.towers.model_folder import check_types, do_not_fit, stored_config
from freemvmt.towers.transformer import EncoderConfig


def tensors_of(side: TowerName, tower: Tower, head: nn.Module, config: ModelConfig) -> dict[str, Tensor]:
    """The stored tensors of a side, by their names in the weight files. A shared table counts as the document's."""
    tensors = {f"{side}.tower.{name}": tensor for name, tensor in tower.state_dict().items() if name != "table"}
    if not (config.shared_table and side == "query"):
        tensors[f"{side}.table"] = tower.table
    if isinstance(head, nn.Linear):
        tensors[f"{side}.head"] = head.weight
    return tensors


def make_head(weight: Tensor | None) -> nn.Module:
    """The linear head with ``weight`` (dim, width), or the identity."""
    if weight is None:
        return nn.Identity()
    dim, width = weight.shape
    head = nn.Linear(width, dim, bias=False)
    head.weight = nn.Parameter(weight)
    return head


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; ``UserError`` when it is damaged."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); save the model again") from error
    return {name: tensor for name, tensor in tensors.items() if ".encoder.pooler." not in name}  # in older models


def stored_encoder(description: dict[str, Any], tokenizer: str, folder: Path) -> EncoderConfig | None:
    """The encoder of a transformer tower in ``description``; ``UserError`` when it cannot be constructed."""
    if "transformer" not in stored_config(description, folder).kinds:
        return None
    config = description.get("encoder")
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise UserError(f"{folder}/config.json does not describe an encoder; save the model again")
    encoder = EncoderConfig(config, _stored_sentence(description, folder), tokenizer)
    with torch.device("meta"):
        encoder.module()
    return encoder


def _stored_sentence(description: dict[str, Any], folder: Path) -> SentenceConfig:
    """The pooling and the prompts in ``description``: the mean and none where it has none, as in older models."""
    try:
        sentence = SentenceConfig(**description.get("sentence", {}))
        check_types(sentence)
    except TypeError as error:
        raise UserError(f"{folder}/config.json describes no pooling ({error}); save the model again") from error
    return sentence


def check_tensors(
    folder: Path, config: ModelConfig, tensors: dict[str, Tensor], vocabulary_size: int, encoder: EncoderConfig | None
) -> None:
    """Raise ``UserError`` unless ``tensors`` are finite, with the names, shapes and types that ``config`` needs."""
    expected: dict[str, tuple[int, ...]] = {}
    widths = set()
    for side in config.sides:
        table = tensors.get("document.table" if config.shared_table else f"{side}.table")
        if table is None or table.ndim != 2 or len(table) < vocabulary_size or not table.shape[1]:
            raise do_not_fit(folder)
        with torch.device("meta"):
            tower = make_tower(config.kind_of(side), config, nn.Parameter(torch.empty(table.shape)), encoder)
            dim = config.dim or tower.width
            head = make_head(torch.empty(dim, tower.width) if dim != tower.width else None)
        widths.add(dim)
        expected |= {name: tuple(tensor.shape) for name, tensor in tensors_of(side, tower, head, config).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != expected or len(widths) > 1 or any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise do_not_fit(folder)
    if not all(map(all_finite, tensors.values())):
        raise UserError(f"{folder}: the weights hold numbers that are not finite; save the model again")
