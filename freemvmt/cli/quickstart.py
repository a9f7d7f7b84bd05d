"""`two-towers quickstart`: train, measure and search once, offline: a folder of documents, or the docs installed here.

Two towers are trained on pairs that the text itself gives (first paragraph and the rest of a docstring, headings and
their sections), compared with BM25 on held-out ones, and saved. Then they answer three searches. A folder is indexed,
too. With ``--heavy`` a transformer encodes the documents.
"""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from freemvmt.cli.parsing import Options, parse
from freemvmt.config import Method, TrainConfig
from freemvmt.errors import UserError
from freemvmt.runtime.console import Console, count_of, pasteable, shorten

if TYPE_CHECKING:  # most of these import PyTorch, which takes seconds
    from freemvmt.data.load import Dataset
    from freemvmt.data.readers.pydocs import Docstring
    from freemvmt.evaluation.metrics import Comparison, Result
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.hits import Hit
    from freemvmt.search.retriever import Retriever
    from freemvmt.trainer.dataset import TrainingData
    from freemvmt.trainer.result import TrainingResult


@dataclass(frozen=True, kw_only=True)
class QuickstartOptions(Options):
    """Train two towers on a folder of documents, measure them, index it and search: all offline."""

    corpus: Annotated[str | None, tyro.conf.arg(metavar="[FOLDER]"), tyro.conf.Positional] = None
    """A folder of documents, or any corpus that `index` reads; none: the docs of the Python packages installed here."""
    heavy: bool = False
    """Encode the documents by a transformer: a better search, after some minutes. Queries stay light."""
    output: str | None = None
    """Folder for the model; None: models/ and the folder's name or pydocs, with --heavy and -heavy behind it."""
    max_samples: int | None = None
    """Learn from at most so many documents or docstrings; None: all."""
    seed: int = 0
    """Seed of the split and of the training."""

    def train_config(self) -> TrainConfig:
        """The training of this quickstart."""
        config = TrainConfig(
            dataset=(self.corpus or "pydocs",),
            max_samples=self.max_samples,
            seed=self.seed,
            output=self.folder,
            wandb=False,
        )
        return replace(config, document_tower="transformer", loss="align") if self.heavy else config

    @property
    def folder(self) -> str:
        """The folder for the model."""
        return self.output or f"models/{self.name}"

    @property
    def name(self) -> str:
        """The name of the model and of the bundle."""
        path = Path(self.corpus or "pydocs").resolve()
        corpus = path.name if path.is_dir() else path.stem  # a dot in a folder's name begins no ending
        return (corpus or "documents") + ("-heavy" if self.heavy else "")

    @property
    def bundle(self) -> Path:
        """The bundle of the folder."""
        return Path("bundles") / self.name


BUNDLE = "bundles/pydocs"  # served by `two-towers serve` without an argument
PROBE = 64  # passages whose encoding says how long all will take

QUESTIONS = (
    "singular values of a matrix",
    "shortest path between two nodes of a graph",
    "draw random samples from a normal distribution",
)


def run_quickstart(options: QuickstartOptions, console: Console) -> dict[str, Any]:
    """Train, evaluate, save and search; return all figures. Raises ``UserError`` as ``train`` does."""
    what = "the docs of the Python packages installed here" if options.corpus is None else options.corpus
    console.line(f"Search {what}: two towers, trained on this machine.")
    console.line()
    from freemvmt.data.load import NothingToLearnError, load
    from freemvmt.evaluation.metrics import compare
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.bundle.files import check_output as check_bundle
    from freemvmt.storage.files import size_of
    from freemvmt.towers.model_folder import check_output
    from freemvmt.trainer.result import save

    clock = time.perf_counter()
    config, output = options.train_config(), Path(options.folder)
    check_output(output)
    if options.corpus is not None:
        check_bundle(options.bundle, [options.corpus])
        _check_documents(Path(options.corpus))
    try:
        dataset = load(config, as_documents=options.corpus is not None)
    except NothingToLearnError:
        if options.corpus is None:
            raise
        return _index_alone(options, console)
    untrained = TwoTowersModel(config.model_config())
    if options.heavy:
        _say_how_long(untrained, dataset.validation.documents, console)
    data, training = _train(config, untrained, dataset, console)
    save(config, data, training, output)

    retriever = _retriever_over(training.model, data)
    results = _measure(retriever, untrained, data)
    comparison = compare(results["hybrid"], results["BM25"])
    _report(results, comparison, data, console)
    if options.corpus is None:
        answers = _ask_docs(options, training.model, data, console)
    else:
        answers = _ask_bundle(options, training.model, data, console)

    seconds = time.perf_counter() - clock
    console.line()
    console.line(f"saved  {output} ({size_of(output) / 1e6:.0f} MB)", seconds)
    if options.corpus is not None:
        console.line(f"       {options.bundle} ({size_of(options.bundle) / 1e6:.0f} MB)")
    _say_next(options, console)
    return {
        "model": str(output),
        **({} if options.corpus is None else {"bundle": str(options.bundle)}),
        "seconds": round(seconds, 2),
        "pairs": training.pairs,
        "results": {name: result.as_dict() for name, result in results.items()},
        "hybrid_against_bm25": {"difference": comparison.difference, "p_value": comparison.p_value},
        "searches": answers,
    }


def _check_documents(path: Path) -> None:
    """Raise ``UserError``, before anything is trained, if ``path`` is a file of something else than documents."""
    from freemvmt.data.corpus import read_corpus

    if not path.is_file():
        return
    try:
        next(iter(read_corpus(str(path))), None)
    except UserError as error:
        reason = str(error).partition(";")[0]
        train = f"two-towers train --dataset {shlex.quote(str(path))}"
        raise UserError(f"{reason}; give documents, or learn from pairs by {train}") from error


def _train(
    config: TrainConfig, untrained: "TwoTowersModel", dataset: "Dataset", console: Console
) -> "tuple[TrainingData, TrainingResult]":
    """The data as it was trained on, and the result; its towers are the untrained ones if these are better."""
    from freemvmt.trainer.dataset import prepare
    from freemvmt.training import label_of, train

    start = untrained if config.is_mixed else None  # a transformer is loaded once
    data = prepare(config, console, start=start, data=dataset)
    training = train(config, data, console=console)
    rate = training.pairs * len(training.history) / training.seconds
    console.line(
        f"{label_of(config)}: {count_of(len(training.history), 'epoch')}, {rate:,.0f} pairs/s", training.seconds
    )
    if training.val_ndcg_10 < training.untrained_ndcg_10:
        console.line("kept      the untrained towers: this text taught them nothing")
        training = replace(training, model=untrained, val_ndcg_10=training.untrained_ndcg_10, best_epoch=0)
    return data, training


def _index_alone(options: QuickstartOptions, console: Console) -> dict[str, Any]:
    """Index a corpus that has nothing to learn from with the untrained towers; return what there is."""
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.bundle.build import build

    assert options.corpus is not None
    console.line(f"note      {options.corpus} has too little text to learn from; its towers stay untrained")
    build(TwoTowersModel(options.train_config().model_config()), options.corpus, options.bundle, console=console)
    console.line()
    console.line(f"saved  {options.bundle}")
    _say_next(options, console)
    return {"bundle": str(options.bundle)}


def _say_how_long(model: "TwoTowersModel", passages: Sequence[str], console: Console) -> None:
    """Encode a few passages by the transformer, and say how long all of them will take."""
    from freemvmt.search.index.ranking import evenly_spaced

    sample = [passages[row] for row in evenly_spaced(len(passages), PROBE)]
    started = time.perf_counter()
    model.encode_documents(sample)
    minutes = (time.perf_counter() - started) / len(sample) * len(passages) / 60
    count = f"{count_of(len(passages), 'passage')}: about {max(1, round(minutes))} min the first time"
    console.line(f"heavy     a transformer encodes {count}; its vectors are cached")


def _retriever_over(model: "TwoTowersModel", data: "TrainingData") -> "Retriever":
    """Search over the validation corpus as training measures it: a document that is long is read by its beginning. The
    vectors of a frozen document tower are there already."""
    from freemvmt.search.retriever import Retriever

    vectors = data.frozen.validation_vectors if data.frozen else None
    return Retriever(model, data.validation.documents, data.validation.document_ids, vectors=vectors, cut=False)


def _measure(retriever: "Retriever", model: "TwoTowersModel", data: "TrainingData") -> dict[str, "Result"]:
    """What BM25, the untrained ``model``, the trained towers and the hybrid score on the held-out queries."""
    from freemvmt.evaluation.metrics import evaluate

    untrained = _retriever_over(model, data)
    systems: tuple[tuple[str, Retriever, Method], ...] = (
        ("BM25", retriever, "bm25"),
        ("untrained", untrained, "dense"),
        ("trained", retriever, "dense"),
        ("hybrid", retriever, "hybrid"),
    )
    return {name: evaluate(system, data.validation, method)[0] for name, system, method in systems}


def _report(results: dict[str, "Result"], comparison: "Comparison", data: "TrainingData", console: Console) -> None:
    """Print a line for each of ``results``."""
    from freemvmt.evaluation.metrics import half_width_of

    validation = data.validation
    console.line()
    queries = count_of(len(validation.queries), "held-out query", "held-out queries")
    console.line(f"ndcg@10, {queries} over all {count_of(len(validation.documents), 'passage')}")
    notes = {"hybrid": _verdict(comparison.difference, comparison.p_value)}
    if data.frozen:
        share = data.frozen.retention(results["trained"].metrics["ndcg@10"])
        notes["trained"] = f"{share:.1%} of the transformer on both sides, {data.frozen.ndcg_10:.3f}"
    for name, result in results.items():
        half_width = half_width_of(result.intervals["ndcg@10"], digits=3)
        score = f"  {name:<10} {result.metrics['ndcg@10']:.3f}{half_width}   {notes.get(name, '')}"
        console.line(score.rstrip())


def _docs_retriever(
    model: "TwoTowersModel", data: "TrainingData", docs: Sequence["Docstring"], ids: Sequence[str]
) -> "Retriever":
    """Search over all docstrings, whole; over the bodies that it has encoded, if a transformer encodes them."""
    from freemvmt.search.retriever import Retriever

    if data.frozen is None:
        return Retriever(model, [f"{doc.name} {doc.summary} {doc.body}" for doc in docs], ids)
    id_of_body = {doc.body: id for id, doc in zip(reversed(ids), reversed(docs), strict=True)}  # the first of equals
    bodies = data.validation.documents
    return Retriever(model, bodies, [id_of_body[body] for body in bodies], vectors=data.frozen.validation_vectors)


def _ask_docs(options: QuickstartOptions, model: "TwoTowersModel", data: "TrainingData", console: Console) -> "Answers":
    """Search the docstrings for three questions and print the answers."""
    from freemvmt.data.corpus import ids_of
    from freemvmt.data.readers import pydocs

    docs = pydocs.sample(options.max_samples, options.seed)
    ids = ids_of(docs)
    summaries = {id: doc.summary for id, doc in zip(ids, docs, strict=True)}
    return _ask(_docs_retriever(model, data, docs, ids), QUESTIONS, lambda hit: summaries[hit.id], console)


def _ask_bundle(
    options: QuickstartOptions, model: "TwoTowersModel", data: "TrainingData", console: Console
) -> "Answers":
    """Index the corpus, search it for three headings that were held out, and print the answers."""
    from freemvmt.search.bundle.build import build
    from freemvmt.search.index.ranking import evenly_spaced
    from freemvmt.search.retriever import Retriever

    assert options.corpus is not None
    console.line()
    build(model, options.corpus, options.bundle, console=console)
    queries = data.validation.queries
    questions = [queries[row] for row in evenly_spaced(len(queries), 3)]
    retriever = Retriever.load(options.bundle, verify=False)
    return _ask(retriever, questions, lambda hit: str(hit.place or hit.text), console)


Answers = dict[str, list[dict[str, Any]]]


def _ask(
    retriever: "Retriever", questions: Sequence[str], beginning: "Callable[[Hit], str]", console: Console
) -> Answers:
    """Search for ``questions`` and print the ids of the best hits, and what ``beginning`` says of them."""
    answers: Answers = {}
    for question in questions:
        hits = retriever.search(question, k=3)
        answers[question] = [{"id": hit.id, "score": round(hit.score, 4)} for hit in hits]
        console.line()
        console.line(shorten(question, 100))
        for rank, hit in enumerate(hits, start=1):
            text = shorten(" ".join(beginning(hit).split()), 56)
            console.line(f"  {rank}  {hit.score:.2f}  {shorten(hit.id, 44):<44}  {text}")
    return answers


def _say_next(options: QuickstartOptions, console: Console) -> None:
    """Print the commands that lead on from here."""
    from freemvmt.data.records import is_folder_of_files

    next_steps = [] if options.heavy else [(_heavy_command(options), "better: a transformer encodes the documents")]
    if options.corpus is None:
        serve = ("two-towers serve", "the same search in your browser")
        if options.heavy:
            bundle = f"bundles/{Path(options.folder).name}"
            serve = (f"two-towers index {options.folder} pydocs --output {bundle}", "to search and serve it")
        evaluate = f"two-towers evaluate {options.folder} pydocs --method hybrid"
        next_steps = [serve, *next_steps, (evaluate, "any model, any collection")]
    else:
        bundle = shlex.quote(str(options.bundle))
        serve = (f"two-towers serve {bundle}", "in your browser")
        if is_folder_of_files(Path(options.corpus)):
            serve = (f"{serve[0]} --sync", "in your browser, in step with the folder")
        search = f'two-towers search {bundle} "your question"'
        next_steps = [(search, "in the terminal"), serve, *next_steps]
    next_steps.append(("two-towers train --dataset FILE", "your own pairs (JSONL, TSV, Parquet)"))
    next_steps = [(pasteable(command), purpose) for command, purpose in next_steps]
    if options.corpus is None:
        next_steps.append(("cd freemvmt && uv run python main.py", "MS MARCO"))
    width = max(len(command) for command, _ in next_steps)
    for number, (command, purpose) in enumerate(next_steps):
        console.line(f"{'' if number else 'next':<6} {command:<{width}}   {purpose}")


def _heavy_command(options: QuickstartOptions) -> str:
    corpus = "" if options.corpus is None else f"{shlex.quote(options.corpus)} "
    return f"two-towers quickstart {corpus}--heavy"


def _verdict(difference: float, p_value: float) -> str:
    if p_value >= 0.05:
        return f"no clear difference from BM25, p = {p_value:.2f}"
    word = "better" if difference > 0 else "worse"
    return f"{word} than BM25, p {'< 0.001' if p_value < 0.001 else f'= {p_value:.3f}'}"


def pydocs_bundle(console: Console) -> Path:
    """The bundle of the docs installed here. It is built if it is missing, and so is its model."""
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.bundle.build import build
    from freemvmt.search.bundle.files import is_bundle
    from freemvmt.training import train_and_save

    bundle, model = Path(BUNDLE), Path(QuickstartOptions().folder)
    if is_bundle(bundle):
        return bundle
    console.line(f"there is no {bundle} yet; making it from the docs of the Python packages installed here")
    if not (model / "config.json").exists():
        train_and_save(QuickstartOptions().train_config(), console)
    build(TwoTowersModel.load(model), "pydocs", bundle, console=console)
    return bundle


def quickstart(argv: Sequence[str]) -> int:
    """Train, measure and search a folder of documents, or the docs installed here."""
    options = parse(QuickstartOptions, argv, "two-towers quickstart")
    return options.finish(run_quickstart(options, options.console()))
