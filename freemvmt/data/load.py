"""Load data by its name on the command line: the Hub, a file, a folder, or the docstrings of the installed packages.

``load`` returns the data of a training run, ``load_collection`` that of an evaluation. A folder with a
``corpus.jsonl`` is in BEIR's format, one with a ``collection.tsv`` in MS MARCO's. In any other folder, a file's name
begins with its split.
"""

import itertools
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from freemvmt.config import DataConfig
from freemvmt.data.collection import Collection, merge, to_collection
from freemvmt.data.corpus import read_corpus
from freemvmt.data.documents import Document
from freemvmt.data.examples import Examples, select, split, to_examples, with_queries_alone, without_queries
from freemvmt.data.judgements import Judgements, from_pairs
from freemvmt.data.lines import conversion_hint, data_files, json_lines, unknown_ending
from freemvmt.data.readers import pydocs
from freemvmt.data.readers.beir import beir
from freemvmt.data.readers.jsonl import read_jsonl
from freemvmt.data.readers.msmarco import ms_marco, ms_marco_tsv, qrels_file_of
from freemvmt.data.readers.parquet import from_table, read_parquet
from freemvmt.data.readers.tsv import read_tsv
from freemvmt.data.records import RECORD_FIELDS
from freemvmt.data.structure import structure_of
from freemvmt.data.unlabelled import draw_spans, read_queries_alone
from freemvmt.data.values import passage_id
from freemvmt.errors import UserError
from freemvmt.runtime.console import count_of
from freemvmt.storage import hub
from freemvmt.storage.files import check_regular, name_of

logger = logging.getLogger(__name__)

_READERS = {".parquet": read_parquet, ".jsonl": read_jsonl, ".tsv": read_tsv}
_NAMED = ("auto", "msmarco", "pydocs")  # data sets that are no files
VALIDATION_NAMES = ("validation", "valid", "val", "dev")


class NothingToLearnError(UserError):
    """A corpus has no structure that could teach."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training examples, and the validation collection of each epoch. No query is in both."""

    name: str
    train: Examples
    validation: Collection


def load(config: DataConfig, *, as_documents: bool = False) -> Dataset:
    """Read and join the data sets of ``config.dataset``.

    ``auto`` is MS MARCO if the Hub or the local cache has it, else ``pydocs``, with a warning. ``as_documents``: a file
    or a folder without training queries is the corpus that ``index`` makes of it, also where its fields or some of its
    files could be pairs.
    """
    names: list[str] = []
    judgements_list: list[Judgements] = []
    collections: list[Collection] = []
    unsplit: list[Judgements] = []  # the data sets without a validation split of their own
    queries_alone: list[str] = []
    for dataset_name in config.dataset:
        if not as_documents and (queries := _queries_alone(dataset_name, config)) is not None:
            names.append(name_of(dataset_name))
            queries_alone += queries
            continue
        if (documents := _documents_alone(dataset_name, config, as_documents)) is not None:
            names.append(dataset_name)
            pairs, collection = _from_documents(documents, dataset_name, config)
            judgements_list.append(pairs)
            if collection is None:
                unsplit.append(pairs)
            else:
                collections.append(collection)
            continue
        name, judgements, collection = _read_dataset(dataset_name, config)
        names.append(name)
        judgements_list.append(judgements)
        if collection is None:
            unsplit.append(judgements)
        else:
            collections.append(collection)
        if config.spans:
            judgements_list.append(_spans_of(judgements.passages.dictionary.to_pylist(), config))
    joined_name = " + ".join(names)
    if not judgements_list:
        raise UserError(
            f"{joined_name}: queries alone leave nothing to validate on; add pairs, or a corpus with --spans"
        )
    train = to_examples(Judgements.join(judgements_list), joined_name)
    if unsplit:
        # Hold some of their queries out; their corpus is all passages of these data sets.
        source = to_examples(Judgements.join(unsplit), joined_name) if len(unsplit) < len(judgements_list) else train
        _, held_out = split(source, config.validation_fraction, config.validation_queries, config.seed)
        collections.append(to_collection(held_out, joined_name, source.passages))
        share = f"{len(held_out.queries):,} of {count_of(len(source.queries), 'query', 'queries')}"
        logger.info("held out for validation: %s, by seed %d", share, config.seed)
    validation = merge(collections)
    train = without_queries(train, validation.queries)
    if not train.queries:
        raise UserError(f"{joined_name}: every training query is a validation query too; give more rows")
    return Dataset(joined_name, with_queries_alone(train, queries_alone, validation.queries), validation)


def load_collection(name: str, split_name: str, config: DataConfig) -> Collection:
    """The collection ``name``: a judged folder, or the split ``split_name`` of any data set that ``load`` reads.

    ``name`` may be a judged folder together with its split: ``msmarco-passage/dev``.
    """
    if name == "pydocs":
        return _load_pydocs(config)[1]
    if name in ("auto", "msmarco"):
        rows = ms_marco(config.msmarco_config, split_name, streaming=config.streaming, rows=config.max_samples)
        examples = to_examples(_from_hub(rows, name), f"{name} {split_name}", as_judged=True)
        return to_collection(examples, f"{name} {split_name}")
    if _is_split(Path(name)):
        return _read_judged(Path(name).parent, Path(name).name)
    path = existing_path(name)
    if is_judged(path):
        return _read_judged(path, split_name)
    files = [path] if path.is_file() else _split_files(path, (split_name,))
    if not files:
        hint = conversion_hint(path, split_name) or _other_data(path)
        raise UserError(f"{path} has no files of a split {split_name!r}; {hint}")
    examples = to_examples(_read_files(files, config, config.max_samples), name, as_judged=True)
    return to_collection(examples, f"{name_of(path)} {split_name}" if path.is_dir() else path.name)


def _read_dataset(name: str, config: DataConfig) -> tuple[str, Judgements, Collection | None]:
    """(the data set's name, its training rows, its own validation collection or None)."""
    rows = config.max_samples
    if name == "auto":
        try:
            return _read_dataset("msmarco", config)
        except hub.Unavailable:
            fallback = "training on pydocs, the docstrings installed here"
            logger.warning("MS MARCO is neither in the local cache nor to be had from the Hub; %s", fallback)
            return _read_dataset("pydocs", config)
    if name == "pydocs":
        return name, *_load_pydocs(config)
    if name == "msmarco":
        version, streaming = config.msmarco_config, config.streaming
        train = _from_hub(ms_marco(version, "train", streaming=streaming, rows=rows), "msmarco train")
        return name, train, ms_marco_validation(config)
    path = existing_path(name)
    if path.is_file():
        return name, _read_files([path], config, rows), None
    validation = validation_of(path, config)
    if is_judged(path):
        return name, _judgements_of(_read_judged(path, "train"), rows), validation
    return name, _read_files(training_files(path), config, rows), validation


def _queries_alone(name: str, config: DataConfig) -> list[str] | None:
    """The queries of a file that holds nothing else; None for other data sets."""
    if name in _NAMED or not existing_path(name).is_file():
        return None
    return read_queries_alone(Path(name), config.max_samples, config.query_field)


def _documents_alone(name: str, config: DataConfig, as_documents: bool) -> list[Document] | None:
    """The documents of a corpus without training queries; None when ``name`` is no corpus, or has some."""
    if name in _NAMED:
        return None
    path = existing_path(name)
    if is_judged(path):
        if _has_qrels(path, "train"):
            return None
    elif as_documents:
        pass  # whatever its files and fields are
    elif path.is_dir():
        if data_files(path, tuple(_READERS)) or not any(path.iterdir()):
            return None
    elif path.suffix != ".jsonl":
        return None
    else:
        first = next((record for _, record in json_lines(path, 1)), {})
        if "text" not in first or first.keys() - RECORD_FIELDS:
            return None
    documents = list(itertools.islice(read_corpus(name), config.max_samples))
    logger.info("%s has no training queries: titles, headings and first sentences stand in for them", name)
    return documents


def _from_documents(documents: list[Document], name: str, config: DataConfig) -> tuple[Judgements, Collection | None]:
    """(training pairs, held-out headings or None) of a corpus: from its structure, and --spans of its sections."""
    structure = structure_of(
        documents, name_of(name), config.seed, config.validation_fraction, config.validation_queries
    )
    pairs = structure.pairs
    if config.spans:
        pairs = Judgements.join([pairs, _spans_of(structure.sections, config)])
    if not len(pairs.queries):
        raise NothingToLearnError(
            f"{name} has no title, no heading and no second sentence to learn from; add --spans 4"
        )
    return pairs, structure.validation


def _spans_of(passages: list[str], config: DataConfig) -> Judgements:
    return from_pairs((span, [passage], []) for span, passage in draw_spans(passages, config.spans, config.seed))


def training_files(path: Path) -> list[Path]:
    """The training files of a folder."""
    if hint := _no_corpus_hint(path):
        raise UserError(f"{path} holds no corpus.jsonl; {hint}")
    evaluation_files = _split_files(path, (*VALIDATION_NAMES, "test"))
    files = _split_files(path, ("train",)) or [
        file for file in data_files(path, tuple(_READERS)) if file not in evaluation_files
    ]
    if not files:
        hint = conversion_hint(path) or "check the path"
        raise UserError(f"{path} holds no .parquet, .jsonl or .tsv to train on, and no corpus.jsonl; {hint}")
    return files


def ms_marco_validation(config: DataConfig) -> Collection:
    """The first ``config.validation_queries`` queries of the validation split of MS MARCO."""
    version = config.msmarco_config
    rows = ms_marco(version, "validation", streaming=config.streaming, rows=config.validation_queries)
    examples = to_examples(_from_hub(rows, "msmarco validation"), "msmarco validation", as_judged=True)
    return to_collection(examples, f"msmarco {version} validation")


def validation_of(path: Path, config: DataConfig) -> Collection | None:
    """The first ``config.validation_queries`` queries of a folder's validation split; None if it has none."""
    if is_judged(path):
        split_name = next((split_name for split_name in VALIDATION_NAMES if _has_qrels(path, split_name)), None)
        if split_name is None:
            return None
        collection = _read_judged(path, split_name)
        examples = to_examples(_judgements_of(collection, config.validation_queries), str(path), as_judged=True)
        return to_collection(
            examples, f"{name_of(path)} {split_name}", collection.documents, collection.texts_of_self_matches()
        )
    files = _split_files(path, VALIDATION_NAMES)
    if not files:
        return None
    examples = to_examples(_read_files(files, config, None), f"{path} validation", as_judged=True)
    if len(examples.queries) > config.validation_queries:
        examples = select(examples, np.arange(config.validation_queries))
    return to_collection(examples, f"{name_of(path)} validation")


def is_judged(path: Path) -> bool:
    """Whether ``path`` is a folder with a corpus and qrels, in BEIR's or MS MARCO's format."""
    return (path / "corpus.jsonl").exists() or (path / "collection.tsv").exists()


def _is_split(path: Path) -> bool:
    """Whether ``path`` is a judged folder followed by one of its splits."""
    try:
        return is_judged(path.parent) and _has_qrels(path.parent, path.name)
    except (OSError, ValueError):  # ValueError: not a valid path
        return False


def _read_judged(path: Path, split_name: str) -> Collection:
    return beir(path, split_name) if (path / "corpus.jsonl").exists() else ms_marco_tsv(path, split_name)


def _has_qrels(path: Path, split_name: str) -> bool:
    if (path / "corpus.jsonl").exists():
        return (path / "qrels" / f"{split_name}.tsv").exists()
    return qrels_file_of(path, (split_name,)) is not None


def existing_path(name: str) -> Path:
    """``name`` as a path. Raises ``UserError`` if there is no such file or folder."""
    path = Path(name)
    try:
        check_regular(path)
    except (OSError, ValueError) as error:  # ValueError: not a valid path
        choices = "auto, msmarco, pydocs, or a folder or file of Parquet, JSONL or TSV"
        reason = "" if isinstance(error, FileNotFoundError) else f" ({getattr(error, 'strerror', error)})"
        raise UserError(f"there is no data set or path {name[:200]!r}{reason}; give {choices}") from error
    return path


def _from_hub(rows: object, where: str) -> Judgements:
    """The rows of a map-style or streamed `datasets` data set, read in Arrow batches."""
    batches = rows.with_format("arrow").iter(batch_size=10_000)  # type: ignore[attr-defined]
    chunks: list[Judgements] = []
    row_count = 0
    for batch in batches:
        chunks.append(from_table(batch, where, "query", "passage", before=row_count))
        row_count += len(batch)
    if not chunks:
        raise UserError(f"{where} has no rows; ask for another split or configuration")
    return Judgements.join(chunks)


def _split_files(folder: Path, split_names: Iterable[str]) -> list[Path]:
    """The data files whose names begin with one of ``split_names``, up to a dot, dash or underscore."""
    names = set(split_names)
    return [file for file in data_files(folder, tuple(_READERS)) if re.split(r"[-._]", file.name)[0] in names]


def _no_corpus_hint(folder: Path) -> str:
    """What a folder of judgements without their documents lacks; "" for another folder."""
    is_beir = (folder / "qrels").is_dir() and not is_judged(folder)
    return "beside queries.jsonl and qrels/ give the documents, corpus.jsonl" if is_beir else ""


def _other_data(folder: Path) -> str:
    """What to give in place of a split that ``folder`` lacks."""
    if hint := _no_corpus_hint(folder):
        return hint
    if files := data_files(folder, tuple(_READERS)):
        return f"give one of its files, such as {files[0].name}, or name a split, the beginning of a name, with --split"
    return "give a folder with corpus.jsonl, queries.jsonl and qrels/, or with files such as test.jsonl"


def _read_files(files: list[Path], config: DataConfig, rows: int | None) -> Judgements:
    chunks: list[Judgements] = []
    remaining = rows
    for file in files:
        if file.suffix not in _READERS:
            raise unknown_ending(file)
        chunk = _READERS[file.suffix](file, remaining, config.query_field, config.passage_field)
        chunks.append(chunk)
        remaining = None if remaining is None else remaining - len(chunk.queries)
        if remaining == 0:
            break
    judgements = Judgements.join(chunks)
    if not len(judgements.queries):
        raise UserError(f"{', '.join(map(str, files))}: no rows; give a file that holds some")
    return judgements


def _judgements_of(collection: Collection, rows: int | None) -> Judgements:
    """The judgements of the first ``rows`` queries of a collection."""
    text_by_id = dict(zip(collection.document_ids, collection.documents, strict=True))

    def pairs() -> Iterable[tuple[str, list[str], list[str]]]:
        for query_id, query in list(zip(collection.query_ids, collection.queries, strict=True))[:rows]:
            grades = collection.qrels[query_id]
            yield (
                query,
                [text_by_id[document] for document, grade in grades.items() if grade > 0],
                [text_by_id[document] for document, grade in grades.items() if grade <= 0],
            )

    return from_pairs(pairs())


def _load_pydocs(config: DataConfig) -> tuple[Judgements, Collection]:
    """(training rows, validation collection) of the docstrings: the summary is the query, the body the passage.

    A hash of the passage decides whether it is held out, so no passage is on both sides. The corpus is all passages.
    """
    docstrings = pydocs.sample(config.max_samples, config.seed)
    fraction = min(config.validation_fraction, config.validation_queries / max(len(docstrings), 1))
    training: list[tuple[str, list[str], list[str]]] = []
    held_out: list[tuple[str, list[str], list[str]]] = []
    for doc in docstrings:
        is_held_out = int(passage_id(f"{config.seed}\0{doc.body}"), 16) / 2**64 < fraction
        (held_out if is_held_out else training).append((doc.summary, [doc.body], []))
    if not held_out or not training:
        count = count_of(len(docstrings), "docstring is", "docstrings are")
        raise UserError(f"{count} too few to hold some out; give a larger --max-samples")
    examples = to_examples(from_pairs(held_out), "pydocs held-out", as_judged=True)
    corpus = list(dict.fromkeys(doc.body for doc in docstrings))
    return from_pairs(training), to_collection(examples, "pydocs held-out", corpus)
