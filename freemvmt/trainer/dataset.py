"""A data set, read and tokenised: all that the loop eats, with a teacher's vectors where one is asked for."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from freemvmt.config import TrainConfig
from freemvmt.data.collection import Collection, to_collection
from freemvmt.data.examples import Examples, nothing, split, to_examples, without
from freemvmt.data.judgements import Judgements
from freemvmt.data.load import load
from freemvmt.data.ragged import TokenArray
from freemvmt.data.streaming import Rows, first_rows, open_rows
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.errors import UserError
from freemvmt.runtime.console import QUIET, Console
from freemvmt.runtime.devices import pick_device
from freemvmt.runtime.home import cache_folder
from freemvmt.storage import hub
from freemvmt.trainer.teacher import Teacher, TeacherVectors


@dataclass(frozen=True, eq=False)
class Window:
    """Some examples of a stream, tokenised."""

    examples: Examples
    queries: TokenArray
    passages: TokenArray


@dataclass(frozen=True, eq=False)
class Stream:
    """Rows that are read ``size`` at a time; examples whose query is one of ``held`` are left out."""

    rows: Rows
    size: int
    seed: int
    tokenizer: Tokenizer
    held: Sequence[str]
    name: str

    @property
    def count(self) -> int | None:
        """Windows of an epoch; None where that is not known."""
        return None if self.rows.count is None else -(-self.rows.count // self.size)

    @property
    def identity(self) -> str:
        """What tells it from other streams."""
        return f"{self.rows.identity} {self.size}"

    def windows(self, epoch: int, first: int) -> Iterator[Window]:
        """Window ``first`` of that epoch and those after it."""
        for judgements in self.rows.windows(self.size, (self.seed, epoch), first):
            yield self.window(judgements)

    def window(self, judgements: Judgements) -> Window:
        """The examples of some rows; none, where no row has an answer."""
        if not judgements.labels.any():
            return Window(nothing(), *(self.tokenizer.encode([]) for _ in range(2)))
        examples = without(to_examples(judgements, self.name), self.held)
        return Window(examples, self.tokenizer.encode(examples.queries), self.tokenizer.encode(examples.passages))


@dataclass(frozen=True, eq=False)
class TrainingData:
    """A data set, tokenised: all that the loop reads. A sweep makes it once."""

    name: str
    examples: Examples
    queries: TokenArray
    passages: TokenArray
    validation: Collection
    validation_queries: TokenArray
    validation_documents: TokenArray
    teacher_vectors: TeacherVectors | None = None
    stream: Stream | None = None  # then examples, queries and passages are those of its first rows


def prepare(config: TrainConfig, console: Console = QUIET, tokenizer: Tokenizer | None = None) -> TrainingData:
    """Read what ``config.dataset`` names and tokenise it (from the cache where it was tokenised before), with the
    tokenizer of ``config.base`` if none is given."""
    started = time.perf_counter()
    tokenizer = tokenizer or Tokenizer.from_file(hub.base_files(config.base).tokenizer, config.max_length)
    if config.streaming and (opened := open_rows(config)) is not None:
        return _streamed(config, console, tokenizer, *opened)
    data = load(config)
    folder = cache_folder("tokens")
    train, validation = data.train, data.validation
    teacher_vectors = None
    if config.needs_teacher:
        length = config.train_length or config.max_length
        teacher = Teacher(config.teacher, length, pick_device(config.device))
        teacher_vectors = TeacherVectors(
            teacher.vectors(train.queries, "queries", console), teacher.vectors(train.passages, "documents", console)
        )
    prepared = TrainingData(
        name=data.name,
        examples=train,
        queries=tokenizer.encode_cached(train.queries, folder),
        passages=tokenizer.encode_cached(train.passages, folder),
        validation=validation,
        validation_queries=tokenizer.encode_cached(validation.queries, folder),
        validation_documents=tokenizer.encode_cached(validation.documents, folder),
        teacher_vectors=teacher_vectors,
    )
    _say(console, prepared, "", started)
    return prepared


def _streamed(
    config: TrainConfig, console: Console, tokenizer: Tokenizer, name: str, rows: Rows, validation: Collection | None
) -> TrainingData:
    """The first rows of a stream, and the way to the others. Without a validation split some queries are held out of
    the first rows, and searched among the passages of these."""
    started = time.perf_counter()
    first = first_rows(rows, config.shuffle_buffer)
    if validation is None:
        source = to_examples(first, name)
        _, held = split(source, config.validation_fraction, config.validation_queries, config.seed)
        validation = to_collection(held, name, source.passages)
    stream = Stream(rows, config.shuffle_buffer, config.seed, tokenizer, validation.queries, name)
    window = stream.window(first)
    if not window.examples.queries:
        raise UserError(f"{name}: every query of the first rows is a validation query too; give other rows")
    folder = cache_folder("tokens")
    prepared = TrainingData(
        name=name,
        examples=window.examples,
        queries=window.queries,
        passages=window.passages,
        validation=validation,
        validation_queries=tokenizer.encode_cached(validation.queries, folder),
        validation_documents=tokenizer.encode_cached(validation.documents, folder),
        stream=stream,
    )
    count = "rows" if rows.count is None else f"{rows.count:,} rows"
    _say(console, prepared, f"{count}, {config.shuffle_buffer:,} at a time; the first have ", started)
    return prepared


def _say(console: Console, data: TrainingData, before: str, started: float) -> None:
    validation = data.validation
    console.line(
        f"reading   {data.name}: {before}{len(data.queries):,} queries, {len(data.passages):,} passages; "
        f"held out {len(validation.queries):,} queries over {len(validation.documents):,} passages",
        time.perf_counter() - started,
    )
