"""What stands in a model folder, and whether it is sound: names of tensors, config.json, refusals in one line."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from freemvmt.config import ModelConfig
from freemvmt.errors import UserError
from freemvmt.storage.manifest import check_sealed, check_seals, seal, write_sealed
from freemvmt.storage.outputs import check_folder
from freemvmt.towers.factory import Tower, make_tower
from freemvmt.towers.transformer import Encoder, special_tokens

ACCUMULATORS = "accumulators.safetensors"
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
FORMAT = 2  # of config.json and the names in model.safetensors
UNSEALED = 1  # the format before, whose files have no sums; it is still read
_AGAIN = "save the model again"


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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All that stands in a file of safetensors; ``UserError`` where it is damaged."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); save the model again") from error
    return tensors


def check_output(folder: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Raise ``UserError`` unless a model may be written at ``folder``: nothing there, nothing in it, or a model; and
    what is read is not there."""
    check_folder(folder, "a model of ours", _is_model, inputs)


def _is_model(folder: Path) -> bool:
    try:
        return bool(read_description(folder / "config.json"))
    except UserError:
        return False


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Write config.json, with the sums of the files that stand beside it and one of itself."""
    names = [name for name in (WEIGHTS, TOKENIZER, ACCUMULATORS) if (folder / name).exists()]
    write_sealed(folder / "config.json", {"two_towers": FORMAT, **description, "files": seal(folder, names)})


def read_description(path: Path) -> dict[str, Any]:
    """What a model's config.json says; ``UserError`` unless it is one, of a known format, and as it was written."""
    try:
        text = path.read_text(encoding="utf-8")
        description = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); give the folder of a model that `train` wrote") from error
    if not isinstance(description, dict) or "two_towers" not in description:
        raise UserError(f"{path} is not a two-towers model's; give the folder of a model that `train` wrote")
    if description["two_towers"] == UNSEALED and "files" not in description:
        return description
    if description["two_towers"] != FORMAT:
        raise UserError(
            f"{path} has format {description['two_towers']!r}, this version reads {FORMAT}; update two-towers"
        )
    check_sealed(path, text, description, _AGAIN)
    return description


def check_files(folder: Path, description: dict[str, Any], *names: str) -> None:
    """Raise ``UserError`` unless these files of a model are as they were written."""
    if description["two_towers"] == UNSEALED:
        return
    sums = description.get("files")
    check_seals(folder, {name: sums.get(name) if isinstance(sums, dict) else None for name in names}, _AGAIN)


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


def stored_encoder(description: dict[str, Any], tokenizer: str, folder: Path) -> Encoder | None:
    """The encoder of a transformer tower in ``description``; ``UserError`` where there is none that can be made."""
    if description["model"]["tower"] != "transformer":
        return None
    config = description.get("encoder")
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise UserError(f"{folder}/config.json does not describe an encoder; save the model again")
    encoder = Encoder(config, *special_tokens(tokenizer))
    with torch.device("meta"):
        encoder.module()
    return encoder


def check_tensors(
    folder: Path, config: ModelConfig, tensors: dict[str, Tensor], vocabulary_size: int, encoder: Encoder | None
) -> None:
    """Raise ``UserError`` unless ``tensors`` are what ``config`` asks for, by name, shape and type, and finite."""
    sides = ["document", "query"] if config.separate_towers else ["document"]
    table = tensors.get("document.table")
    sound = table is not None and table.ndim == 2 and len(table) >= vocabulary_size and table.shape[1] > 0
    if sound and table is not None:
        with torch.device("meta"):
            tower = make_tower(config, nn.Parameter(torch.empty(table.shape)), encoder)
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


METRICS, PICTURE = "metrics.jsonl", "curves.png"
