"""Static models of others, read as ours: sentence-transformers' StaticEmbedding, model2vec's, an encoder's table."""

import json
from pathlib import Path
from typing import Any

from freemvmt.errors import UserError

_UNCUT = 1_000_000  # tokens, where a static model says nothing of a length
_MODEL2VEC = 512  # tokens that it keeps


def foreign_parts(folder: Path) -> dict[str, Path] | None:
    """The folder that holds table and tokenizer of each side, ``document`` alone where both are one; None for a model
    of ours, or for what is none.

    Raises ``UserError`` for a model of sentence-transformers that does more than average static rows.
    """
    if (folder / "modules.json").is_file():
        return _of_modules(folder, _read(folder / "modules.json"))
    config = _read(folder / "config.json") if (folder / "config.json").is_file() else None
    if isinstance(config, dict) and "two_towers" not in config and isinstance(config.get("model_type"), str):
        return {"document": folder}
    return None


def length_of(folder: Path, usual: int) -> int:
    """Tokens of a text that count: what its tokenizer.json cuts at; else all of a static model, ``usual`` of others."""
    definition = _read(folder / "tokenizer.json")
    cut = definition.get("truncation") if isinstance(definition, dict) else None
    length = cut.get("max_length") if isinstance(cut, dict) else None
    if isinstance(length, int) and length > 0:
        return length
    config = _read(folder / "config.json") if (folder / "config.json").is_file() else {}
    kind = config.get("model_type") if isinstance(config, dict) else None
    return {None: _UNCUT, "model2vec": _MODEL2VEC}.get(kind, usual)


def _of_modules(folder: Path, modules: Any) -> dict[str, Path]:
    kinds = [_kind(module) for module in modules] if isinstance(modules, list) else []
    if kinds and kinds[0] == "Router" and not set(kinds[1:]) - {"Normalize"}:
        router = _read(folder / "router_config.json")
        structure = router.get("structure") if isinstance(router, dict) else None
        if isinstance(structure, dict) and structure.keys() >= {"query", "document"}:
            found = {side: structure[side] for side in ("document", "query")}
            if all(_is_static([name.rpartition("_")[2] for name in names]) for names in found.values()):
                return {side: _inside(folder, names[0]) for side, names in found.items()}
    if _is_static(kinds):
        return {"document": _inside(folder, str(modules[0].get("path", "")))}
    what = ", ".join(kinds) or "no modules"
    raise UserError(
        f"{folder} is a sentence-transformers model of {what}; only a StaticEmbedding can be towers of ours"
    )


def _is_static(kinds: list[str]) -> bool:
    return bool(kinds) and kinds[0] == "StaticEmbedding" and not set(kinds[1:]) - {"Normalize"}


def _kind(module: Any) -> str:
    return str(module.get("type", "")).rpartition(".")[2] if isinstance(module, dict) else "?"


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder} names a folder outside of it ({name!r}); fetch it again")
    return path


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch the model again") from error
