"""The data set of a training, read and tokenised, with a teacher's vectors where the loss needs them."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from freemvmt.config import TOWER_OF, Side, TowerName, TrainConfig
from freemvmt.data.collection import Collection, to_collection
from freemvmt.data.examples import Examples, no_examples, split, to_examples, without_queries
from freemvmt.data.judgements import Judgements
from freemvmt.data.load import Dataset, load
from freemvmt.data.ragged import TokenArray
from freemvmt.data.streaming import RowSource, first_rows, open_rows
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.errors import UserError
from freemvmt.evaluation.metrics import ndcg_10
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import QUIET, Console, count_of
from freemvmt.runtime.devices import pick_device, share_freed_memory
from freemvmt.runtime.home import cache_folder
from freemvmt.search.index.exact import top_k
from freemvmt.storage import hub
from freemvmt.trainer.teacher import Teacher, TeacherVectors
from freemvmt.trainer.warm_start import initial_model

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a stream: some examples, tokenised."""

    examples: Examples
    queries: TokenArray
    passages: TokenArray


@dataclass(frozen=True, eq=False)
class Stream:
    """Rows that are read in windows of ``size``; examples whose query is in ``validation_queries`` are left out."""

    rows: RowSource
    size: int
    seed: int
    tokenizer: Tokenizer
    validation_queries: Sequence[str]
    name: str

    @property
    def count(self) -> int | None:
        """The number of windows in an epoch, or None where it is unknown."""
        return None if self.rows.count is None else -(-self.rows.count // self.size)

    @property
    def identity(self) -> str:
        """A text that differs from that of other streams."""
        return f"{self.rows.identity} {self.size}"

    def windows(self, epoch: int, first: int) -> Iterator[Window]:
        """The windows of ``epoch`` from number ``first`` on."""
        for judgements in self.rows.windows(self.size, (self.seed, epoch), first):
            yield self.window(judgements)

    def window(self, judgements: Judgements) -> Window:
        """The examples of some rows; empty when no row has an answer."""
        if not judgements.labels.any():
            return Window(no_examples(), *(self.tokenizer.encode([]) for _ in range(2)))
        examples = without_queries(to_examples(judgements, self.name), self.validation_queries)
        return Window(examples, self.tokenizer.encode(examples.queries), self.tokenizer.encode(examples.passages))


@dataclass(frozen=True, eq=False)
class FrozenSide:
    """The side that is not trained: its vectors of the validation texts, (n, dim), and what its tower alone scores.

    ``ndcg_10`` is the validation NDCG@10 of the frozen tower on both sides, which a light tower can keep a share of.
    """

    side: TowerName
    validation_vectors: Tensor
    ndcg_10: float

    def retention(self, score: float) -> float:
        """``score`` as a share of the frozen tower's own; 0 where that is 0."""
        return score / self.ndcg_10 if self.ndcg_10 else 0.0


@dataclass(frozen=True, eq=False)
class TrainingData:
    """A tokenised data set: everything that the loop reads. A sweep prepares it once for all its runs."""

    name: str
    examples: Examples
    queries: TokenArray
    passages: TokenArray
    validation: Collection
    validation_queries: TokenArray
    validation_documents: TokenArray
    teacher_vectors: TeacherVectors | None = None  # of the training texts, by the teacher or the frozen tower
    frozen: FrozenSide | None = None
    start: TwoTowersModel | None = None  # the model that training starts from, if it was made before
    stream: Stream | None = None  # if set, examples, queries and passages are those of its first rows

    def without_texts(self) -> "TrainingData":
        """The same without the training texts: the loop reads tokens."""
        return dataclasses.replace(self, examples=self.examples.without_texts())


def prepare(
    config: TrainConfig,
    console: Console = QUIET,
    tokenizer: Tokenizer | None = None,
    start: TwoTowersModel | None = None,
    data: Dataset | None = None,
) -> TrainingData:
    """Read and tokenise ``config.dataset``, by default with the tokenizer of ``config.base``.

    ``start`` is the model that training starts from, in place of ``config.base`` and ``config.init``. ``data`` is the
    data set, if it was read before.
    """
    started = time.perf_counter()
    share_freed_memory()  # the texts that one thread frees serve the tokens of another
    tokenizer = tokenizer or Tokenizer.from_file(hub.base_files(config.base).tokenizer, config.max_length)
    if config.streaming and (source := open_rows(config)) is not None:
        return _prepare_stream(config, console, tokenizer, *source)
    data = data or load(config)
    train, validation = data.train, data.validation
    if not config.aligns_texts and not train.positives.lengths.all():
        raise UserError(f"{data.name} has queries alone; learn from them by --loss align")
    _warn_without_negatives(config, train, data.name)
    teacher_vectors, frozen = None, None
    if config.compares_with_vectors:
        encode = _encoder_of(config, console, start)
        teacher_vectors = _compared_vectors(config, train, encode)
        frozen = _frozen_side(config.frozen, validation, encode) if config.frozen else None
    prepared = TrainingData(
        name=data.name,
        examples=train,
        queries=_tokens(tokenizer, train.queries),
        passages=_tokens(tokenizer, train.passages),
        validation=validation,
        validation_queries=_tokens(tokenizer, validation.queries),
        validation_documents=_tokens(tokenizer, validation.documents),
        teacher_vectors=teacher_vectors,
        frozen=frozen,
        start=start,
    )
    tokenizer.clear_cache()
    _report(console, prepared, "", started)
    return prepared


def _warn_without_negatives(config: TrainConfig, train: Examples, name: str) -> None:
    """Say so if the data have none of the negatives that the training is to use."""
    if config.negatives != "given" or config.self_mine_every or config.aligns_texts:
        return
    if not train.negatives.lengths.any():
        logger.warning('no row of %s has a "negative" for --negatives given; those of the batch serve', name)


def _tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> TokenArray:
    """The tokens of ``texts``; cached, but for nanotoken, which makes them as fast as a cache is checked."""
    if tokenizer.engine == "nanotoken":
        return tokenizer.encode(texts)
    return tokenizer.encode_cached(texts, cache_folder("tokens"))


Encode = Callable[[Sequence[str], Side], NDArray[np.float16]]


def _encoder_of(config: TrainConfig, console: Console, start: TwoTowersModel | None) -> Encode:
    """What makes the vectors that training compares with: the frozen tower for both sides, or --teacher.

    The prompt before a text is that of the text's own side.
    """
    device, frozen = pick_device(config.device), config.frozen
    if frozen is None:
        teacher = Teacher(config.teacher, config.train_length or config.max_length, device)
        return lambda texts, side: teacher.vectors(texts, side, console)
    model = (start or initial_model(config)).to(device)
    return lambda texts, side: model.cached_vectors(frozen, texts, console, TOWER_OF[side]).half().cpu().numpy()


def _compared_vectors(config: TrainConfig, examples: Examples, encode: Encode) -> TeacherVectors:
    """The vectors of all queries, and of the passages that the loss reads; zeros stand for the others."""
    queries = encode(examples.queries, "queries")
    if not config.aligns_texts:
        return TeacherVectors(queries, encode(examples.passages, "documents"))
    read = np.empty(0, np.int64) if config.learns_without_labels else np.unique(examples.positives.ids)
    vectors = encode([examples.passages[number] for number in read], "documents")
    passages = np.zeros((len(examples.passages) if len(read) else 0, vectors.shape[1]), np.float16)
    passages[read] = vectors
    return TeacherVectors(queries, passages)


def _frozen_side(frozen: TowerName, validation: Collection, encode: Encode) -> FrozenSide:
    queries, documents = (
        F.normalize(torch.from_numpy(vectors).float())
        for vectors in (encode(validation.queries, "queries"), encode(validation.documents, "documents"))
    )
    ranking = top_k(queries, documents, 10 + bool(validation.self_matches))
    return FrozenSide(frozen, documents if frozen == "document" else queries, ndcg_10(ranking, validation))


def _prepare_stream(
    config: TrainConfig,
    console: Console,
    tokenizer: Tokenizer,
    name: str,
    rows: RowSource,
    validation: Collection | None,
) -> TrainingData:
    """Read the first rows of a stream, and keep the stream for the others.

    Without a validation split some queries of the first rows are held out; their corpus is the passages of these rows.
    """
    started = time.perf_counter()
    judgements = first_rows(rows, config.shuffle_buffer)
    if validation is None:
        examples = to_examples(judgements, name)
        _, held_out = split(examples, config.validation_fraction, config.validation_queries, config.seed)
        validation = to_collection(held_out, name, examples.passages)
    stream = Stream(rows, config.shuffle_buffer, config.seed, tokenizer, validation.queries, name)
    window = stream.window(judgements)
    if not window.examples.queries:
        raise UserError(f"{name}: every query of the first rows is a validation query too; give other rows")
    prepared = TrainingData(
        name=name,
        examples=window.examples,
        queries=window.queries,
        passages=window.passages,
        validation=validation,
        validation_queries=_tokens(tokenizer, validation.queries),
        validation_documents=_tokens(tokenizer, validation.documents),
        stream=stream,
    )
    count = "rows" if rows.count is None else f"{rows.count:,} rows"
    _report(console, prepared, f"{count}, {config.shuffle_buffer:,} at a time; the first have ", started)
    return prepared


def _report(console: Console, data: TrainingData, note: str, started: float) -> None:
    validation = data.validation
    console.line(
        f"reading   {data.name}: {note}{_texts(data.queries, data.passages)}; "
        f"held out {_texts(validation.queries, validation.documents, ' over ')}",
        time.perf_counter() - started,
    )


def _texts(queries: Sized, passages: Sized, between: str = ", ") -> str:
    return count_of(len(queries), "query", "queries") + between + count_of(len(passages), "passage")
