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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from freemvmt.config import ModelConfig, TowerName
from freemvmt.data.ragged import TokenArray
from freemvmt.data.values import texts_of
from freemvmt.errors import UserError
from freemvmt.runtime.console import QUIET, Console
from freemvmt.runtime.threads import in_threads
from freemvmt.storage import hub
from freemvmt.storage.files import atomic_folder
from freemvmt.storage.sentence_config import SentenceConfig
from freemvmt.storage.tensor_files import save_tensors
from freemvmt.towers.factory import Tower
from freemvmt.towers.initial import initial_parts
from freemvmt.towers.model_folder import ACCUMULATORS, TOKENIZER, check_output, weight_files
from freemvmt.towers.parts import ModelParts, tensors_of
from freemvmt.towers.static_models import static_parts
from freemvmt.towers.stored_parts import read_light_parts, read_parts, read_query_parts, write_config, write_weights
from freemvmt.towers.transformer import TransformerTower
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
        self._assemble(initial_parts(config or ModelConfig()))

    @classmethod
    def of(cls, parts: ModelParts) -> "TwoTowersModel":
        """The model that ``parts`` make up; ``UserError`` unless its towers' vectors can be compared."""
        model = cls.__new__(cls)
        model._assemble(parts)
        return model

    def _assemble(self, parts: ModelParts) -> None:
        super().__init__()
        config = self.config = parts.config
        self.tokenizer = parts.tokenizer
        self.record = parts.record
        self.accumulators: dict[str, Tensor] = {}
        self._encoder = parts.encoder
        self.document_tower = parts.tower("document", nn.Parameter(parts.tensors["document.table"]))
        self.document_head = parts.head("document")
        if len(config.sides) == 2:
            table = self.document_tower.table if config.shared_table else nn.Parameter(parts.tensors["query.table"])
            self.query_tower, self.query_head = parts.tower("query", table), parts.head("query")
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
    def parts(self) -> ModelParts:
        """What the model is made of, without gradients; a change of a tensor in place changes the model."""
        tensors = {name: tensor.detach() for name, tensor in self.tensors().items()}
        return ModelParts(self.config, self.tokenizer, tensors, self._encoder, self.record)

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

    def digest(self, use: str = "") -> str:
        """SHA-256 of everything that the vectors depend on, and of the ``use`` that is made of them."""
        settings = f"{self.config.max_length}\0{self.tokenizer.definition}{self.sentence.key}"
        return _sha256_of(settings, self.state_dict(), use)

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
        settings = f"{kind}\0{self.config.max_length}\0{encoder}\0{self.tokenizer.definition}"
        return _sha256_of(settings, {name: own for name, own in self.tensors().items() if name.startswith(tower)})

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
        parts, width = self.parts, self.document_tower.width
        for side in self.config.sides:
            head = parts.tensors.get(f"{side}.head", torch.eye(width))
            parts.tensors[f"{side}.head"] = (directions @ head.cpu()).to(self.device)
        return self.of(dataclasses.replace(parts, config=dataclasses.replace(self.config, dim=len(directions))))

    def with_own_queries(self) -> "TwoTowersModel":
        """The same document tower, and a query tower with weights of its own, which start as a copy of this one's."""
        parts, config = self.parts, self.config
        tensors = {name: tensor for name, tensor in parts.tensors.items() if name.startswith("document.")}
        queries = {name: tensor for name, tensor in parts.tensors.items() if name.startswith("query.")}
        if not config.is_mixed:  # what both sides share is the document's
            queries = {name.replace("document.", "query.", 1): tensor for name, tensor in tensors.items()} | queries
            config = dataclasses.replace(config, separate_towers=True, shared_table=False)
        tensors |= {name: tensor.clone() for name, tensor in queries.items()}
        return self.of(dataclasses.replace(parts, config=config, tensors=tensors))

    def forward(self, queries: TokenArray, documents: TokenArray) -> tuple[Tensor, Tensor]:
        """Vectors of length 1: (queries, dim) and (documents, dim)."""
        if self.query_tower is self.document_tower:  # one pass over the table, so its gradient is computed once
            tower, head = self._side("document")
            tokens = _prompted(tower, queries, "query").followed_by(_prompted(tower, documents, "document"))
            vectors = unit_vectors(head(tower(tokens)))
            # The gradient of two slices would be two arrays of zeros and a sum.
            query_vectors, document_vectors = vectors.split_with_sizes([len(queries), len(documents)])
            return query_vectors, document_vectors
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
        return self.config.split_side

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
        vectors = torch.empty(size, self.dim, dtype=torch.float32, device=self.device)
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
        with atomic_folder(folder) as part, ThreadPoolExecutor(1) as pool:
            weights = pool.submit(write_weights, part, self.parts)  # the disk works while ``write_extra`` draws
            if self.accumulators:
                save_tensors(self.accumulators, part / ACCUMULATORS)
            # The card may name a path that is not UTF-8: such bytes are written as escapes.
            (part / "README.md").write_text(card or _plain_card(self), encoding="utf-8", errors="backslashreplace")
            if write_extra is not None:
                write_extra(part)
            weights.result()
            write_config(part, self.parts)

    def save_queries(self, folder: Path) -> None:
        """As ``save``, without the files of the document tower; ``with_queries`` reads them."""
        self.save(folder)
        for file in (TOKENIZER, *(name for name, sides in weight_files(self.config).items() if "query" not in sides)):
            (folder / file).unlink()

    def with_queries(self, folder: Path) -> "TwoTowersModel":
        """The model whose query side ``save_queries`` wrote to ``folder``, over the document tower of this one.

        Raises ``UserError`` when a file is missing or damaged, or does not fit this document tower.
        """
        return self.of(read_query_parts(folder, self.parts))

    @classmethod
    def load(cls, name: str | Path, *, revision: str | None = None, verify: bool = True) -> "TwoTowersModel":
        """Load a model: from the folder that ``save`` wrote, from the Hub by name (at ``revision``), or ``untrained``.

        The folder may also hold a static model of sentence-transformers or model2vec, or an encoder, of which only the
        token table is used. ``verify=False`` skips the checksums, for files that were just checked.

        Raises ``UserError`` when there is no such model, or when a file is missing, damaged or of a newer version.
        """
        if str(name) == UNTRAINED:
            return cls()
        if revision is None and (local := hub.local_folder(str(name))) and (parts := static_parts(local)):
            return cls.of(parts)
        return cls.of(read_parts(hub.model_folder(str(name), revision), verify=verify))

    @classmethod
    def load_query_tower(cls, folder: Path) -> "TwoTowersModel":
        """The light query tower of a model of two kinds, as a model that encodes both sides with it.

        Neither the document tower nor a checksum is read; ``hybrid_weight`` is that of two light towers.
        """
        return cls.of(read_light_parts(folder))


def _sha256_of(settings: str, tensors: dict[str, Tensor], use: str = "") -> str:
    """SHA-256 of settings, of tensors by their names, and of a use, in hexadecimal."""
    digest = hashlib.sha256(settings.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    digest.update(use.encode())
    return digest.hexdigest()


def _prompted(tower: Tower, tokens: TokenArray, side: TowerName) -> TokenArray:
    """``tokens`` with the prompt of a side before each text, if the tower is a transformer that has one."""
    return tower.prompted(tokens, side) if isinstance(tower, TransformerTower) else tokens


def _width(tower: Tower, head: nn.Module) -> int:
    """Numbers in the vectors of a tower with its head."""
    return head.out_features if isinstance(head, nn.Linear) else tower.width


def _plain_card(model: TwoTowersModel) -> str:
    return f"# A two-towers model\n\nToken vectors from {model.config.base}, averaged; {model.dim} dimensions.\n"
