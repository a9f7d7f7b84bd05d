"""The parts of a model in its folder: written, read, and checked in a way that ends in one line."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from freemvmt.data.tokenizer import Tokenizer
from freemvmt.errors import UserError
from freemvmt.storage.sentence_config import SentenceConfig
from freemvmt.storage.tensor_files import all_finite, save_tensors
from freemvmt.towers.factory import make_tower
from freemvmt.towers.model_folder import (
    TOKENIZER,
    check_files,
    check_types,
    do_not_fit,
    read_description,
    stored_config,
    stored_files,
    weight_files,
    write_description,
)
from freemvmt.towers.parts import ModelParts, make_head, tensors_of
from freemvmt.towers.transformer import EncoderConfig


def write_weights(folder: Path, parts: ModelParts) -> None:
    """Write the weights and the tokenizer."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in parts.tensors.items()}
    for file, sides in weight_files(parts.config).items():
        own = {name: tensor for name, tensor in tensors.items() if name.split(".")[0] in sides}
        save_tensors(own, folder / file)
    (folder / TOKENIZER).write_text(parts.tokenizer.written, encoding="utf-8")


def write_config(folder: Path, parts: ModelParts) -> None:
    """Write config.json: last, because it has the hashes of what lies in ``folder``."""
    description: dict[str, Any] = {"model": dataclasses.asdict(parts.config), "training": parts.record}
    description["tokenizer"] = parts.tokenizer.replaced
    if parts.encoder is not None:
        description["encoder"] = parts.encoder.config
        if parts.encoder.sentence.key:
            description["sentence"] = dataclasses.asdict(parts.encoder.sentence)
    write_description(folder, description)


def read_parts(folder: Path, *, verify: bool = True) -> ModelParts:
    """The parts that ``write_parts`` wrote; ``UserError`` when a file is missing, damaged or of a newer version.

    ``verify=False`` skips the checksums.
    """
    description = read_description(folder / "config.json")
    config = stored_config(description, folder)
    files = stored_files(description, config)
    if verify:
        check_files(folder, description, *files, TOKENIZER)
    tokenizer = Tokenizer.from_file(folder / TOKENIZER, config.max_length, description.get("tokenizer"))
    encoder = _stored_encoder(description, tokenizer.definition, folder)
    parts = ModelParts(config, tokenizer, read_tensors(folder, files), encoder, description["training"])
    _check_tensors(folder, parts)
    return parts


def read_query_parts(folder: Path, over: ModelParts) -> ModelParts:
    """The parts whose query side lies in ``folder`` and whose document side is that of ``over``.

    Raises ``UserError`` when a file is missing or damaged, or does not fit this document side.
    """
    description = read_description(folder / "config.json")
    config = stored_config(description, folder)
    files = [name for name, sides in weight_files(config).items() if "query" in sides]
    check_files(folder, description, *files)
    tensors = {name: tensor for name, tensor in over.tensors.items() if name.startswith("document.")}
    tensors |= read_tensors(folder, files)
    parts = ModelParts(config, over.tokenizer, tensors, over.encoder, description["training"])
    _check_tensors(folder, parts)
    return parts


def read_light_parts(folder: Path) -> ModelParts:
    """The light query side of a model of two kinds, as the parts of a model that has it on both sides.

    Neither the document side nor a checksum is read.
    """
    description = read_description(folder / "config.json")
    config = stored_config(description, folder)
    alone = dataclasses.replace(config, tower=config.kind_of("query"), query_tower=None, document_tower=None)
    tokenizer = Tokenizer.from_file(folder / TOKENIZER, config.max_length, description.get("tokenizer"))
    weights = read_tensors(folder, ["query.safetensors"])
    tensors = {f"document.{name.removeprefix('query.')}": weight for name, weight in weights.items()}
    parts = ModelParts(alone, tokenizer, tensors, record=description["training"])
    _check_tensors(folder, parts)
    return parts


def read_tensors(folder: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """All tensors of the safetensors files ``names`` in ``folder``; ``UserError`` when one is damaged."""
    tensors: dict[str, Tensor] = {}
    for path in (folder / name for name in names):
        try:
            tensors |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is damaged ({error}); save the model again") from error
    return {name: tensor for name, tensor in tensors.items() if ".encoder.pooler." not in name}  # in older models


def _stored_encoder(description: dict[str, Any], tokenizer: str, folder: Path) -> EncoderConfig | None:
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


def _check_tensors(folder: Path, parts: ModelParts) -> None:
    """Raise ``UserError`` unless the tensors are finite, with the names, shapes and types that the config needs."""
    config, tensors = parts.config, parts.tensors
    expected: dict[str, tuple[int, ...]] = {}
    widths = set()
    for side in config.sides:
        table = tensors.get("document.table" if config.shared_table else f"{side}.table")
        if table is None or table.ndim != 2 or len(table) < parts.tokenizer.vocabulary_size or not table.shape[1]:
            raise do_not_fit(folder)
        with torch.device("meta"):
            tower = make_tower(config.kind_of(side), config, nn.Parameter(torch.empty(table.shape)), parts.encoder)
            dim = config.dim or tower.width
            head = make_head(torch.empty(dim, tower.width) if dim != tower.width else None)
        widths.add(dim)
        expected |= {name: tuple(tensor.shape) for name, tensor in tensors_of(side, tower, head, config).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != expected or len(widths) > 1 or any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise do_not_fit(folder)
    if not all(map(all_finite, tensors.values())):
        raise UserError(f"{folder}: the weights hold numbers that are not finite; save the model again")
