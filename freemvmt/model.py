"""A query tower and a document tower over one token table: text goes in, a vector of length 1 comes out.

    model = TwoTowersModel()                                  # averages of all-MiniLM-L6-v2's token vectors
    queries = model.encode_queries(["what is a tower"])       # (1, 384)
    documents = model.encode_documents(["A tall building."])  # (1, 384)
    torch.cosine_similarity(queries, documents)

On disk a model is a folder: ``model.safetensors``, ``config.json``, ``tokenizer.json`` and ``README.md``, its card.
Towers that share no weight have a file each, ``document.safetensors`` and ``query.safetensors``.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from freemvmt.config import ModelConfig, TowerName
from freemvmt.data.ragged import TokenArray
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.data.values import texts_of
from freemvmt.errors import UserError
from freemvmt.runtime.console import QUIET, Console
from freemvmt.runtime.threads import in_threads
from freemvmt.storage import hub
from freemvmt.storage.files import atomic_folder
from freemvmt.storage.sentence_config import SentenceConfig
from freemvmt.storage.tensor_files import save_tensors
from freemvmt.towers.factory import Tower, make_tower
from freemvmt.towers.model_folder import (
    ACCUMULATORS,
    TOKENIZER,
    WEIGHTS,
    check_files,
    check_output,
    read_description,
    stored_config,
    stored_files,
    weight_files,
    write_description,
)
from freemvmt.towers.pretrained import encoded_rows, half_whitened, principal_directions, token_table
from freemvmt.towers.static_models import length_of, read_static_model
from freemvmt.towers.stored_tensors import check_tensors, make_head, read_tensors, stored_encoder, tensors_of
from freemvmt.towers.transformer import EncoderConfig, TransformerTower, encoder_of, pretrained_tower
from freemvmt.towers.unit_vectors import unit_vectors
from freemvmt.towers.vector_cache import cached_vectors

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
        encoder, tensors = None, dict[str, Tensor]()
        if "transformer" in config.kinds:
            folder = hub.encoder_folder(config.base, "--base")
            whole = pretrained_tower(folder)
            encoder = encoder_of(whole, tokenizer.definition)
        if set(config.kinds) != {"transformer"}:
            table = _rows(config, table)
        elif config.dim is not None and table.shape[1] != whole.width:
            table = encoded_rows(folder, len(table))  # a head is for outputs, which are not as wide as the table
        for side in config.sides:
            if config.kind_of(side) == "transformer":
                tensors |= tensors_of(side, whole, nn.Identity(), config)
            elif not (config.shared_table and side == "query"):
                tensors[f"{side}.table"] = table
            if config.dim is not None and config.dim != table.shape[1]:
                if config.dim > table.shape[1]:
                    raise UserError(f"--dim is {config.dim} but the token table is {table.shape[1]} wide; give no more")
                tensors[f"{side}.head"] = principal_directions(table, config.dim)
        if len(config.sides) == 2:
            tensors |= {name: tensor.clone() for name, tensor in tensors.items() if name.startswith("query.")}
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
        if len(config.sides) == 2:
            table = self.document_tower.table if config.shared_table else nn.Parameter(tensors["query.table"])
            self.query_tower = _tower(config, "query", table, tensors, encoder)
            self.query_head = make_head(tensors.get("query.head"))
        else:
            self.query_tower, self.query_head = self.document_tower, self.document_head
        widths = {_width(self.query_tower, self.query_head), self.dim}
        if len(widths) > 1:
            raise UserError(
                f"the query tower's vectors have {min(widths)} numbers, the document tower's {max(widths)}, so they "
                "cannot be compared; give --rows encoded, whose token vectors are as wide as the transformer's"
            )
        self.train(False)

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.document_tower.table.device

    @property
    def dim(self) -> int:
        """Dimensions of the vectors."""
        return _width(self.document_tower, self.document_head)

    @property
    def document_tokens(self) -> int:
        """The tokens of a document that the document tower reads; what stands after them is not in its vector."""
        tower, tokens = self.document_tower, self.config.max_length
        return min(tokens, tower.text_tokens("document")) if isinstance(tower, TransformerTower) else tokens

    def towers(self) -> dict[TowerName, Tower]:
        """The tower of each side; a tower that both sides share is the document's."""
        shared = self.query_tower is self.document_tower
        return (
            {"document": self.document_tower}
            if shared
            else {"query": self.query_tower, "document": self.document_tower}
        )

    def tables(self) -> dict[str, nn.Parameter]:
        """The token tables by their stored names: one table, or one for each tower."""
        tables = {"document.table": self.document_tower.table}
        if self.query_tower.table is not self.document_tower.table:
            tables["query.table"] = self.query_tower.table
        return tables

    def learning_tables(self) -> dict[str, nn.Parameter]:
        """The tables of ``tables`` that learn row by row: not a transformer's, and not a frozen one."""
        kinds = {"document.table": self.config.kind_of("document"), "query.table": self.config.kind_of("query")}
        return {
            name: table for name, table in self.tables().items() if table.requires_grad and kinds[name] != "transformer"
        }

    def tensors(self) -> dict[str, Tensor]:
        """All weights by their stored names; a change in place changes the model."""
        tensors = tensors_of("document", self.document_tower, self.document_head, self.config)
        if len(self.config.sides) == 2:
            tensors |= tensors_of("query", self.query_tower, self.query_head, self.config)
        return tensors

    def digest(self) -> "hashlib._Hash":
        """SHA-256 of everything that the vectors depend on, so two models differ in it; a caller may update it."""
        digest = hashlib.sha256(f"{self.config.max_length}\0{self.tokenizer.definition}{self.sentence.key}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode() + _bytes(tensor))
        return digest

    @property
    def hybrid_weight(self) -> float:
        """The share of the dense side in a hybrid, unless a search names another."""
        return self.config.hybrid_weight

    @property
    def sentence(self) -> SentenceConfig:
        """The pooling and the prompts of the transformer; the mean and none where no tower is one."""
        return self._encoder.sentence if self._encoder else SentenceConfig()

    def space(self, tower: TowerName) -> str:
        """SHA-256 of a tower and its tokenizer: vectors can be compared if they come from the same one, or from a tower
        that was trained beside it."""
        tower = tower if tower in self.config.sides else "document"
        kind = self.config.kind_of(tower)
        encoder = self._encoder.key if self._encoder and kind == "transformer" else ""
        digest = hashlib.sha256(f"{kind}\0{self.config.max_length}\0{encoder}\0{self.tokenizer.definition}".encode())
        for name, tensor in sorted(self.tensors().items()):
            if name.startswith(tower):
                digest.update(name.encode() + _bytes(tensor))
        return digest.hexdigest()

    def cached_vectors(
        self, tower: TowerName, texts: Sequence[str], console: Console = QUIET, prompt: TowerName | None = None
    ) -> Tensor:
        """Vectors of ``texts`` by a tower, (n, dim), from the cache on disk or made now; for towers that are slow.

        ``prompt`` is the side whose prompt stands before the texts, where that is not the tower's.
        """
        prompt = prompt or tower
        name = self.space(tower) + (f"-{prompt}" if self.sentence.has_prompts else "")
        vectors = cached_vectors(
            name,
            texts,
            lambda missing: self._encode(missing, tower, prompt),
            console,
            f"encoding  by the {tower} tower",
        )
        return F.normalize(torch.from_numpy(vectors).float()).to(self.device)

    def cut(self, directions: Tensor) -> "TwoTowersModel":
        """The same towers, with their vectors projected on ``directions`` (fewer, dim) and scaled to length 1."""
        tensors, width = self.tensors(), self.document_tower.width
        for side in self.config.sides:
            head = tensors.get(f"{side}.head", torch.eye(width))
            tensors[f"{side}.head"] = (directions @ head.cpu()).to(self.device)
        return self._with(dataclasses.replace(self.config, dim=len(directions)), tensors, self.record)

    def with_own_queries(self) -> "TwoTowersModel":
        """The same document tower, and a query tower with weights of its own, which start as a copy of this one's."""
        own, config = self.tensors(), self.config
        tensors = {name: tensor for name, tensor in own.items() if name.startswith("document.")}
        queries = {name: tensor for name, tensor in own.items() if name.startswith("query.")}
        if not config.is_mixed:  # what both sides share is the document's
            queries = {name.replace("document.", "query.", 1): tensor for name, tensor in tensors.items()} | queries
            config = dataclasses.replace(config, separate_towers=True, shared_table=False)
        return self._with(config, tensors | {name: tensor.clone() for name, tensor in queries.items()}, self.record)

    def _with(self, config: ModelConfig, tensors: dict[str, Tensor], record: dict[str, Any]) -> "TwoTowersModel":
        """A model with other weights, and the tokenizer and the encoder of this one."""
        model = type(self).__new__(type(self))
        weights = {name: tensor.detach() for name, tensor in tensors.items()}
        model._assemble(config, self.tokenizer, weights, self._encoder)
        model.record = record
        return model

    def forward(self, queries: TokenArray, documents: TokenArray) -> tuple[Tensor, Tensor]:
        """Vectors of length 1: (queries, dim) and (documents, dim)."""
        if self.query_tower is self.document_tower:  # one pass over the table, so its gradient is computed once
            tower, head = self._side("document")
            tokens = _prompted(tower, queries, "query").followed_by(_prompted(tower, documents, "document"))
            vectors = unit_vectors(head(tower(tokens)))
            return vectors[: len(queries)], vectors[len(queries) :]
        return self.query_vectors(queries), self.document_vectors(documents)

    def query_vectors(self, tokens: TokenArray) -> Tensor:
        """Vectors of length 1, (queries, dim), with a gradient."""
        return unit_vectors(self.query_head(self.query_tower(_prompted(self.query_tower, tokens, "query"))))

    def document_vectors(self, tokens: TokenArray) -> Tensor:
        """Vectors of length 1, (documents, dim), with a gradient."""
        return unit_vectors(self.document_head(self.document_tower(_prompted(self.document_tower, tokens, "document"))))

    def freeze(self, side: TowerName) -> None:
        """Keep the weights of a side as they are in training."""
        tower, head = self._side(side)
        for weight in (*tower.parameters(), *head.parameters()):
            weight.requires_grad = False

    def _side(self, side: TowerName) -> tuple[Tower, nn.Module]:
        """The tower and the head of a side."""
        if side == "document":
            return self.document_tower, self.document_head
        return self.query_tower, self.query_head

    def encode_queries(self, queries: Iterable[str]) -> Tensor:
        """Vectors of queries: float32, (n, dim), in the order of the texts, on the model's device, of length 1.

        A text without tokens (empty, white space) has the zero vector, whose cosine with every vector is 0. Raises
        ``TypeError`` unless ``queries`` is a list, array, column or iterator of texts.
        """
        return self._encode(queries, "query", "query")

    def encode_documents(self, documents: Iterable[str]) -> Tensor:
        """Vectors of documents; as ``encode_queries``."""
        return self._encode(documents, "document", "document")

    def encode_query_tokens(self, tokens: TokenArray) -> Tensor:
        """As ``encode_queries``, from tokens of ``self.tokenizer``."""
        return self._in_blocks(len(tokens), tokens.slice, "query", "query")

    def encode_document_tokens(self, tokens: TokenArray) -> Tensor:
        """As ``encode_documents``, from tokens of ``self.tokenizer``."""
        return self._in_blocks(len(tokens), tokens.slice, "document", "document")

    @property
    def split_side(self) -> TowerName | None:
        """The side whose score can be split over words, the documents first; None if both are transformers."""
        sides: tuple[TowerName, TowerName] = ("document", "query")
        return next((side for side in sides if self.config.kind_of(side) != "transformer"), None)

    def split_documents(self, tokens: TokenArray) -> Tensor:
        """What each token adds to its document's vector, (tokens, dim); the sum over a document is its vector."""
        return self._split(tokens, self.document_tower, self.document_head)

    def split_queries(self, tokens: TokenArray) -> Tensor:
        """As ``split_documents``, for queries."""
        return self._split(tokens, self.query_tower, self.query_head)

    @torch.no_grad()
    def _split(self, tokens: TokenArray, tower: Tower, head: nn.Module) -> Tensor:
        contributions: Tensor = head(tower.split(tokens))
        text_of_token = torch.repeat_interleave(torch.from_numpy(tokens.lengths)).to(contributions.device)
        sums = torch.zeros(len(tokens), self.dim, device=contributions.device).index_add_(
            0, text_of_token, contributions
        )
        lengths: Tensor = sums.norm(dim=1).clamp(min=1e-12)[text_of_token]
        shares: Tensor = contributions / lengths.unsqueeze(1)
        return shares

    def _encode(self, texts: Iterable[str], tower: TowerName, prompt: TowerName) -> Tensor:
        strings = texts_of(texts)
        return self._in_blocks(
            len(strings), lambda start, stop: self.tokenizer.encode(strings[start:stop]), tower, prompt
        )

    def _in_blocks(
        self, size: int, tokens_of: Callable[[int, int], TokenArray], side: TowerName, prompt: TowerName
    ) -> Tensor:
        vectors = torch.empty(size, self.dim, device=self.device)
        tower, head = self._side(side)

        @torch.no_grad()
        def fill(start: int) -> None:
            stop = min(start + _BLOCK, size)
            F.normalize(head(tower(_prompted(tower, tokens_of(start, stop), prompt))), out=vectors[start:stop])

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
        if self.sentence.key:
            description["sentence"] = dataclasses.asdict(self.sentence)
        with atomic_folder(folder) as part:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors().items()}
            for file, sides in weight_files(self.config).items():
                own = {name: tensor for name, tensor in tensors.items() if name.split(".")[0] in sides}
                save_tensors(own, part / file)
            if self.accumulators:
                save_tensors(self.accumulators, part / ACCUMULATORS)
            for name, text in ((TOKENIZER, self.tokenizer.written), ("README.md", card or _plain_card(self))):
                # The card may name a path that is not UTF-8: such bytes are written as escapes.
                (part / name).write_text(text, encoding="utf-8", errors="backslashreplace")
            if write_extra is not None:
                write_extra(part)
            write_description(part, description)

    def save_queries(self, folder: Path) -> None:
        """As ``save``, without the files of the document tower; ``with_queries`` reads them."""
        self.save(folder)
        for file in (TOKENIZER, *(name for name, sides in weight_files(self.config).items() if "query" not in sides)):
            (folder / file).unlink()

    def with_queries(self, folder: Path) -> "TwoTowersModel":
        """The model whose query side ``save_queries`` wrote to ``folder``, over the document tower of this one.

        Raises ``UserError`` when a file is missing or damaged, or does not fit this document tower.
        """
        description = read_description(folder / "config.json")
        config = stored_config(description, folder)
        files = [name for name, sides in weight_files(config).items() if "query" in sides]
        check_files(folder, description, *files)
        tensors = {name: tensor for name, tensor in self.tensors().items() if name.startswith("document.")}
        for file in files:
            tensors |= read_tensors(folder / file)
        check_tensors(folder, config, tensors, self.tokenizer.vocabulary_size, self._encoder)
        return self._with(config, tensors, description["training"])

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
        files = stored_files(description, config)
        if verify:
            check_files(folder, description, *files, TOKENIZER)
        tokenizer = Tokenizer.from_file(folder / TOKENIZER, config.max_length, description.get("tokenizer"))
        tensors: dict[str, Tensor] = {}
        for file in files:
            tensors |= read_tensors(folder / file)
        encoder = stored_encoder(description, tokenizer.definition, folder)
        check_tensors(folder, config, tensors, tokenizer.vocabulary_size, encoder)
        model = cls.__new__(cls)
        model._assemble(config, tokenizer, tensors, encoder)
        model.record = description["training"]
        return model

    @classmethod
    def load_query_tower(cls, folder: Path) -> "TwoTowersModel":
        """The light query tower of a model of two kinds, as a model that encodes both sides with it.

        Neither the document tower nor a checksum is read; ``hybrid_weight`` is that of two light towers.
        """
        description = read_description(folder / "config.json")
        config = stored_config(description, folder)
        alone = dataclasses.replace(config, tower=config.kind_of("query"), query_tower=None, document_tower=None)
        tokenizer = Tokenizer.from_file(folder / TOKENIZER, config.max_length, description.get("tokenizer"))
        tensors = {
            f"document.{name.removeprefix('query.')}": weight
            for name, weight in read_tensors(folder / "query.safetensors").items()
        }
        check_tensors(folder, alone, tensors, tokenizer.vocabulary_size, None)
        model = cls.__new__(cls)
        model._assemble(alone, tokenizer, tensors, None)
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


def _bytes(tensor: Tensor) -> bytes:
    """The numbers of ``tensor``, of any type, as they lie in memory."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _tower(
    config: ModelConfig, side: TowerName, table: nn.Parameter, tensors: dict[str, Tensor], encoder: EncoderConfig | None
) -> Tower:
    """The tower of a side. Its weights beside the table are those in ``tensors``, if it has any there."""
    tower = make_tower(config.kind_of(side), config, table, encoder)
    prefix = f"{side}.tower."
    if own := {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}:
        tower.load_state_dict(own | {"table": tower.table})
    return tower


def _prompted(tower: Tower, tokens: TokenArray, side: TowerName) -> TokenArray:
    """``tokens`` with the prompt of a side before each text, if the tower is a transformer that has one."""
    return tower.prompted(tokens, side) if isinstance(tower, TransformerTower) else tokens


def _rows(config: ModelConfig, table: Tensor) -> Tensor:
    """The token vectors that averages and recurrences start from, (vocabulary, width)."""
    rows = config.rows
    if rows == "auto":
        rows = "encoded" if "transformer" in config.kinds else "table"
    if rows == "table":
        return table
    outputs = encoded_rows(hub.encoder_folder(config.base, "--base"), len(table))
    return outputs if rows == "encoded" else half_whitened(outputs, float(table.std()))


def _width(tower: Tower, head: nn.Module) -> int:
    """Numbers in the vectors of a tower with its head."""
    return head.out_features if isinstance(head, nn.Linear) else tower.width


def _plain_card(model: TwoTowersModel) -> str:
    return f"# A two-towers model\n\nToken vectors from {model.config.base}, averaged; {model.dim} dimensions.\n"
