"""`two-towers quickstart`: train, evaluate and search once, offline, on the docs of the Python packages installed here.

Two towers are trained on pairs (first paragraph, the rest) of docstrings, compared with BM25 on held-out docstrings,
and saved. Then they search all docstrings for three questions.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freemvmt.cli.parsing import Options, parse
from freemvmt.config import Method, TrainConfig
from freemvmt.runtime.console import Console, pasteable, shorten


@dataclass(frozen=True, kw_only=True)
class QuickstartOptions(Options):
    """Train two towers on the docs of the Python packages installed here, measure them, and search: all offline."""

    output: str = "models/pydocs"
    """Folder for the model."""
    max_samples: int | None = None
    """Read at most so many docstrings; None: all."""
    seed: int = 0
    """Seed of the split and of the training."""


BUNDLE = "bundles/pydocs"  # served by `two-towers serve` without an argument

QUESTIONS = (
    "singular values of a matrix",
    "shortest path between two nodes of a graph",
    "draw random samples from a normal distribution",
)


def run_quickstart(options: QuickstartOptions, console: Console) -> dict[str, Any]:
    """Train, evaluate, save and search; return all figures. Raises ``UserError`` as ``train`` does."""
    console.line("Search the docs of the Python packages installed here: two towers, trained on this machine.")
    console.line()
    from freemvmt.data.corpus import ids_of
    from freemvmt.data.load import read_pydocs
    from freemvmt.evaluation.metrics import compare, evaluate
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.retriever import Retriever
    from freemvmt.storage.files import size_of
    from freemvmt.towers.model_folder import check_output
    from freemvmt.trainer.dataset import prepare
    from freemvmt.trainer.result import save
    from freemvmt.training import train

    clock = time.perf_counter()
    config = TrainConfig(
        dataset=("pydocs",), max_samples=options.max_samples, seed=options.seed, output=options.output, wandb=False
    )
    output = Path(options.output)
    check_output(output)
    data = prepare(config, console)
    training = train(config, data, console=console)
    rate = training.pairs * len(training.history) / training.seconds
    console.line(
        f"training  {config.tower} towers, {config.loss}, {config.negatives} in batch: {len(training.history)} epochs, "
        f"{rate:,.0f} pairs/s",
        training.seconds,
    )
    save(config, data, training, output)

    validation = data.validation
    retriever = Retriever(training.model, validation.documents, validation.document_ids)
    untrained = Retriever(TwoTowersModel(config.model_config()), validation.documents, validation.document_ids)
    systems: tuple[tuple[str, Retriever, Method], ...] = (
        ("BM25", retriever, "bm25"),
        ("untrained", untrained, "dense"),
        ("trained", retriever, "dense"),
        ("hybrid", retriever, "hybrid"),
    )
    results = {name: evaluate(system, validation, method)[0] for name, system, method in systems}
    comparison = compare(results["hybrid"], results["BM25"])
    console.line()
    console.line(
        f"ndcg@10, {len(validation.queries):,} held-out queries over all {len(validation.documents):,} passages"
    )
    for name, result in results.items():
        low, high = result.intervals["ndcg@10"]
        note = f"   {_verdict(comparison.difference, comparison.p_value)}" if name == "hybrid" else ""
        console.line(f"  {name:<10} {result.metrics['ndcg@10']:.3f} ± {(high - low) / 2:.3f}{note}")

    docs = read_pydocs(options.max_samples, options.seed)
    texts = [f"{doc.name} {doc.summary} {doc.body}" for doc in docs]
    ids = ids_of(docs)
    docs_retriever = Retriever(training.model, texts, ids)
    summaries = {id: doc.summary for id, doc in zip(ids, docs, strict=True)}
    answers: dict[str, list[dict[str, Any]]] = {}
    for question in QUESTIONS:
        hits = docs_retriever.search(question, k=3)
        answers[question] = [{"id": hit.id, "score": round(hit.score, 4)} for hit in hits]
        console.line()
        console.line(question)
        for rank, hit in enumerate(hits, start=1):
            summary = summaries[hit.id]
            console.line(f"  {rank}  {hit.score:.2f}  {shorten(hit.id, 44):<44}  {shorten(summary, 56)}")

    seconds = time.perf_counter() - clock
    size = size_of(output) / 1e6
    console.line()
    console.line(f"saved  {output} ({size:.0f} MB)", seconds)
    next_steps = (
        (pasteable("two-towers serve"), "the same search in your browser"),
        (pasteable(f"two-towers evaluate {output} pydocs --method hybrid"), "any model, any collection"),
        (pasteable("two-towers train --dataset FILE"), "your own pairs (JSONL, TSV, Parquet)"),
        ("cd freemvmt && uv run python main.py", "MS MARCO"),
    )
    width = max(len(command) for command, _ in next_steps)
    for number, (command, purpose) in enumerate(next_steps):
        console.line(f"{'' if number else 'next':<6} {command:<{width}}   {purpose}")
    return {
        "model": str(output),
        "seconds": round(seconds, 2),
        "pairs": training.pairs,
        "results": {name: result.as_dict() for name, result in results.items()},
        "hybrid_against_bm25": {"difference": comparison.difference, "p_value": comparison.p_value},
        "searches": answers,
    }


def _verdict(difference: float, p_value: float) -> str:
    if p_value >= 0.05:
        return f"no clear difference from BM25, p = {p_value:.2f}"
    word = "better" if difference > 0 else "worse"
    return f"{word} than BM25, p {'< 0.001' if p_value < 0.001 else f'= {p_value:.3f}'}"


def pydocs_bundle(console: Console) -> Path:
    """The bundle of the docs installed here. It is built if it is missing, and so is its model."""
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.bundle.build import build
    from freemvmt.search.bundle.load import is_bundle
    from freemvmt.training import train_and_save

    bundle, model = Path(BUNDLE), Path(QuickstartOptions().output)
    if is_bundle(bundle):
        return bundle
    console.line(f"there is no {bundle} yet; making it from the docs of the Python packages installed here")
    if not (model / "config.json").exists():
        train_and_save(TrainConfig(dataset=("pydocs",), output=str(model), wandb=False), console)
    build(TwoTowersModel.load(model), "pydocs", bundle, console=console)
    return bundle


def quickstart(argv: Sequence[str]) -> int:
    """Train, measure and search the docs of the Python packages installed here."""
    options = parse(QuickstartOptions, argv, "two-towers quickstart")
    return options.finish(run_quickstart(options, options.console()))
