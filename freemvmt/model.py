"""A query tower and a document tower over one token table: text goes in, a vector of length 1 comes out.

    model = TwoTowersModel()                                  # averages of all-MiniLM-L6-v2's token vectors
    queries = model.encode_queries(["what is a tower"])       # (1, 384)
    documents = model.encode_documents(["A tall building."])  # (1, 384)
    torch.cosine_similarity(queries, documents)

On disk a model is a folder: ``model.safetensors``, ``config.json``, ``tokenizer.json`` and ``README.md``, its card.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from freemvmt.config import ModelConfig
from freemvmt.data.ragged import TokenArray
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.data.values import texts_of
from freemvmt.errors import UserError
from freemvmt.runtime.threads import in_threads
from freemvmt.storage import hub
from freemvmt.storage.files import atomic_folder
from freemvmt.storage.tensor_files import save_tensors
from freemvmt.towers.factory import Tower, make_tower
from freemvmt.towers.model_folder import (
    ACCUMULATORS,
    TOKENIZER,
    WEIGHTS,
    check_files,
    check_output,
    check_tensors,
    make_head,
    read_description,
    read_tensors,
    stored_config,
    stored_encoder,
    tensors_of,
    write_description,
)
from freemvmt.towers.pretrained import distilled_rows, principal_directions, token_table
from freemvmt.towers.static_models import length_of, read_static_model
from freemvmt.towers.transformer import EncoderConfig, encoder_of, pretrained_tower

UNTRAINED = "untrained"
_BLOCK = 2048  # texts that one core tokenises and encodes at a time: small enough for its cache


class TwoTowersModel(nn.Module):
    """Two towers and their tokenizer.

    ``record`` describes the training (data, flags, scores). ``accumulators`` are the optimizer's sums for each table,
    (rows,); only a training that starts from this model reads them. Both are stored with the model.
    """

    def __init__(self, config: ModelConfig | None = None) -> None:
        config = config or ModelConfig()
        files = hub.base_files(config.base)
        tokenizer = Tokenizer.from_file(files.tokenizer, config.max_length)
        table = token_table(files.weights, tokenizer.vocabulary_size)
        tensors = {"document.table": table}
        encoder = None
        if config.tower == "transformer":
            whole = pretrained_tower(hub.encoder_folder(config.base, "--base"))
            encoder = encoder_of(whole, tokenizer.definition)
            tensors |= tensors_of("document", whole, nn.Identity(), config)
        elif config.rows == "distilled":
            tensors["document.table"] = table = distilled_rows(hub.encoder_folder(config.base, "--base"), table)
        if config.dim is not None and config.dim != table.shape[1]:
            if config.dim > table.shape[1]:
                raise UserError(f"--dim is {config.dim} but the token table is {table.shape[1]} wide; give no more")
            tensors["document.head"] = principal_directions(table, config.dim)
        if config.separate_towers:
            tensors |= {
                name.replace("document", "query"): tensor.clone()
                for name, tensor in tensors.items()
                if not (config.shared_table and name == "document.table")
            }
        self._assemble(config, tokenizer, tensors, encoder)

    def _assemble(
        self, config: ModelConfig, tokenizer: Tokenizer, tensors: dict[str, Tensor], encoder: EncoderConfig | None
    ) -> None:
        super().__init__()
        self.config = config
        self._encoder = encoder
        self.tokenizer = tokenizer
        self.record: dict[str, Any] = {}
        self.accumulators: dict[str, Tensor] = {}
        self.document_tower = _tower(config, "document", nn.Parameter(tensors["document.table"]), tensors, encoder)
        self.document_head = make_head(tensors.get("document.head"))
        if config.separate_towers:
            table = self.document_tower.table if config.shared_table else nn.Parameter(tensors["query.table"])
            self.query_tower = _tower(config, "query", table, tensors, encoder)
            self.query_head = make_head(tensors.get("query.head"))
        else:
            self.query_tower, self.query_head = self.document_tower, self.document_head
        self.train(False)

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.document_tower.table.device

    @property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        head = self.document_head
        return head.out_features if isinstance(head, nn.Linear) else self.document_tower.table.shape[1]

    def towers(self) -> list[Tower]:
        """One tower that both sides share, or the query tower and the document tower."""
        shared = self.query_tower is self.document_tower
        return [self.document_tower] if shared else [self.query_tower, self.document_tower]

    def tables(self) -> dict[str, nn.Parameter]:
        """The token tables by their stored names: one table, or one for each tower."""
        tables = {"document.table": self.document_tower.table}
        if self.query_tower.table is not self.document_tower.table:
            tables["query.table"] = self.query_tower.table
        return tables

    def tensors(self) -> dict[str, Tensor]:
        """All weights by their stored names; a change in place changes the model."""
        tensors = tensors_of("document", self.document_tower, self.document_head, self.config)
        if self.config.separate_towers:
            tensors |= tensors_of("query", self.query_tower, self.query_head, self.config)
        return tensors

    def digest(self) -> "hashlib._Hash":
        """SHA-256 of everything that the vectors depend on, so two models differ in it; a caller may update it."""
        digest = hashlib.sha256(f"{self.config.max_length}\0{self.tokenizer.definition}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
        return digest

    def cut(self, directions: Tensor) -> "TwoTowersModel":
        """The same towers, with their vectors projected on ``directions`` (fewer, dim) and scaled to length 1."""
        tensors, width = self.tensors(), self.document_tower.table.shape[1]
        for name in ("document.head", "query.head")[: 1 + self.config.separate_towers]:
            tensors[name] = (directions @ tensors.get(name, torch.eye(width)).cpu()).to(self.device)
        model = type(self).__new__(type(self))
        weights = {name: tensor.detach() for name, tensor in tensors.items()}
        model._assemble(dataclasses.replace(self.config, dim=len(directions)), self.tokenizer, weights, self._encoder)
        model.record = self.record
        return model

    def forward(self, queries: TokenArray, documents: TokenArray) -> tuple[Tensor, Tensor]:
        """Vectors of length 1: (queries, dim) and (documents, dim)."""
        if self.query_tower is self.document_tower:  # one pass over the table, so its gradient is computed once
            vectors = F.normalize(self.document_head(self.document_tower(queries.followed_by(documents))))
            return vectors[: len(queries)], vectors[len(queries) :]
        return (
            F.normalize(self.query_head(self.query_tower(queries))),
            F.normalize(self.document_head(self.document_tower(documents))),
        )

    def encode_queries(self, queries: Iterable[str]) -> Tensor:
        """Vectors of queries: float32, (n, dim), in the order of the texts, on the model's device, of length 1.

        A text without tokens (empty, white space) has the zero vector, whose cosine with every vector is 0. Raises
        ``TypeError`` unless ``queries`` is a list, array, column or iterator of texts.
        """
        return self._encode(queries, self.query_tower, self.query_head)

    def encode_documents(self, documents: Iterable[str]) -> Tensor:
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
        """What each token adds to its document's vector, (tokens, dim); the sum over a document is its vector."""
        contributions: Tensor = self.document_head(self.document_tower.split(tokens))
        text_of_token = torch.repeat_interleave(torch.from_numpy(tokens.lengths)).to(contributions.device)
        sums = torch.zeros(len(tokens), self.dim, device=contributions.device).index_add_(
            0, text_of_token, contributions
        )
        lengths: Tensor = sums.norm(dim=1).clamp(min=1e-12)[text_of_token]
        shares: Tensor = contributions / lengths.unsqueeze(1)
        return shares

    def _encode(self, texts: Iterable[str], tower: nn.Module, head: nn.Module) -> Tensor:
        strings = texts_of(texts)
        return self._in_blocks(
            len(strings), lambda start, stop: self.tokenizer.encode(strings[start:stop]), tower, head
        )

    def _encode_tokens(self, tokens: TokenArray, tower: nn.Module, head: nn.Module) -> Tensor:
        return self._in_blocks(len(tokens), tokens.slice, tower, head)

    def _in_blocks(
        self, size: int, tokens_of: Callable[[int, int], TokenArray], tower: nn.Module, head: nn.Module
    ) -> Tensor:
        vectors = torch.empty(size, self.dim, device=self.device)

        @torch.no_grad()
        def fill(start: int) -> None:
            stop = min(start + _BLOCK, size)
            F.normalize(head(tower(tokens_of(start, stop))), out=vectors[start:stop])

        in_threads(fill, range(0, size, _BLOCK))
        return vectors

    def save(
        self, folder: str | Path, card: str | None = None, write_extra: Callable[[Path], None] | None = None
    ) -> None:
        """Write the model folder, whole or not at all.

        ``card`` is the text of its README.md. ``write_extra`` writes further files into the folder. Raises
        ``UserError`` when ``folder`` holds something that is not a model, or cannot be written.
        """
        folder = Path(folder)
        check_output(folder)
        description: dict[str, Any] = {"model": dataclasses.asdict(self.config), "training": self.record}
        description["tokenizer"] = self.tokenizer.replaced
        if self._encoder is not None:
            description["encoder"] = self._encoder.config
        with atomic_folder(folder) as part:
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors().items()}
            save_tensors(weights, part / WEIGHTS)
            if self.accumulators:
                save_tensors(self.accumulators, part / ACCUMULATORS)
            for name, text in ((TOKENIZER, self.tokenizer.written), ("README.md", card or _plain_card(self))):
                # The card may name a path that is not UTF-8: such bytes are written as escapes.
                (part / name).write_text(text, encoding="utf-8", errors="backslashreplace")
            if write_extra is not None:
                write_extra(part)
            write_description(part, description)

    @classmethod
    def load(cls, name: str | Path, *, revision: str | None = None, verify: bool = True) -> "TwoTowersModel":
        """Load a model: from the folder that ``save`` wrote, from the Hub by name (at ``revision``), or ``untrained``.

        The folder may also hold a static model of sentence-transformers or model2vec, or an encoder, of which only the
        token table is used. ``verify=False`` skips the checksums, for files that were just checked.

        Raises ``UserError`` when there is no such model, or when a file is missing, damaged or of a newer version.
        """
        if str(name) == UNTRAINED:
            return cls()
        if revision is None and (local := hub.local_folder(str(name))) and (folders := read_static_model(local)):
            return cls._from_static_model(local, folders)
        folder = hub.model_folder(str(name), revision)
        description = read_description(folder / "config.json")
        config = stored_config(description, folder)
        if verify:
            check_files(folder, description, WEIGHTS, TOKENIZER)
        tokenizer = Tokenizer.from_file(folder / TOKENIZER, config.max_length, description.get("tokenizer"))
        tensors = read_tensors(folder / WEIGHTS)
        encoder = stored_encoder(description, tokenizer.definition, folder)
        check_tensors(folder, config, tensors, tokenizer.vocabulary_size, encoder)
        model = cls.__new__(cls)
        model._assemble(config, tokenizer, tensors, encoder)
        model.record = description["training"]
        return model

    @classmethod
    def _from_static_model(cls, folder: Path, folders: dict[str, Path]) -> "TwoTowersModel":
        """A model that averages the static token vectors in ``folders``, one folder for each side."""
        document = folders["document"]
        config = ModelConfig(
            base=str(document),
            max_length=length_of(document, ModelConfig.max_length),
            separate_towers=len(folders) == 2,
        )
        tokenizer = Tokenizer.from_file(document / TOKENIZER, config.max_length)
        if any((part / TOKENIZER).read_bytes() != (document / TOKENIZER).read_bytes() for part in folders.values()):
            raise UserError(f"{folder} has a tokenizer for each side; two towers of ours read with one")
        size = tokenizer.vocabulary_size
        tensors = {f"{side}.table": token_table(part / WEIGHTS, size) for side, part in folders.items()}
        if len({table.shape for table in tensors.values()}) > 1:
            raise UserError(f"{folder} has tables of two sizes; two towers of ours give vectors of one")
        model = cls.__new__(cls)
        model._assemble(config, tokenizer, tensors, None)
        return model


def _tower(
    config: ModelConfig, side: str, table: nn.Parameter, tensors: dict[str, Tensor], encoder: EncoderConfig | None
) -> Tower:
    """The tower of a side. Its weights beside the table are those in ``tensors``, if it has any there."""
    tower = make_tower(config, table, encoder)
    prefix = f"{side}.tower."
    if own := {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}:
        tower.load_state_dict(own | {"table": tower.table})
    return tower


def _plain_card(model: TwoTowersModel) -> str:
    return f"# A two-towers model\n\nToken vectors from {model.config.base}, averaged; {model.dim} dimensions.\n"
