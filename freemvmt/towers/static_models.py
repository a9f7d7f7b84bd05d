"""Models of other libraries that can be read as ours: StaticEmbedding, model2vec, and the token table of an encoder."""

from pathlib import Path
from typing import Any

from freemvmt.errors import UserError
from freemvmt.storage.sentence_config import MODULES, module_class, read_json, subfolder

_UNLIMITED = 1_000_000  # tokens, for a static model without a maximal length
_MODEL2VEC_LENGTH = 512  # tokens that model2vec keeps of a text


def read_static_model(folder: Path) -> dict[str, Path] | None:
    """For each side the folder with its token table and tokenizer, or None when ``folder`` holds no such model.

    The only key is ``document`` where both sides are one. Raises ``UserError`` for a model of sentence-transformers
    that does more than average static token vectors.
    """
    if (folder / MODULES).is_file():
        return _sentence_transformers_folders(folder, read_json(folder / MODULES))
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    if isinstance(config, dict) and "two_towers" not in config and isinstance(config.get("model_type"), str):
        return {"document": folder}
    return None


def length_of(folder: Path, default: int) -> int:
    """Maximal tokens of a text: as tokenizer.json says, else by the type of the model, else ``default``."""
    definition = read_json(folder / "tokenizer.json")
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
