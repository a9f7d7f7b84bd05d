"""What stands in a model folder, and whether it is sound: names of tensors, config.json, refusals in one line."""

import json
import os
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from freemvmt.config import ModelConfig
from freemvmt.errors import UserError
from freemvmt.files import check_writable
from freemvmt.towers.choice import Tower, make_tower

FORMAT = 1  # of config.json and the names in model.safetensors


def tensors_of(side: str, tower: Tower, head: nn.Module, config: ModelConfig) -> dict[str, Tensor]:
    """What is stored of a side, by its names in model.safetensors; a table that both share is the document's."""
    tensors = {f"{side}.tower.{name}": tensor for name, tensor in tower.state_dict().items() if name != "table"}
    if not (config.shared_table and side == "query"):
        tensors[f"{side}.table"] = tower.table
    if isinstance(head, nn.Linear):
        tensors[f"{side}.head"] = head.weight
    return tensors


def make_head(weight: Tensor | None) -> nn.Module:
    """The linear head with ``weight`` (dim, width), or what changes nothing."""
    if weight is None:
        return nn.Identity()
    dim, width = weight.shape
    head = nn.Linear(width, dim, bias=False)
    head.weight = nn.Parameter(weight)
    return head


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """``save_file``, but the system's refusal stays an ``OSError``; theirs holds its number only in its text."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        if not (number := re.search(r"os error (\d+)", str(error))):
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def check_output(folder: Path) -> None:
    """Raise ``UserError`` unless a model may be written at ``folder``: nothing there, nothing in it, or a model."""
    check_writable(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; name another folder with --output")
    if any(folder.iterdir()):
        try:
            read_description(folder / "config.json")
        except UserError as error:
            raise UserError(
                f"{folder} holds something that is not a model of ours; name another with --output"
            ) from error


def read_description(path: Path) -> dict[str, Any]:
    """What a model's config.json says; ``UserError`` unless it is one, and of this version's format."""
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); give the folder of a model that `train` wrote") from error
    if not isinstance(description, dict) or "two_towers" not in description:
        raise UserError(f"{path} is not a two-towers model's; give the folder of a model that `train` wrote")
    if description["two_towers"] != FORMAT:
        raise UserError(
            f"{path} has format {description['two_towers']!r}, this version reads {FORMAT}; update two-towers"
        )
    return description


def stored_config(description: dict[str, Any], folder: Path) -> ModelConfig:
    """The configuration in ``description``; ``UserError`` where a value is not of its kind."""
    try:
        config = ModelConfig(**description["model"])
        hints = get_type_hints(ModelConfig)
        if wrong := [name for name, hint in hints.items() if not _is_of(getattr(config, name), hint)]:
            raise TypeError(f"{wrong[0]} is {getattr(config, wrong[0])!r}")
        if not isinstance(description["training"], dict):
            raise TypeError("the record of the training is no object")
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{folder}/config.json does not describe a model ({error}); save the model again") from error
    return config


def _is_of(value: object, hint: Any) -> bool:
    """Whether ``value`` is of a plain type, of one of a union's, or one of a ``Literal``'s choices."""
    choices = get_args(hint)
    if get_origin(hint) is Literal:
        return value in choices
    return type(value) in (choices or (hint,)) or (hint is float and type(value) is int)


def check_tensors(folder: Path, config: ModelConfig, tensors: dict[str, Tensor], vocabulary_size: int) -> None:
    """Raise ``UserError`` unless ``tensors`` are what ``config`` asks for, by name, shape and type, and finite."""
    sides = ["document", "query"] if config.separate_towers else ["document"]
    table = tensors.get("document.table")
    sound = table is not None and table.ndim == 2 and len(table) >= vocabulary_size and table.shape[1] > 0
    if sound and table is not None:
        with torch.device("meta"):
            tower = make_tower(config, nn.Parameter(torch.empty(table.shape)))
            width = table.shape[1]
            dim = config.dim or width
            head = make_head(torch.empty(dim, width) if dim != width else None)
        wanted = {name: tuple(t.shape) for side in sides for name, t in tensors_of(side, tower, head, config).items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        sound = found == wanted and all(tensor.dtype == torch.float32 for tensor in tensors.values())
    if not sound:
        raise UserError(f"{folder}: the weights do not fit config.json and tokenizer.json; save the model again")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise UserError(f"{folder}: the weights hold numbers that are not finite; save the model again")
