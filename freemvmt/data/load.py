"""A name on the command line becomes data: the Hub, a file or a folder, or the docstrings installed here.

``load`` gives what a training run needs; ``load_collection`` gives what an evaluation needs. Folders say by their
files what they are: ``corpus.jsonl`` is BEIR, ``collection.tsv`` is MS MARCO's own, else files are told apart by the
split that their names begin with.
"""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from freemvmt.config import DataConfig
from freemvmt.data.collection import Collection, merge, to_collection
from freemvmt.data.examples import Examples, select, split, to_examples, without
from freemvmt.data.judgements import Judgements, from_pairs
from freemvmt.data.lines import data_files, packed_in, unknown_ending
from freemvmt.data.readers import pydocs
from freemvmt.data.readers.beir import beir
from freemvmt.data.readers.jsonl import read_jsonl
from freemvmt.data.readers.msmarco import ms_marco, ms_marco_tsv, qrels_file_of
from freemvmt.data.readers.parquet import from_table, read_parquet
from freemvmt.data.readers.tsv import read_tsv
from freemvmt.data.values import passage_id
from freemvmt.errors import UserError
from freemvmt.storage import hub
from freemvmt.storage.files import check_regular

logger = logging.getLogger(__name__)

VALIDATION_NAMES = ("validation", "valid", "val", "dev")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training examples, and the collection that each epoch is measured on; no query stands on both sides."""

    name: str
    train: Examples
    validation: Collection


def load(config: DataConfig) -> Dataset:
    """Read and join all that ``config.dataset`` names.

    ``auto`` is MS MARCO when the Hub or its cache has it, else the docstrings installed here, and a warning says so.
    """
    names: list[str] = []
    parts: list[Judgements] = []
    collections: list[Collection] = []
    unsplit: list[Judgements] = []  # the parts without a validation split of their own
    for asked in config.dataset:
        name, judgements, collection = _read(asked, config)
        names.append(name)
        parts.append(judgements)
        if collection is None:
            unsplit.append(judgements)
        else:
            collections.append(collection)
    joined = " + ".join(names)
    train = to_examples(Judgements.join(parts), joined)
    if unsplit:
        # Hold some of their queries out, and search them among all their passages.
        source = to_examples(Judgements.join(unsplit), joined) if len(unsplit) < len(parts) else train
        _, held = split(source, config.validation_fraction, config.validation_queries, config.seed)
        collections.append(to_collection(held, joined, source.passages))
        share = f"{len(held.queries):,} of {len(source.queries):,} queries"
        logger.info("held out for validation: %s, by seed %d", share, config.seed)
    validation = merge(collections)
    train = without(train, validation.queries)
    if not train.queries:
        raise UserError(f"{joined}: every training query is a validation query too; give more rows")
    return Dataset(joined, train, validation)


def load_collection(name: str, part: str, config: DataConfig) -> Collection:
    """The collection behind ``name``: a BEIR folder, or the split ``part`` of anything that ``load`` reads.

    A judged folder and a split of it may be named together: ``msmarco-passage/dev``.
    """
    if name == "pydocs":
        return _pydocs(config)[1]
    if name in ("auto", "msmarco"):
        rows = ms_marco(config.msmarco_config, part, streaming=config.streaming, rows=config.max_samples)
        judged = to_examples(_from_hub(rows, name), f"{name} {part}", as_judged=True)
        return to_collection(judged, f"{name} {part}")
    if _is_split(Path(name)):
        return _judged(Path(name).parent, Path(name).name)
    path = existing(name)
    if is_judged(path):
        return _judged(path, part)
    files = [path] if path.is_file() else _split_files(path, (part,))
    if not files:
        todo = packed_in(path, part) or "name one that it has with --split"
        raise UserError(f"{path} has no files of a split {part!r}; {todo}")
    examples = to_examples(_read_files(files, config, config.max_samples), name, as_judged=True)
    return to_collection(examples, f"{path.name} {part}" if path.is_dir() else path.name)


def _read(name: str, config: DataConfig) -> tuple[str, Judgements, Collection | None]:
    """(the data set's name, what its training rows say, its own validation collection if it has one)."""
    rows = config.max_samples
    if name == "auto":
        try:
            return _read("msmarco", config)
        except hub.Unavailable:
            instead = "training on pydocs, the docstrings installed here"
            logger.warning("MS MARCO is neither in the local cache nor to be had from the Hub; %s", instead)
            return _read("pydocs", config)
    if name == "pydocs":
        return name, *_pydocs(config)
    if name == "msmarco":
        version, streaming = config.msmarco_config, config.streaming
        train = _from_hub(ms_marco(version, "train", streaming=streaming, rows=rows), "msmarco train")
        return name, train, ms_marco_validation(config)
    path = existing(name)
    if path.is_file():
        return name, _read_files([path], config, rows), None
    validation = validation_of(path, config)
    if is_judged(path):
        return name, _judgements_of(_judged(path, "train"), rows), validation
    return name, _read_files(training_files(path), config, rows), validation


def training_files(path: Path) -> list[Path]:
    """The files of a folder that are trained on."""
    measured = _split_files(path, (*VALIDATION_NAMES, "test"))
    files = _split_files(path, ("train",)) or [file for file in _data_files(path) if file not in measured]
    if not files:
        todo = packed_in(path) or "check the path"
        raise UserError(f"{path} holds no .parquet, .jsonl or .tsv to train on, and no corpus.jsonl; {todo}")
    return files


def ms_marco_validation(config: DataConfig) -> Collection:
    """The validation split of MS MARCO, as much of it as ``config`` says."""
    version = config.msmarco_config
    held = ms_marco(version, "validation", streaming=config.streaming, rows=config.validation_queries)
    examples = to_examples(_from_hub(held, "msmarco validation"), "msmarco validation", as_judged=True)
    return to_collection(examples, f"msmarco {version} validation")


def validation_of(path: Path, config: DataConfig) -> Collection | None:
    """The validation split of a folder, at most ``config.validation_queries`` queries of it; None if it has none."""
    if is_judged(path):
        part = next((part for part in VALIDATION_NAMES if _has_qrels(path, part)), None)
        if part is None:
            return None
        collection = _judged(path, part)
        examples = to_examples(_judgements_of(collection, config.validation_queries), str(path), as_judged=True)
        return to_collection(examples, f"{path.name} {part}", collection.documents, collection.texts_of_self_matches())
    files = _split_files(path, VALIDATION_NAMES)
    if not files:
        return None
    examples = to_examples(_read_files(files, config, None), f"{path} validation", as_judged=True)
    if len(examples.queries) > config.validation_queries:
        examples = select(examples, np.arange(config.validation_queries))
    return to_collection(examples, f"{path.name} validation")


def is_judged(path: Path) -> bool:
    """Whether ``path`` is a folder with a corpus and qrels of its own: BEIR's, or MS MARCO's."""
    return (path / "corpus.jsonl").exists() or (path / "collection.tsv").exists()


def _is_split(path: Path) -> bool:
    """Whether ``path`` is a judged folder and, behind it, a split of it."""
    try:
        return is_judged(path.parent) and _has_qrels(path.parent, path.name)
    except (OSError, ValueError):  # no path can be called so
        return False


def _judged(path: Path, part: str) -> Collection:
    return beir(path, part) if (path / "corpus.jsonl").exists() else ms_marco_tsv(path, part)


def _has_qrels(path: Path, part: str) -> bool:
    if (path / "corpus.jsonl").exists():
        return (path / "qrels" / f"{part}.tsv").exists()
    return qrels_file_of(path, (part,)) is not None


def existing(name: str) -> Path:
    """The path that ``name`` is; ``UserError`` where nothing is there."""
    path = Path(name)
    try:
        check_regular(path)
    except (OSError, ValueError) as error:  # ValueError: no path can be called so
        known = "auto, msmarco, pydocs, or a folder or file of Parquet, JSONL or TSV"
        reason = "" if isinstance(error, FileNotFoundError) else f" ({getattr(error, 'strerror', error)})"
        raise UserError(f"there is no data set or path {name[:200]!r}{reason}; give {known}") from error
    return path


def _from_hub(rows: object, where: str) -> Judgements:
    """The rows of a map-style or a streamed data set, in Arrow batches."""
    batches = rows.with_format("arrow").iter(batch_size=10_000)  # type: ignore[attr-defined]
    parts: list[Judgements] = []
    done = 0
    for batch in batches:
        parts.append(from_table(batch, where, "query", "passage", before=done))
        done += len(batch)
    if not parts:
        raise UserError(f"{where} has no rows; ask for another split or configuration")
    return Judgements.join(parts)


def _data_files(folder: Path) -> list[Path]:
    return data_files(folder, (".parquet", ".jsonl", ".tsv"))


def _split_files(folder: Path, parts: Iterable[str]) -> list[Path]:
    """The data files whose names begin with one of ``parts``, up to a dot, dash or underscore."""
    wanted = set(parts)
    return [file for file in _data_files(folder) if re.split(r"[-._]", file.name)[0] in wanted]


def _read_files(files: list[Path], config: DataConfig, rows: int | None) -> Judgements:
    parts: list[Judgements] = []
    left = rows
    for file in files:
        if file.suffix == ".parquet":
            part = read_parquet(file, left, config.query_field, config.passage_field)
        elif file.suffix == ".jsonl":
            part = read_jsonl(file, left, config.query_field, config.passage_field)
        elif file.suffix == ".tsv":
            part = read_tsv(file, left, config.query_field, config.passage_field)
        else:
            raise unknown_ending(file)
        parts.append(part)
        left = None if left is None else left - len(part.queries)
        if left == 0:
            break
    judgements = Judgements.join(parts)
    if not len(judgements.queries):
        raise UserError(f"{', '.join(map(str, files))}: no rows; give a file that holds some")
    return judgements


def _judgements_of(collection: Collection, rows: int | None) -> Judgements:
    """What the qrels of a collection say, its first ``rows`` queries."""
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


def read_pydocs(most: int | None, seed: int) -> list[pydocs.Docstring]:
    """The docstrings installed here, or a seeded choice of ``most`` of them, in their order."""
    found = pydocs.read()
    if most is None or most >= len(found):
        return found
    return [found[number] for number in np.sort(np.random.default_rng(seed).permutation(len(found))[:most])]


def _pydocs(config: DataConfig) -> tuple[Judgements, Collection]:
    """Docstrings: the first paragraph is the query, the rest the passage.

    A hash of the passage decides on which side it stands, so that no passage is on both; the corpus is every passage.
    """
    found = read_pydocs(config.max_samples, config.seed)
    names = [passage_id(f"{config.seed}\0{item.body}") for item in found]
    share = min(config.validation_fraction, config.validation_queries / max(len(found), 1))
    held = [item for item, name in zip(found, names, strict=True) if int(name, 16) / 2**64 < share]
    train = [item for item, name in zip(found, names, strict=True) if int(name, 16) / 2**64 >= share]
    if not held or not train:
        raise UserError(f"{len(found)} docstrings are too few to hold some out; give a larger --max-samples")
    judgements = from_pairs((item.summary, [item.body], []) for item in train)
    pairs = from_pairs((item.summary, [item.body], []) for item in held)
    held_out = to_examples(pairs, "pydocs held-out", as_judged=True)
    collection = to_collection(held_out, "pydocs held-out", list(dict.fromkeys(item.body for item in found)))
    return judgements, collection
