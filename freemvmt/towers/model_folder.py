"""The files of a model folder: the names of its tensors, config.json, and checks that end in one line."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from freemvmt.config import ModelConfig, TowerName
from freemvmt.errors import UserError
from freemvmt.storage.manifest import hash_files, verify_files, verify_manifest, write_manifest
from freemvmt.storage.outputs import check_output_folder
from freemvmt.storage.sentence_config import SentenceConfig
from freemvmt.towers.factory import Tower, make_tower
from freemvmt.towers.transformer import EncoderConfig

ACCUMULATORS = "accumulators.safetensors"
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
FORMAT = 3  # of config.json and the names in the weight files; 3: towers of two kinds
_READABLE = (2, 3)
WEIGHT_FILES = (WEIGHTS, "document.safetensors", "query.safetensors")  # of all kinds of models
_HASHED = (*WEIGHT_FILES, TOKENIZER, ACCUMULATORS)
_HINT = "save the model again"


def tensors_of(side: TowerName, tower: Tower, head: nn.Module, config: ModelConfig) -> dict[str, Tensor]:
    """The stored tensors of a side, by their names in the weight files. A shared table counts as the document's."""
    tensors = {f"{side}.tower.{name}": tensor for name, tensor in tower.state_dict().items() if name != "table"}
    if not (config.shared_table and side == "query"):
        tensors[f"{side}.table"] = tower.table
    if isinstance(head, nn.Linear):
        tensors[f"{side}.head"] = head.weight
    return tensors


def weight_files(config: ModelConfig) -> dict[str, tuple[TowerName, ...]]:
    """The weight files of a model, and the sides that each holds: towers that share no weight have a file each."""
    if len(config.sides) == 2 and not config.shared_table:
        return {"document.safetensors": ("document",), "query.safetensors": ("query",)}
    return {WEIGHTS: config.sides}


def stored_files(description: dict[str, Any], config: ModelConfig) -> list[str]:
    """The weight files in the folder of ``description``; older models have all weights in one."""
    hashes = description.get("files")
    return [WEIGHTS] if isinstance(hashes, dict) and WEIGHTS in hashes else list(weight_files(config))


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


def check_output(folder: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Raise ``UserError`` unless a model may be written at ``folder``.

    It must not exist, or be empty, or hold a model, and none of ``inputs`` may lie there.
    """
    check_output_folder(folder, "a model of ours", _is_model, inputs)


def _is_model(folder: Path) -> bool:
    try:
        return bool(read_description(folder / "config.json"))
    except UserError:
        return False


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Write config.json, with the hashes of the other files and one of itself."""
    names = sorted(path.name for path in folder.iterdir() if path.name in _HASHED)
    write_manifest(folder / "config.json", {"two_towers": FORMAT, **description, "files": hash_files(folder, names)})


def read_description(path: Path) -> dict[str, Any]:
    """Read a model's config.json; ``UserError`` when it is not a model's, of an unknown format, or damaged."""
    try:
        text = path.read_text(encoding="utf-8")
        description = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); give the folder of a model that `train` wrote") from error
    if not isinstance(description, dict) or "two_towers" not in description:
        raise UserError(f"{path} is not a two-towers model's; give the folder of a model that `train` wrote")
    if (version := description["two_towers"]) not in _READABLE:
        todo = "train it again" if version == 1 else "update two-towers"
        raise UserError(f"{path} has format {version!r}, this version reads {FORMAT}; {todo}")
    verify_manifest(path, text, description, _HINT)
    return description


def check_files(folder: Path, description: dict[str, Any], *names: str) -> None:
    """Raise ``UserError`` when one of these files of a model is missing or damaged."""
    hashes = description.get("files")
    verify_files(folder, {name: hashes.get(name) if isinstance(hashes, dict) else None for name in names}, _HINT)


def stored_config(description: dict[str, Any], folder: Path) -> ModelConfig:
    """The configuration in ``description``; ``UserError`` when a value has the wrong type."""
    try:
        config = ModelConfig(**description["model"])
        _check_types(config)
        if not isinstance(description["training"], dict):
            raise TypeError("the record of the training is no object")
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{folder}/config.json does not describe a model ({error}); save the model again") from error
    return config


def _check_types(config: ModelConfig | SentenceConfig) -> None:
    """Raise ``TypeError`` when a value has the wrong type."""
    types = get_type_hints(type(config))
    if wrong := [name for name, type_hint in types.items() if not _has_type(getattr(config, name), type_hint)]:
        raise TypeError(f"{wrong[0]} is {getattr(config, wrong[0])!r}")


def _has_type(value: object, type_hint: Any) -> bool:
    """Whether ``value`` fits ``type_hint``: a plain type, a union, or a ``Literal``."""
    choices = get_args(type_hint)
    if get_origin(type_hint) is Literal:
        return value in choices
    if choices:
        return any(_has_type(value, choice) for choice in choices)
    return type(value) is type_hint or (type_hint is float and type(value) is int)


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
        _check_types(sentence)
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
            raise _do_not_fit(folder)
        with torch.device("meta"):
            tower = make_tower(config.kind_of(side), config, nn.Parameter(torch.empty(table.shape)), encoder)
            dim = config.dim or tower.width
            head = make_head(torch.empty(dim, tower.width) if dim != tower.width else None)
        widths.add(dim)
        expected |= {name: tuple(tensor.shape) for name, tensor in tensors_of(side, tower, head, config).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != expected or len(widths) > 1 or any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise _do_not_fit(folder)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise UserError(f"{folder}: the weights hold numbers that are not finite; save the model again")


def _do_not_fit(folder: Path) -> UserError:
    return UserError(f"{folder}: the weights do not fit config.json and tokenizer.json; save the model again")


METRICS, PICTURE = "metrics.jsonl", "curves.png"
