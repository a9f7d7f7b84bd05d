"""The verbs of `two-towers` that make and measure a model, each a few lines over the package."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from freemvmt.config import HYBRID_WEIGHT, DataConfig, Method, MiningConfig, Protocol, TrainConfig, part_of
from freemvmt.errors import UserError
from freemvmt.shell import counted, parse, report

if TYPE_CHECKING:
    from freemvmt.evaluation import Result, Run
    from freemvmt.learning.checkpoint import Saved
    from freemvmt.search.retriever import Retriever
    from freemvmt.text.corpus import Collection


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainConfig):
    """Train two towers on pairs of queries and passages, and save the best epoch as a model folder."""

    resume: str | None = None
    """Go on with a training that was stopped: the folder of its checkpoints. Its settings need not be given again."""
    resume_anyway: bool = False
    """Go on even where settings, data or versions are not those of the checkpoint."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


def train(argv: Sequence[str], prog: str = "two-towers train") -> int:
    """Train a model and save it."""
    saved = _stopped_training(argv)
    default = None if saved is None else TrainOptions(**dataclasses.asdict(saved.config()))
    options = parse(TrainOptions, argv, prog, default=default)
    from freemvmt.console import QUIET, Console
    from freemvmt.learning.ranks import is_first_process
    from freemvmt.training import train_and_save

    console = Console(stderr=options.json) if is_first_process() else QUIET
    result, output = train_and_save(options.train_config(), console, saved, options.resume_anyway)
    if not is_first_process():  # the first one speaks for all
        return 1 if result.ended == "interrupted" else 0
    stopped = "" if result.ended == "finished" else f"; stopped: {result.ended}"
    console.line(
        f"val ndcg@10  untrained {result.untrained_ndcg_10:.4f}, trained {result.val_ndcg_10:.4f} "
        f"(epoch {result.best_epoch} of {len(result.history)}{stopped})"
    )
    console.line(f"saved     {output}")
    if result.ended == "interrupted":
        folder = options.resume or f"{output}.checkpoints"
        console.line(f"next      two-towers train --resume {folder}      go on where it stopped")
    console.line(f"next      two-towers evaluate {output} COLLECTION      a BEIR folder, or a data set's test split")
    report(options.json, {"model": str(output), "seconds": round(result.seconds, 2), **result.model.record})
    return 1 if result.ended == "interrupted" else 0


def _stopped_training(argv: Sequence[str]) -> "Saved | None":
    """The checkpoint that ``--resume`` names: read before the flags, whose defaults are its settings."""
    given: str | None = None
    for word, following in zip_longest(argv, argv[1:]):
        name, equals, value = word.partition("=")
        if name == "--resume":
            given = value if equals else following
    if given is None:  # or the flag stands last, with no value: parsing says so
        return None
    from freemvmt.learning.checkpoint import last_checkpoint

    return last_checkpoint(Path(given))


@dataclass(frozen=True, kw_only=True)
class CollectionOptions(DataConfig):
    """How a collection is read."""

    split: str = "test"
    """Which split's queries."""
    weight: float = HYBRID_WEIGHT
    """Hybrid: the dense side's share, 0 to 1."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(CollectionOptions):
    """Measure a model on a collection: NDCG@10, MRR@10, Recall@100 and @1000 with a 95 % interval."""

    model: Annotated[str, tyro.conf.arg(metavar="MODEL"), tyro.conf.Positional]
    """A model folder, a name on the Hub, `untrained`, or a bundle of the collection, measured as it is served."""
    collection: Annotated[str, tyro.conf.arg(metavar="COLLECTION"), tyro.conf.Positional]
    """A BEIR folder, or anything that --dataset takes."""
    method: Method = "dense"
    """dense: the towers. bm25: words. hybrid: both."""
    protocol: Protocol = "full"
    """full: over every document. pool: over the passages of the query's own row, which is far easier."""
    run: str | None = None
    """Write the ranking to this file as a TREC run."""
    worst: int | None = None
    """Show so many of the queries that lost most against BM25, with both rankings."""
    explain: bool = False
    """With --worst: the words that decided."""


def evaluate(argv: Sequence[str]) -> int:
    """Measure a model on a collection."""
    options = parse(EvaluateOptions, argv, "two-towers evaluate")
    from freemvmt.console import Console
    from freemvmt.evaluation import table, write_run
    from freemvmt.text.sources import load_collection

    console = Console(stderr=options.json)
    _check_worst(options)
    collection = load_collection(options.collection, options.split, options)
    result, found, retriever = _measured(options.model, collection, options.method, options.protocol, options.weight)
    console.line(f"{collection.name}: {result.queries:,} queries, {result.protocol}")
    for line in table([result]):
        console.line(line)
    if options.run:
        write_run(found, Path(options.run), tag=f"two-towers-{options.method}")
        console.line(f"run       {options.run}")
    told = {"model": options.model, **result.as_dict()}
    if options.worst:
        from freemvmt import worst

        bm25 = _measured("bm25", collection, "bm25", options.protocol, options.weight)[:2]
        lost = worst.losses((result, found), bm25, collection, options.worst, retriever if options.explain else None)
        worst.show(lost, options.method, result.queries, console)
        told["worst"] = [asdict(one) for one in lost]
    report(options.json, told)
    return 0


def _check_worst(options: EvaluateOptions) -> None:
    if options.worst is not None and options.worst < 1:
        raise UserError(f"--worst is {options.worst}; give 1 or more")
    if options.explain and not options.worst:
        raise UserError("--explain tells why queries of --worst were lost; give --worst 20")
    if options.worst and (options.method == "bm25" or options.model == "bm25"):
        raise UserError("--worst compares with BM25, and this is BM25; give a model, and --method dense or hybrid")
    if options.explain and _is_file(options.model):
        raise UserError(f"{options.model} is a run, which knows no words; give the model for --explain")


@dataclass(frozen=True, kw_only=True)
class CompareOptions(CollectionOptions):
    """Compare two models on a collection: difference of NDCG@10, its interval, and a paired randomisation test."""

    model_a: Annotated[str, tyro.conf.arg(metavar="MODEL_A"), tyro.conf.Positional]
    """A model folder, a name on the Hub, `untrained`, `bm25`, a bundle, or a TREC run file of the collection."""
    model_b: Annotated[str, tyro.conf.arg(metavar="MODEL_B"), tyro.conf.Positional]
    """The same choice."""
    collection: Annotated[str, tyro.conf.arg(metavar="COLLECTION"), tyro.conf.Positional]
    """A BEIR folder, or anything that --dataset takes."""
    method: Method = "dense"
    """How the two models search."""
    protocol: Protocol = "full"
    """full: over every document. pool: over the passages of the query's own row."""
    metric: Literal["ndcg@10", "mrr@10", "recall@100", "recall@1000"] = "ndcg@10"
    """What is compared."""


def compare(argv: Sequence[str]) -> int:
    """Compare two models on a collection."""
    options = parse(CompareOptions, argv, "two-towers compare")
    from freemvmt.console import Console
    from freemvmt.evaluation import compare as compare_results
    from freemvmt.text.sources import load_collection

    console = Console(stderr=options.json)
    collection = load_collection(options.collection, options.split, options)
    a, b = (
        _measured(name, collection, options.method, options.protocol, options.weight)[0]
        for name in (options.model_a, options.model_b)
    )
    found = compare_results(a, b, options.metric)
    console.line(f"{collection.name}: {a.queries:,} queries, {a.protocol}; {options.metric}")
    for letter, name, mean in (("A", options.model_a, found.mean_a), ("B", options.model_b, found.mean_b)):
        console.line(f"  {letter}  {mean:.4f}  {name}")
    low, high = found.interval
    console.line(
        f"  A - B  {found.difference:+.4f}  [{low:+.4f}, {high:+.4f}]  p = {found.p_value:.4f}  "
        f"(A better on {found.wins}, B on {found.losses}, equal on {found.ties})"
    )
    sides = {"a": {"model": options.model_a, **a.as_dict()}, "b": {"model": options.model_b, **b.as_dict()}}
    report(options.json, {**sides, "comparison": asdict(found)})
    return 0


def _measured(
    name: str, collection: "Collection", method: Method, protocol: Protocol, weight: float
) -> "tuple[Result, Run, Retriever | None]":
    """What the model (or run file, or BM25) of that name finds in the collection, and what it searched with."""
    from freemvmt import evaluation
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.bundle import is_bundle
    from freemvmt.search.retriever import Retriever

    if _is_file(name):
        found = evaluation.read_run(Path(name), collection)
        return evaluation.measure(found, collection, name, protocol), found, None
    if is_bundle(Path(name)):
        served = Retriever.load(name)
        return *evaluation.evaluate(served, collection, method, protocol, weight), served
    if name == "bm25":
        method = "bm25"
    model = None if method == "bm25" else TwoTowersModel.load(name)
    retriever = Retriever(model, collection.documents, collection.document_ids)
    return *evaluation.evaluate(retriever, collection, method, protocol, weight), retriever


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # too long for a path
        return False


@dataclass(frozen=True, kw_only=True)
class MineOptions(DataConfig, MiningConfig):
    """Find hard negatives for training pairs: rows in MS MARCO's schema, for `train --negatives given`."""

    model: Annotated[str, tyro.conf.arg(metavar="MODEL"), tyro.conf.Positional]
    """A model folder, a name on the Hub, or `untrained`."""
    pairs: Annotated[str, tyro.conf.arg(metavar="DATASET"), tyro.conf.Positional]
    """Anything that --dataset takes."""
    output: str
    """File for the rows: .parquet, or .jsonl."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        MiningConfig.__post_init__(self)


def mine(argv: Sequence[str]) -> int:
    """Find hard negatives for training pairs."""
    options = parse(MineOptions, argv, "two-towers mine")
    from freemvmt.console import Console
    from freemvmt.learning.mining import mine as find_negatives
    from freemvmt.learning.preparation import prepare
    from freemvmt.model import TwoTowersModel
    from freemvmt.text.written import check_rows_path, write_rows

    console, output = Console(stderr=options.json), Path(options.output)
    check_rows_path(output)
    model = TwoTowersModel.load(options.model)
    config = TrainConfig(
        **asdict(part_of(options, DataConfig)) | {"dataset": (options.pairs,)},
        base=model.config.base,
        distill=1.0 if options.teacher else 0.0,  # makes the teacher's vectors
        teacher=options.teacher or TrainConfig.teacher,
    )
    data = prepare(config, console, model.tokenizer)
    clock = time.perf_counter()
    with console.progress("mining", len(data.queries)) as bar:
        mined = find_negatives(model, data, part_of(options, MiningConfig), bar)
    write_rows(data.examples, mined.negatives, output)
    found = {"queries": len(mined.negatives), "negatives": len(mined.negatives.ids), "known": mined.known}
    console.line(
        f"mining    {counted(found['negatives'], 'negative')} of {counted(found['queries'], 'query', 'queries')}; "
        f"left out {mined.known:,} known answers and {mined.near:,} that may be some",
        time.perf_counter() - clock,
    )
    console.line(f"saved     {output}")
    console.line(f"next      two-towers train --dataset {output} --negatives given")
    report(options.json, {"output": str(output), "candidates": mined.candidates, **found, "near": mined.near})
    return 0


def sweep(argv: Sequence[str]) -> int:
    """Search for good settings."""
    from freemvmt.sweep_config import run_sweep_command

    return run_sweep_command(argv, prog="two-towers sweep")


def quickstart(argv: Sequence[str]) -> int:
    """Train, measure and search the docs of the Python packages installed here."""
    from freemvmt.quickstart import QuickstartOptions, run_quickstart

    options = parse(QuickstartOptions, argv, "two-towers quickstart")
    from freemvmt.console import Console

    report(options.json, run_quickstart(options, Console(stderr=options.json)))
    return 0
