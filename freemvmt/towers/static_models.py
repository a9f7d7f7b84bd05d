"""Models of other libraries that can be read as ours: StaticEmbedding, model2vec, and the token table of an encoder."""

from pathlib import Path
from typing import Any

from freemvmt.config import ModelConfig
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.errors import UserError
from freemvmt.storage.sentence_config import MODULES, module_class, read_json, subfolder
from freemvmt.towers.model_folder import TOKENIZER, WEIGHTS
from freemvmt.towers.parts import ModelParts
from freemvmt.towers.pretrained import token_table

_UNLIMITED = 1_000_000  # tokens, for a static model without a maximal length
_MODEL2VEC_LENGTH = 512  # tokens that model2vec keeps of a text


def static_parts(folder: Path) -> ModelParts | None:
    """The parts of a model that averages the static token vectors in ``folder``; None when it holds none.

    Raises ``UserError`` for a model of sentence-transformers that does more than that, and for two sides that do not
    read alike.
    """
    if (folders := static_folders(folder)) is None:
        return None
    document = folders["document"]
    config = ModelConfig(
        base=str(document),
        max_length=_length_of(document, ModelConfig.max_length),
        separate_towers=len(folders) == 2,
    )
    tokenizer = Tokenizer.from_file(document / TOKENIZER, config.max_length)
    if any((part / TOKENIZER).read_bytes() != (document / TOKENIZER).read_bytes() for part in folders.values()):
        raise UserError(f"{folder} has a tokenizer for each side; two towers of ours read with one")
    size = tokenizer.vocabulary_size
    tensors = {f"{side}.table": token_table(part / WEIGHTS, size) for side, part in folders.items()}
    if len({table.shape for table in tensors.values()}) > 1:
        raise UserError(f"{folder} has tables of two sizes; two towers of ours give vectors of one")
    return ModelParts(config, tokenizer, tensors)


def static_folders(folder: Path) -> dict[str, Path] | None:
    """For each side the folder with its token table and tokenizer, or None when ``folder`` holds no such model.

    The only key is ``document`` where both sides are one.
    """
    if (folder / MODULES).is_file():
        return _sentence_transformers_folders(folder, read_json(folder / MODULES))
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    if isinstance(config, dict) and "two_towers" not in config and isinstance(config.get("model_type"), str):
        return {"document": folder}
    return None


def _length_of(folder: Path, default: int) -> int:
    """Maximal tokens of a text: as tokenizer.json says, else by the type of the model, else ``default``."""
    definition = read_json(folder / TOKENIZER)
    truncation = definition.get("truncation") if isinstance(definition, dict) else None
    length = truncation.get("max_length") if isinstance(truncation, dict) else None
    if isinstance(length, int) and length > 0:
        return length
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    model_type = config.get("model_type") if isinstance(config, dict) else None
    return {None: _UNLIMITED, "model2vec": _MODEL2VEC_LENGTH}.get(model_type, default)


def _sentence_transformers_folders(folder: Path, modules: Any) -> dict[str, Path]:
    classes = [module_class(module) for module in modules] if isinstance(modules, list) else []
    if classes and classes[0] == "Router" and not set(classes[1:]) - {"Normalize"}:
        router = read_json(folder / "router_config.json")
        structure = router.get("structure") if isinstance(router, dict) else None
        if isinstance(structure, dict) and structure.keys() >= {"query", "document"}:
            modules_of_side = {side: structure[side] for side in ("document", "query")}
            if all(_is_static([name.rpartition("_")[2] for name in names]) for names in modules_of_side.values()):
                return {side: subfolder(folder, names[0]) for side, names in modules_of_side.items()}
    if _is_static(classes):
        return {"document": subfolder(folder, str(modules[0].get("path", "")))}
    what = ", ".join(classes) or "no modules"
    raise UserError(
        f"{folder} is a sentence-transformers model of {what}; only a StaticEmbedding can be towers of ours"
    )


def _is_static(classes: list[str]) -> bool:
    return bool(classes) and classes[0] == "StaticEmbedding" and not set(classes[1:]) - {"Normalize"}
