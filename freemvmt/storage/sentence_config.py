"""How an encoder makes one vector of a text, as the files of sentence-transformers in its folder say.

    modules.json                        Transformer, Pooling, Normalize
    1_Pooling/config.json               the pooling
    config_sentence_transformers.json   the prompts
    sentence_bert_config.json           max_seq_length; else model_max_length of tokenizer_config.json

A folder without modules.json is an encoder alone: it takes the mean, and has no prompts.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from freemvmt.config import TowerName
from freemvmt.errors import UserError

Pooling = Literal["mean", "cls", "lasttoken"]
MODULES = "modules.json"
SENTENCE_FILES = (
    "config_sentence_transformers.json", "sentence_*_config.json", "tokenizer_config.json", "*/config.json",
)  # fmt: skip

# The prompts of a side, the first that is there. The order is that of encode_document in sentence-transformers.
_NAMES: dict[TowerName, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
# A marker for each pooling in the older form of 1_Pooling/config.json.
_MARKERS = {  # nosec B105
    "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean", "pooling_mode_lasttoken": "lasttoken",
}  # fmt: skip
_WORDS = {"mean": "", "cls": "CLS pooling", "lasttoken": "last-token pooling"}


@dataclass(frozen=True)
class SentenceConfig:
    """The pooling of an encoder's outputs, the text before a query and a document, and the tokens that it reads."""

    pooling: Pooling = "mean"
    query_prompt: str = ""
    document_prompt: str = ""
    max_tokens: int | None = None  # prompt and special tokens included; None: as many as it has positions

    def prompt(self, side: TowerName) -> str:
        """The text that stands before a text of ``side``."""
        return self.query_prompt if side == "query" else self.document_prompt

    @property
    def has_prompts(self) -> bool:
        """Whether a text of some side has a prompt."""
        return bool(self.query_prompt or self.document_prompt)

    @property
    def key(self) -> str:
        """A text that tells it from others; empty for the mean without prompts."""
        return "" if self == SentenceConfig() else json.dumps(dataclasses.asdict(self), sort_keys=True)

    @property
    def words(self) -> str:
        """A description for people, in brackets; empty for the mean without prompts."""
        prompts = [
            f"{json.dumps(text, ensure_ascii=False)} before a {side}" for side in _NAMES if (text := self.prompt(side))
        ]
        parts = [part for part in (_WORDS[self.pooling], *prompts) if part]
        return f" ({'; '.join(parts)})" if parts else ""


def read_sentence_config(folder: Path) -> SentenceConfig:
    """The configuration of the encoder in ``folder``; ``UserError`` when it asks for what no tower here does."""
    if not (folder / MODULES).is_file():
        return SentenceConfig()
    modules = read_json(folder / MODULES)
    classes = [module_class(module) for module in modules] if isinstance(modules, list) else []
    if classes[:2] != ["Transformer", "Pooling"] or set(classes[2:]) - {"Normalize"}:
        what = ", ".join(classes) or "no modules"
        raise UserError(
            f"{folder} is a sentence-transformers model of {what}; a transformer tower is Transformer and Pooling, "
            "so give another model"
        )
    pooling_path = subfolder(folder, str(modules[1].get("path", ""))) / "config.json"
    pooling = _object(pooling_path)
    prompts_path = folder / "config_sentence_transformers.json"
    query, document = _prompts(_object(prompts_path) if prompts_path.is_file() else {}, prompts_path)
    if pooling.get("include_prompt", True) is not True and (query or document):
        raise UserError(f"{pooling_path}: include_prompt is not supported other than true; give another model")
    return SentenceConfig(_pooling(pooling, pooling_path), query, document, _max_tokens(folder))


def _pooling(settings: dict[str, Any], path: Path) -> Pooling:
    mode = settings.get("pooling_mode")
    if mode is None:
        mode = [name for marker, name in _MARKERS.items() if settings.get(marker)] or "mean"
    if isinstance(mode, list) and len(mode) == 1:
        mode = mode[0]
    for pooling in get_args(Pooling):
        if mode == pooling:
            return pooling  # type: ignore[no-any-return]
    words = " + ".join(map(str, mode)) if isinstance(mode, list) else repr(mode)
    raise UserError(f"{path}: the pooling is {words[:100]}; give a model that pools by {', '.join(get_args(Pooling))}")


def _prompts(settings: dict[str, Any], path: Path) -> tuple[str, str]:
    """The prompts of queries and of documents: that with the side's name, else the default one, else none."""
    prompts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    if not isinstance(prompts, dict):
        raise UserError(f"{path}: prompts is no object of names and texts; fetch the model again")
    for name, text in prompts.items():
        if not isinstance(text, str | None):
            raise UserError(f"{path}: the prompt {name!r} is no text; fetch the model again")
    if default is not None and (not isinstance(default, str) or default not in prompts):
        raise UserError(f"{path}: default_prompt_name {default!r} names no prompt; fetch the model again")
    # A default that is a side's own prompt is no prompt for the other side.
    others = () if default is None or any(default in names for names in _NAMES.values()) else (default,)
    query, document = (
        next((prompts[name] or "" for name in (*names, *others) if name in prompts), "") for names in _NAMES.values()
    )
    return query, document


def _max_tokens(folder: Path) -> int | None:
    for path in [*sorted(folder.glob("sentence_*_config.json"))[:1], folder / "tokenizer_config.json"]:
        settings = _object(path) if path.is_file() else {}
        if settings.get("do_lower_case") is True and path.name.startswith("sentence_") and not _lowers(folder):
            raise UserError(f"{path}: do_lower_case is true and the tokenizer keeps case; give another model")
        length = settings.get("max_seq_length", settings.get("model_max_length"))
        if length is not None:
            if not isinstance(length, int | float) or isinstance(length, bool) or not length >= 1:
                raise UserError(f"{path}: {length!r:.50} is no number of tokens; fetch the model again")
            return int(length) if length < 2**31 else None  # a vast number says that there is no limit
    return None


def _lowers(folder: Path) -> bool:
    """Whether the tokenizer makes lower case of its texts by itself."""
    normalizer = json.dumps(_object(folder / "tokenizer.json").get("normalizer"))
    return '"lowercase": true' in normalizer or '"type": "Lowercase"' in normalizer


def read_json(path: Path) -> Any:
    """The content of a JSON file of a model; ``UserError`` when it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch the model again") from error


def _object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; fetch the model again")
    return content


def module_class(module: Any) -> str:
    """The name of the class of an entry of modules.json."""
    return str(module.get("type", "")).rpartition(".")[2] if isinstance(module, dict) else "?"


def subfolder(folder: Path, name: str) -> Path:
    """The folder of a module; ``UserError`` when it lies outside of the model's."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder} names a folder outside of it ({name!r}); fetch it again")
    return path
