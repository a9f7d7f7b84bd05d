"""Every choice that a user can make, once: flags, the W&B config and the sweep parameters all come from here."""

import dataclasses
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Optional, TypeVar

from freemvmt.errors import UserError

Config = TypeVar("Config", bound="ModelConfig | DataConfig | MiningConfig")

BASE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

# The share of the dense side in a hybrid (benchmarks/hybrid_weight.py): of two light towers, of light queries over the
# documents of a transformer, and of a transformer on both sides.
HYBRID_WEIGHT, LIGHT_QUERY_WEIGHT, TRANSFORMER_WEIGHT = 0.4, 0.6, 0.8
RERANK_DEPTH, MAX_RERANKED = 50, 1000  # hits that a cross-encoder reads for a query, and the most
MAX_INTEGER = 2**31 - 1  # of any count or seed
MAX_LAYERS = 16  # of a recurrence
LOGIT_LIMIT = 3.0  # for the logarithm of a weight: no token counts more than 400 times as much as another

Loss = Literal["triplet", "infonce", "margin-mse", "align"]
TowerKind = Literal["average", "recurrent", "transformer"]
TowerName = Literal["query", "document"]
Freeze = Literal["auto", "documents", "queries", "none"]
Negatives = Literal["hardest", "semi-hard", "random", "given", "all"]
Method = Literal["dense", "bm25", "hybrid"]
Lexical = Literal["served", "anserini"]
Protocol = Literal["full", "pool"]
Side = Literal["documents", "queries"]
TOWER_OF: dict[Side, TowerName] = {"documents": "document", "queries": "query"}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What a model is, apart from its weights; stored as ``config.json`` beside them."""

    base: str = BASE_MODEL
    """Model whose token table and tokenizer the towers start from: a Hub name or a folder. A transformer tower is the
    whole model, with the pooling and the prompts that it was made for."""
    rows: Literal["auto", "table", "distilled", "encoded"] = "auto"
    """The token vectors to start from. table: the model's own. distilled: each token alone through the whole model,
    whitened. encoded: the same, as it comes, for vectors beside a transformer's. auto: table, or encoded beside one."""
    tower: TowerKind = "average"
    """How a text becomes a vector: the mean of its token vectors, one weighted by a recurrence, or the whole base."""
    query_tower: TowerKind | None = None
    """The kind of the query tower, where it differs; None: --tower."""
    document_tower: TowerKind | None = None
    """The kind of the document tower, where it differs; None: --tower."""
    cell: Literal["gru", "lstm"] = "gru"
    """Recurrent: the recurrence; both find alike, and gru trains four times as fast."""
    hidden: int = 192
    """Recurrent: numbers in a state, in each direction."""
    layers: int = 1
    """Recurrent: recurrences one on the other."""
    bidirectional: bool = True
    """Recurrent: read a text from both ends."""
    pooling: Literal["weighted", "mean", "both"] = "weighted"
    """Recurrent: weighted: a weight for each token in the average. mean: a vector of the mean of the states. both: the
    weighted average and that vector, added."""
    residual: bool = True
    """Recurrent, --pooling mean: add to the plain average, and start as it."""
    dropout: float = 0.1
    """Recurrent: share of inputs and states that are dropped in training."""
    dim: int | None = None
    """Size of the vectors, smaller than the table's by a linear head; None: the table's."""
    separate_towers: bool = False
    """Give the query tower and the document tower weights of their own."""
    shared_table: bool = False
    """Separate towers: keep one token table for both, under recurrences and heads of their own."""
    max_length: int = 256
    """Tokens of a text that count; the rest is cut."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "dim", "max_length", "hidden", "layers")
        if self.layers > MAX_LAYERS:
            raise UserError(f"--layers is {self.layers}; give {MAX_LAYERS} or less")
        if set(self.kinds) == {"transformer"} and self.rows in ("distilled", "encoded"):
            raise UserError(f"--rows {self.rows} is for towers that average; a transformer reads its own table")
        if self.is_mixed and "transformer" in self.kinds and self.shared_table:
            raise UserError("--shared-table beside a transformer: its table is no average's; leave out --shared-table")
        if not 0 <= self.dropout < 1:
            raise UserError(f"--dropout is {self.dropout:g}; give 0 or more, below 1")

    def kind_of(self, side: TowerName) -> TowerKind:
        """The kind of the tower of a side."""
        return (self.query_tower if side == "query" else self.document_tower) or self.tower

    @property
    def kinds(self) -> tuple[TowerKind, TowerKind]:
        """The kinds of the document tower and of the query tower."""
        return self.kind_of("document"), self.kind_of("query")

    @property
    def hybrid_weight(self) -> float:
        """The share of the dense side in a hybrid."""
        if self.kind_of("document") != "transformer":
            return HYBRID_WEIGHT
        return TRANSFORMER_WEIGHT if self.kind_of("query") == "transformer" else LIGHT_QUERY_WEIGHT

    @property
    def initial_rows(self) -> Literal["table", "distilled", "encoded"]:
        """The token vectors that averages and recurrences start from."""
        if self.rows != "auto":
            return self.rows
        return "encoded" if "transformer" in self.kinds else "table"

    @property
    def split_side(self) -> TowerName | None:
        """The side whose score can be split over words, the documents first; None if both are transformers."""
        sides: tuple[TowerName, TowerName] = ("document", "query")
        return next((side for side in sides if self.kind_of(side) != "transformer"), None)

    @property
    def is_mixed(self) -> bool:
        """Whether the towers are of two kinds."""
        return self.kind_of("query") != self.kind_of("document")

    @property
    def sides(self) -> tuple[TowerName, ...]:
        """The sides that have weights of their own: a document tower for both, or a tower for each."""
        return ("document", "query") if self.separate_towers or self.is_mixed else ("document",)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the pairs come from and how they are split."""

    dataset: tuple[str, ...] = ("auto",)
    """One or several of: auto, msmarco, pydocs, a folder or file of Parquet, JSONL or TSV, or a BEIR folder. A corpus
    without queries (JSONL with "text", or BEIR's) teaches by its titles, headings and first sentences. For --loss align
    also queries alone (.txt with one a line, or JSONL)."""
    msmarco_config: Literal["v1.1", "v2.1"] = "v1.1"
    """Which published configuration of MS MARCO."""
    streaming: bool = False
    """Read MS MARCO from the Hub, or Parquet files, as training goes on, so that memory does not grow with the data."""
    shuffle_buffer: int = 131_072
    """With --streaming: rows that are in memory together, and shuffled."""
    max_samples: int | None = None
    """Read at most so many rows of each data set; None: all."""
    validation_fraction: float = 0.1
    """Share of the queries held out for validation where the data has no validation split of its own."""
    validation_queries: int = 2000
    """At most so many validation queries."""
    query_field: str = "query"
    """Name of the query's column in Parquet or JSONL pairs."""
    passage_field: str = "passage"
    """Name of the passage's column in Parquet or JSONL pairs."""
    spans: int = 0
    """Draw so many random spans of each passage as further queries."""
    seed: int = 0
    """Seed of the split, the order of the data and every random choice."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "max_samples", "validation_queries")
        _at_least(self, 2, "shuffle_buffer")
        _at_least(self, 0, "seed", "spans")
        if not 0 < self.validation_fraction < 1:
            raise UserError(f"--validation-fraction is {self.validation_fraction:g}; give a number between 0 and 1")
        if not self.dataset:
            raise UserError("--dataset names nothing; give auto, msmarco, pydocs or a path")


@dataclass(frozen=True, kw_only=True)
class MiningConfig:
    """Which passages become a query's negatives."""

    by: Literal["model", "bm25", "both"] = "both"
    """Whose ranking: the model's, that of words, or both in turns."""
    first_rank: int = 10
    """What stands before this rank is passed over: too much of it answers the query, marked or not."""
    last_rank: int = 100
    """The last rank that is looked at."""
    count: int = 5
    """At most so many negatives a query, the best ranked."""
    margin: float = 0.05
    """Leave out what has more than 1 minus this of the positive's cosine: it may well be an answer."""
    teacher: str | None = None
    """Leave out what this model (a Hub name or a folder) takes for an answer too, by the same margin."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "first_rank", "last_rank", "count")
        if self.first_rank > self.last_rank:
            raise UserError(f"--first-rank is {self.first_rank}, beyond --last-rank {self.last_rank}; give less")
        if not 0 <= self.margin < 1:
            raise UserError(f"--margin is {self.margin:g}; give 0 or more, below 1")


@dataclass(frozen=True, kw_only=True)
class RerankConfig:
    """Which cross-encoder scores the best hits again, and how many of them."""

    # Of ``str | None`` tyro would import typeguard, a fifth of the time to the first answer of `search`.
    rerank: Optional[str] = None  # noqa: UP045
    """Score the best hits again by this cross-encoder, a folder or a Hub name; None: leave them as they are."""
    rerank_depth: Optional[int] = None  # noqa: UP045
    """With --rerank: so many of the best hits; None: 50. The others follow in their order."""

    def check_rerank(self) -> None:
        """Raise ``UserError`` for a wrong depth."""
        if self.rerank_depth is None:
            return
        if not 1 <= self.rerank_depth <= MAX_RERANKED:
            raise UserError(f"--rerank-depth is {self.rerank_depth}; give a number from 1 to {MAX_RERANKED}")
        if self.rerank is None:
            raise UserError("--rerank-depth is for --rerank; give --rerank MODEL")

    @property
    def depth(self) -> int:
        """The number of hits that the cross-encoder reads, if there is one."""
        return self.rerank_depth or RERANK_DEPTH


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What a training minimises."""

    loss: Loss = "triplet"
    """triplet: cosine triplet with --margin. infonce: cross entropy over the batch with --temperature. margin-mse: the
    margins between positive and negative as --teacher sees them. align: without labels, the distance from the vector
    that a frozen tower, or else --teacher, gives the same text."""
    margin: float = 0.1
    """Triplet: by how much closer, in cosine, the positive must be than a negative."""
    negatives: Negatives = "hardest"
    """What is pushed away: the hardest of the batch, the hardest that is farther than the positive, a random one, the
    row's given ones, all. infonce: always all, and with `given` the row's own too."""
    temperature: float = 0.05
    """InfoNCE and --distill: what similarities are divided by."""
    learn_temperature: bool = False
    """InfoNCE: learn the temperature, from --temperature on."""
    matryoshka: tuple[int, ...] = ()
    """Also train the vectors cut to so many first numbers: sizes that `index --dim` can cut to."""
    distill: float = 0.0
    """Weight of a second loss: the batch's similarities as --teacher sees them (KL divergence); 0: none."""
    teacher: str = BASE_MODEL
    """Model to learn similarities from: a Hub name or a folder. Its vectors are made once and kept in the cache."""
    self_mine_every: int | None = None
    """With --negatives given: every so many epochs, mine new ones with the model as it is; None: never."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "self_mine_every")
        _above_zero(self, "temperature")
        _not_negative(self, "margin", "distill")
        if self.self_mine_every and self.negatives != "given":
            raise UserError("--self-mine-every makes negatives that a row is given; add --negatives given")
        if any(not 0 < dim <= MAX_INTEGER for dim in self.matryoshka):
            raise UserError(f"--matryoshka is {min(self.matryoshka)}; give 1 or more")

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss compares with a teacher's vectors."""
        return self.distill > 0 or self.loss in ("margin-mse", "align")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How the weights move, for how long, and where."""

    epochs: int = 5
    """Passes over the training pairs."""
    batch_size: int | None = None
    """Pairs in a step; None: a fifth of the pairs, as a power of two, 32 to 8192 (recurrent 2048, transformer 128; with
    --loss align 256, 512 and 128)."""
    learning_rate: float = 3e-4
    """AdamW's rate; the token table's row-wise Adagrad runs at --table-rate-factor times it."""
    table_rate_factor: float | None = None
    """The token table's rate as a multiple of --learning-rate; None: 100, with --loss align 1000."""
    recurrence_rate_factor: float = 3.0
    """The recurrence's rate as a multiple of --learning-rate."""
    encoder_rate_factor: float = 0.1
    """The rate of a transformer, its table included, as a multiple of --learning-rate."""
    clip_norm: float = 1.0
    """Scale the gradient of all but the table down to this norm; 0: never."""
    warmup: float = 0.0
    """Share of the steps in which the rates rise to full; after them they fall to 0."""
    patience: int | None = None
    """Stop after so many epochs without a better validation NDCG@10; None: never."""
    train_length: int | None = None
    """Tokens of a text that count in training; None: --max-length."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Numbers of the matrix products; auto: bf16 where the processor multiplies it faster."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "epochs", "patience", "train_length")
        _at_least(self, 2, "batch_size")
        _above_zero(self, "learning_rate", "table_rate_factor", "recurrence_rate_factor", "encoder_rate_factor")
        _not_negative(self, "clip_norm")
        if not 0 <= self.warmup < 1:
            raise UserError(f"--warmup is {self.warmup:g}; give 0 or more, below 1")


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """Which files of a folder are documents. Globs are lines of a ``.gitignore``."""

    include: tuple[str, ...] = ()
    """Read only the files that one of these names."""
    exclude: tuple[str, ...] = ()
    """Leave out the files and folders that one of these names."""
    strict: bool = False
    """A folder: a file that cannot be read is an error. Else it is named and passed over."""


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """What the weights start from."""

    init: str | None = None
    """Start from this model (a folder or a Hub name): its tables with their accumulators, and all that fits."""
    freeze: Freeze = "auto"
    """The side whose tower stays as it starts; its vectors are made once and cached. auto: documents where their tower
    is a transformer and the query tower is not, else none."""
    idf_scale: float = 0.3
    """Scale each table row by this times ln(1 + N/(1 + df)) before training; 0 leaves the table as it is."""

    def __post_init__(self) -> None:
        _not_negative(self, "idf_scale")


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """What is recorded of a training, and where. Nothing here changes the result."""

    wandb: bool = True
    """Track the run with Weights & Biases."""
    project_name: str | None = None
    """W&B project; None: $WANDB_PROJECT, else two-towers-retrieval."""
    run_name: str | None = None
    """W&B run name; None: W&B makes one up."""
    log_every: int = 10
    """Steps between two records of the loss."""
    watch_every: int = 100
    """Steps between two histograms of gradients and weights."""
    log_model: bool = False
    """Upload the saved model to W&B as an artifact."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "log_every", "watch_every")


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where the model goes, and how often a checkpoint is written. Nothing here changes the result."""

    output: str | None = None
    """Folder for the model; None: models/ and the data set's name."""
    checkpoint_steps: int | None = None
    """Steps between two checkpoints; None: by time alone."""
    checkpoint_seconds: float = 60.0
    """At most so many seconds between two checkpoints."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "checkpoint_steps")
        _not_negative(self, "checkpoint_seconds")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    OutputConfig, TrackingConfig, StartConfig, OptimizerConfig, LossConfig, ModelConfig, DataConfig
):  # dataclasses list the fields of the last base first
    """A training run, whole: each base is a section, which is handed to what needs it."""

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        DataConfig.__post_init__(self)
        LossConfig.__post_init__(self)
        OptimizerConfig.__post_init__(self)
        StartConfig.__post_init__(self)
        TrackingConfig.__post_init__(self)
        OutputConfig.__post_init__(self)
        if self.is_mixed and "transformer" in self.kinds and self.dim is not None:
            raise UserError("--dim beside a transformer: its vectors have their own size; cut them by `index --dim`")
        if self.streaming and self.spans:
            raise UserError("--spans are drawn from all passages at once; leave out --streaming, or that")
        if self.streaming and (self.compares_with_vectors or self.self_mine_every):
            what = "--self-mine-every" if self.self_mine_every else "a teacher"
            raise UserError(f"{what} needs all texts at once; leave out --streaming, or that")
        if self.frozen and len(self.sides) == 1:
            raise UserError(
                f"--freeze {self.freeze} would freeze both sides: they share one tower; add --separate-towers"
            )
        if self.frozen and self.shared_table:
            raise UserError("--freeze and --shared-table: a table cannot stay and learn; leave one of them out")
        if self.aligns_texts and self.self_mine_every:
            raise UserError("--loss align has no negatives to mine; leave out --self-mine-every")

    @property
    def frozen(self) -> TowerName | None:
        """The side whose tower is not trained."""
        if self.freeze == "auto":
            return "document" if self.is_mixed and self.kind_of("document") == "transformer" else None
        return None if self.freeze == "none" else TOWER_OF[self.freeze]

    @property
    def compares_with_vectors(self) -> bool:
        """Whether training reads vectors that were made before: those of a teacher, or of the frozen tower."""
        return self.needs_teacher or self.frozen is not None

    @property
    def aligns_texts(self) -> bool:
        """Whether the loss is alignment alone: each text has a target of its own, so a query needs no answer."""
        return self.loss == "align" and not self.distill

    @property
    def learns_without_labels(self) -> bool:
        """Whether nothing but queries is learned from: they align to a frozen document tower."""
        return self.aligns_texts and self.frozen == "document"

    @property
    def table_rate(self) -> float:
        """The learning rate of the token tables. An aligned row has a target of its own, so it may move far at once."""
        return self.learning_rate * (self.table_rate_factor or (1000.0 if self.loss == "align" else 100.0))

    def model_config(self) -> ModelConfig:
        """The part that describes the model."""
        return part_of(self, ModelConfig)

    def train_config(self) -> "TrainConfig":
        """The run alone, without what a command adds to it."""
        return part_of(self, TrainConfig)


def part_of(config: Any, kind: type[Config]) -> Config:
    """The fields of ``kind``, one of the dataclasses here, out of a larger one that has them all."""
    return kind(**{field.name: getattr(config, field.name) for field in dataclasses.fields(kind)})


# Settings that change nothing that is trained: runs that differ in these alone have one result.
NOT_THE_RESULT = frozenset(
    field.name for section in (TrackingConfig, OutputConfig) for field in dataclasses.fields(section)
)


def replace(config: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    """``config`` with ``changes``, checked; a name that is no field is a ``UserError``."""
    known = {field.name for field in dataclasses.fields(config)}
    if unknown := sorted(set(changes) - known):
        raise UserError(f"no setting is called {unknown[0]}; the settings are {', '.join(sorted(known))}")
    return dataclasses.replace(config, **changes)


def config_of(settings: Mapping[str, Any]) -> TrainConfig:
    """The configuration of which JSON kept the settings; a name that is no field is a ``TypeError``."""
    lists = {name: tuple(value) for name, value in settings.items() if isinstance(value, list)}
    return TrainConfig(**{**settings, **lists})


def changed_flags(config: TrainConfig, names: Container[str] | None = None) -> list[str]:
    """The words of a command line that trains with ``config``: the flags, those of ``names`` or all, that differ from
    their defaults."""
    words: list[str] = []
    for field in dataclasses.fields(TrainConfig):
        value = getattr(config, field.name)
        if value == field.default or (names is not None and field.name not in names):
            continue
        if isinstance(value, bool):
            words.append(flag(field.name) if value else flag("no_" + field.name))
        else:
            words += [flag(field.name), *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def flag(name: str) -> str:
    """The command-line flag of a field."""
    return "--" + name.replace("_", "-")


def _at_least(config: object, lowest: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < lowest:
            raise UserError(f"{flag(name)} is {value}; give {lowest} or more")
        if value is not None and value > MAX_INTEGER:
            raise UserError(f"{flag(name)} is {value}; give {MAX_INTEGER} or less")


def _above_zero(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 < value <= 1e30:
            raise UserError(f"{flag(name)} is {value:g}; give a number above 0, at most 1e30")


def _not_negative(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < float("inf"):
            raise UserError(f"{flag(name)} is {value:g}; give 0 or more")
