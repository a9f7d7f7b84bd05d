"""The files of a model folder: their names, config.json, and checks that end in one line. PyTorch is not needed."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from freemvmt.config import ModelConfig, TowerName
from freemvmt.errors import UserError
from freemvmt.storage.manifest import hash_files, verify_files, verify_manifest, write_manifest
from freemvmt.storage.outputs import check_output_folder
from freemvmt.storage.sentence_config import SentenceConfig

ACCUMULATORS = "accumulators.safetensors"
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
FORMAT = 3  # of config.json and the names in the weight files; 3: towers of two kinds
_READABLE = (2, 3)
WEIGHT_FILES = (WEIGHTS, "document.safetensors", "query.safetensors")  # of all kinds of models
_HASHED = (*WEIGHT_FILES, TOKENIZER, ACCUMULATORS)
_HINT = "save the model again"


def weight_files(config: ModelConfig) -> dict[str, tuple[TowerName, ...]]:
    """The weight files of a model, and the sides that each holds: towers that share no weight have a file each."""
    if len(config.sides) == 2 and not config.shared_table:
        return {"document.safetensors": ("document",), "query.safetensors": ("query",)}
    return {WEIGHTS: config.sides}


def stored_files(description: dict[str, Any], config: ModelConfig) -> dict[str, tuple[TowerName, ...]]:
    """As ``weight_files``, for the folder of ``description``; older models have all weights in one."""
    hashes = description.get("files")
    return {WEIGHTS: config.sides} if isinstance(hashes, dict) and WEIGHTS in hashes else weight_files(config)


def do_not_fit(folder: Path) -> UserError:
    """The error for weights of other names, shapes or types than their description needs."""
    return UserError(f"{folder}: the weights do not fit config.json and tokenizer.json; {_HINT}")


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
        check_types(config)
        if not isinstance(description["training"], dict):
            raise TypeError("the record of the training is no object")
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{folder}/config.json does not describe a model ({error}); save the model again") from error
    return config


def check_types(config: ModelConfig | SentenceConfig) -> None:
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


METRICS, PICTURE = "metrics.jsonl", "curves.png"
