"""A query tower and a document tower over one token table: text goes in, a vector of length 1 comes out.

    model = TwoTowersModel()                                  # averages of all-MiniLM-L6-v2's token vectors
    queries = model.encode_queries(["what is a tower"])       # (1, 384)
    documents = model.encode_documents(["A tall building."])  # (1, 384)
    torch.cosine_similarity(queries, documents)

On disk a model is a folder: ``model.safetensors``, ``config.json``, ``tokenizer.json`` and ``README.md``, its card.
"""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from freemvmt import hub
from freemvmt.config import ModelConfig
from freemvmt.devices import in_threads
from freemvmt.errors import UserError
from freemvmt.files import check_writable, whole_folder
from freemvmt.text.arrays import TokenArray
from freemvmt.text.tokens import Tokenizer
from freemvmt.towers.average import AverageTower
from freemvmt.towers.pretrained import principal_directions, token_table

UNTRAINED = "untrained"
FORMAT = 1  # of config.json and the names in model.safetensors
_BLOCK = 2048  # texts that a core tokenises and encodes at once: their vectors still lie in its cache


class TwoTowersModel(nn.Module):
    """Two towers and the tokenizer before them.

    ``record`` is what is known of the training (data, flags, scores); it is stored with the model.
    """

    def __init__(self, config: ModelConfig | None = None) -> None:
        config = config or ModelConfig()
        files = hub.base_files(config.base)
        tokenizer = Tokenizer.from_file(files.tokenizer, config.max_length)
        table = token_table(files.weights, tokenizer.vocabulary_size)
        tensors = {"document.table": table}
        if config.dim is not None and config.dim != table.shape[1]:
            if config.dim > table.shape[1]:
                raise UserError(f"--dim is {config.dim} but the token table is {table.shape[1]} wide; give no more")
            tensors["document.head"] = principal_directions(table, config.dim)
        if config.separate_towers:
            tensors |= {name.replace("document", "query"): tensor.clone() for name, tensor in tensors.items()}
        self._assemble(config, tokenizer, tensors)

    def _assemble(self, config: ModelConfig, tokenizer: Tokenizer, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.record: dict[str, Any] = {}
        self.document_tower = AverageTower(nn.Parameter(tensors["document.table"]))
        self.document_head = _head(tensors.get("document.head"))
        if config.separate_towers:
            self.query_tower = AverageTower(nn.Parameter(tensors["query.table"]))
            self.query_head = _head(tensors.get("query.head"))
        else:
            self.query_tower, self.query_head = self.document_tower, self.document_head

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.document_tower.table.device

    @property
    def dim(self) -> int:
        """Size of the vectors."""
        head = self.document_head
        return head.out_features if isinstance(head, nn.Linear) else self.document_tower.table.shape[1]

    def tables(self) -> list[nn.Parameter]:
        """The token tables: one, or one for each tower."""
        towers = (
            [self.document_tower]
            if self.query_tower is self.document_tower
            else [self.query_tower, self.document_tower]
        )
        return [tower.table for tower in towers]

    def forward(self, queries: TokenArray, documents: TokenArray) -> tuple[Tensor, Tensor]:
        """Vectors of length 1: (queries, dim) and (documents, dim)."""
        if self.query_tower is self.document_tower:  # one pass over the table, so its gradient is made once
            vectors = F.normalize(self.document_head(self.document_tower(queries.followed_by(documents))))
            return vectors[: len(queries)], vectors[len(queries) :]
        return (
            F.normalize(self.query_head(self.query_tower(queries))),
            F.normalize(self.document_head(self.document_tower(documents))),
        )

    def encode_queries(self, queries: Sequence[str]) -> Tensor:
        """Vectors of queries: float32, (n, dim), in order, on the model's device, each of length 1.

        A text without a token (empty, white space) gives the zero vector, whose cosine with everything is 0.
        """
        return self._encode(queries, self.query_tower, self.query_head)

    def encode_documents(self, documents: Sequence[str]) -> Tensor:
        """Vectors of documents; as ``encode_queries``."""
        return self._encode(documents, self.document_tower, self.document_head)

    def encode_query_tokens(self, tokens: TokenArray) -> Tensor:
        """As ``encode_queries``, from tokens of ``self.tokenizer``."""
        return self._encode_tokens(tokens, self.query_tower, self.query_head)

    def encode_document_tokens(self, tokens: TokenArray) -> Tensor:
        """As ``encode_documents``, from tokens of ``self.tokenizer``."""
        return self._encode_tokens(tokens, self.document_tower, self.document_head)

    @torch.no_grad()
    def split_documents(self, tokens: TokenArray) -> Tensor:
        """What each token adds to its document's vector, (tokens, dim): summed over a document, its vector."""
        parts: Tensor = self.document_head(self.document_tower.split(tokens))
        text_of_token = torch.repeat_interleave(torch.from_numpy(tokens.lengths)).to(parts.device)
        sums = torch.zeros(len(tokens), self.dim, device=parts.device).index_add_(0, text_of_token, parts)
        lengths: Tensor = sums.norm(dim=1).clamp(min=1e-12)[text_of_token]
        shares: Tensor = parts / lengths.unsqueeze(1)
        return shares

    def _encode(self, texts: Sequence[str], tower: nn.Module, head: nn.Module) -> Tensor:
        if isinstance(texts, str):
            raise TypeError("give a list of texts, not one text")
        return self._in_blocks(len(texts), lambda start, stop: self.tokenizer.encode(texts[start:stop]), tower, head)

    def _encode_tokens(self, tokens: TokenArray, tower: nn.Module, head: nn.Module) -> Tensor:
        return self._in_blocks(len(tokens), tokens.slice, tower, head)

    def _in_blocks(
        self, size: int, tokens: Callable[[int, int], TokenArray], tower: nn.Module, head: nn.Module
    ) -> Tensor:
        vectors = torch.empty(size, self.dim, device=self.device)

        @torch.no_grad()
        def fill(start: int) -> None:
            stop = min(start + _BLOCK, size)
            F.normalize(head(tower(tokens(start, stop))), out=vectors[start:stop])

        in_threads(fill, range(0, size, _BLOCK))
        return vectors

    def save(self, folder: str | Path, card: str | None = None) -> None:
        """Write the model folder, whole or not at all; ``card`` is the text of its README.md.

        Raises ``UserError`` when ``folder`` holds something that is not a model, or cannot be written.
        """
        folder = Path(folder)
        check_output(folder)
        tensors: dict[str, Tensor] = {"document.table": self.document_tower.table}
        if isinstance(self.document_head, nn.Linear):
            tensors["document.head"] = self.document_head.weight
        if self.config.separate_towers:
            tensors["query.table"] = self.query_tower.table
            if isinstance(self.query_head, nn.Linear):
                tensors["query.head"] = self.query_head.weight
        description = {"two_towers": FORMAT, "model": dataclasses.asdict(self.config), "training": self.record}
        with whole_folder(folder) as part:
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            _save_tensors(plain, part / "model.safetensors")
            texts = {
                "config.json": json.dumps(description, indent=2, ensure_ascii=False),
                "tokenizer.json": self.tokenizer.definition,
                "README.md": card or _plain_card(self),
            }
            for name, text in texts.items():
                # A path need not be UTF-8: what no text can hold is written as JSON escapes it.
                (part / name).write_text(text, encoding="utf-8", errors="backslashreplace")

    @classmethod
    def load(cls, name: str | Path) -> "TwoTowersModel":
        """A model from the folder that ``save`` wrote, from the Hub by its name, or ``untrained``.

        Raises ``UserError`` when there is none, or when a file of it is missing, damaged or of a newer version.
        """
        if str(name) == UNTRAINED:
            return cls()
        folder = hub.model_folder(str(name))
        description = _read_description(folder / "config.json")
        config = _stored_config(description, folder)
        tokenizer = Tokenizer.from_file(folder / "tokenizer.json", config.max_length)
        try:
            tensors = load_file(folder / "model.safetensors")
        except (SafetensorError, OSError) as error:
            raise UserError(f"{folder}/model.safetensors is damaged ({error}); save the model again") from error
        _check_tensors(folder, config, tensors, tokenizer.vocabulary_size)
        model = cls.__new__(cls)
        model._assemble(config, tokenizer, tensors)
        model.record = description["training"]
        return model


def _head(weight: Tensor | None) -> nn.Module:
    if weight is None:
        return nn.Identity()
    dim, width = weight.shape
    head = nn.Linear(width, dim, bias=False)
    head.weight = nn.Parameter(weight)
    return head


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
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
            _read_description(folder / "config.json")
        except UserError as error:
            raise UserError(
                f"{folder} holds something that is not a model of ours; name another with --output"
            ) from error


def _read_description(path: Path) -> dict[str, Any]:
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


def _stored_config(description: dict[str, Any], folder: Path) -> ModelConfig:
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
    return value in choices if get_origin(hint) is Literal else type(value) in (choices or (hint,))


def _check_tensors(folder: Path, config: ModelConfig, tensors: dict[str, Tensor], vocabulary_size: int) -> None:
    sides = ["document", "query"] if config.separate_towers else ["document"]
    table = tensors.get("document.table")
    sound = table is not None and table.ndim == 2 and len(table) >= vocabulary_size and table.shape[1] > 0
    if sound and table is not None:
        wanted = {f"{side}.table": tuple(table.shape) for side in sides}
        if config.dim is not None and config.dim != table.shape[1]:
            wanted |= {f"{side}.head": (config.dim, table.shape[1]) for side in sides}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        sound = found == wanted and all(tensor.dtype == torch.float32 for tensor in tensors.values())
    if not sound:
        raise UserError(f"{folder}: the weights do not fit config.json and tokenizer.json; save the model again")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise UserError(f"{folder}: the weights hold numbers that are not finite; save the model again")


def _plain_card(model: TwoTowersModel) -> str:
    return f"# A two-towers model\n\nToken vectors from {model.config.base}, averaged; {model.dim} dimensions.\n"
