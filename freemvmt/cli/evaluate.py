"""`two-towers evaluate` and `two-towers compare`: measure models, bundles and runs on a collection."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from freemvmt.cli.parsing import CollectionArgument, Options, parse
from freemvmt.config import DataConfig, Lexical, Method, Protocol, RerankConfig
from freemvmt.errors import UserError
from freemvmt.runtime.console import count_of

if TYPE_CHECKING:
    from freemvmt.data.collection import Collection
    from freemvmt.evaluation.metrics import Result
    from freemvmt.evaluation.reranking import Read
    from freemvmt.evaluation.runs import Run
    from freemvmt.search.retriever import Retriever


@dataclass(frozen=True, kw_only=True)
class CollectionOptions(DataConfig, Options):
    """How a collection is read."""

    split: str = "test"
    """Which split's queries."""
    weight: float | None = None
    """Hybrid: the dense side's share, 0 to 1; None: the model's own, 0.4 to 0.8 by the kinds of the towers."""
    bm25: Lexical = "served"
    """BM25 as bundles are served with it, or as tables of papers have it (Anserini: k1 0.9, b 0.4)."""
    cut: bool = True
    """Cut documents that are longer than the model reads into passages, ranked by the best one (--no-cut: read their
    beginning). A bundle is measured as it was indexed; BM25 alone reads whole documents."""
    ignore_identical_ids: bool | None = None
    """Leave the document with the query's id out of its ranking (--no-ignore-identical-ids: never); None: where it has
    the query's text too, as in ArguAna and Quora."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(RerankConfig, CollectionOptions):
    """Measure a model on a collection: NDCG@10, MRR@10, Recall@100 and @1000 with a 95 % interval."""

    model: Annotated[str, tyro.conf.arg(metavar="MODEL"), tyro.conf.Positional]
    """A model folder, a name on the Hub, `untrained`, or a bundle of the collection, measured as it is served."""
    collection: CollectionArgument
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
    from freemvmt.evaluation.metrics import measure, table
    from freemvmt.evaluation.reranking import rerank_run
    from freemvmt.evaluation.runs import check_run, tag_of, write_run
    from freemvmt.search.reranker import load_reranker
    from freemvmt.storage.outputs import check_output_file

    console = options.console()
    _check_worst(options)
    options.check_rerank()
    _check_model(options.model)
    output = None if options.run is None else check_output_file(options.run, [options.collection, options.model])
    collection = _collection(options)
    if output:
        check_run(collection)
    reranker = load_reranker(options)
    result, run, retriever = _measured(options.model, collection, options.method, options)
    tag = tag_of(Path(options.model)) if _is_file(options.model) else result.method
    answer: dict[str, object] = {}
    if reranker is not None:
        read = _passage_reader(retriever, collection, options)
        reranked = rerank_run(run, collection, reranker, options.depth, read, console)
        run, tag = reranked.run, f"{tag}+rerank"
        result = measure(run, collection, result.method, options.protocol, reranked.note)
        answer["rerank"] = {"model": reranked.model, "depth": reranked.depth, "median_ms": round(reranked.median_ms, 3)}
    notes = _bm25_note(options) + _cut_note(retriever)
    console.line(f"{collection.name}: {count_of(result.queries, 'query', 'queries')}, {result.protocol}{notes}")
    for line in table([result]):
        console.line(line)
    if reranker is not None:
        console.line(f"rerank       {reranked.median_ms:.0f} ms a query (median)")
    if retriever and (passages := retriever.passage_count) > len(retriever):
        answer["passages"] = passages
    answer = {"model": options.model, "bm25": options.bm25, **result.as_dict(), **answer}
    if retriever and reranker is None and (heavy := _heavy_score(retriever, collection, options)):
        share = result.metrics["ndcg@10"] / heavy
        console.line(f"retention    {share:.1%} of the transformer on both sides, dense, {heavy:.4f}")
        answer |= {"transformer_ndcg@10": round(heavy, 6), "retention": round(share, 4)}
    if output:
        write_run(run, output, tag)
        console.line(f"run       {options.run}")
    if options.worst:
        from freemvmt.evaluation import error_analysis as analysis

        bm25 = _measured("bm25", collection, "bm25", options)[:2]
        lost_queries = analysis.lost_queries(
            (result, run), bm25, collection, options.worst, retriever if options.explain else None
        )
        analysis.print_lost_queries(lost_queries, tag, result.queries, console)
        answer["worst"] = [asdict(query) for query in lost_queries]
    return options.finish(answer)


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
    collection: CollectionArgument
    method: Method = "dense"
    """How the two models search."""
    protocol: Protocol = "full"
    """full: over every document. pool: over the passages of the query's own row."""
    metric: Literal["ndcg@10", "mrr@10", "recall@100", "recall@1000"] = "ndcg@10"
    """What is compared."""


def compare(argv: Sequence[str]) -> int:
    """Compare two models on a collection."""
    options = parse(CompareOptions, argv, "two-towers compare")
    from freemvmt.evaluation.metrics import compare as compare_results

    console = options.console()
    for name in (options.model_a, options.model_b):
        _check_model(name)
    collection = _collection(options)
    measured = [_measured(name, collection, options.method, options) for name in (options.model_a, options.model_b)]
    (a, _, retriever_a), (b, _, retriever_b) = measured
    comparison = compare_results(a, b, options.metric)
    queries = count_of(a.queries, "query", "queries")
    console.line(f"{collection.name}: {queries}, {a.protocol}{_bm25_note(options)}; {options.metric}")
    for letter, name, mean, retriever in (
        ("A", options.model_a, comparison.mean_a, retriever_a),
        ("B", options.model_b, comparison.mean_b, retriever_b),
    ):
        console.line(f"  {letter}  {mean:.4f}  {name}{_cut_note(retriever)}")
    interval = "[{:+.4f}, {:+.4f}]  ".format(*comparison.interval) if comparison.interval else ""
    console.line(
        f"  A - B  {comparison.difference:+.4f}  {interval}p = {comparison.p_value:.4f}  "
        f"(A better on {comparison.wins}, B on {comparison.losses}, equal on {comparison.ties})"
    )
    sides = {"a": {"model": options.model_a, **a.as_dict()}, "b": {"model": options.model_b, **b.as_dict()}}
    return options.finish({**sides, "bm25": options.bm25, "comparison": asdict(comparison)})


def _check_model(name: str) -> None:
    """Raise ``UserError`` if there is no such model, before anything is read; also if the method needs no model."""
    from freemvmt.model import UNTRAINED
    from freemvmt.search.bundle.files import is_bundle
    from freemvmt.storage import hub
    from freemvmt.towers.model_folder import read_description
    from freemvmt.towers.static_models import static_folders

    if name in ("bm25", UNTRAINED) or _is_file(name) or is_bundle(Path(name)):
        return
    folder = hub.local_folder(name)
    if folder is None or not static_folders(folder):
        read_description(hub.model_folder(name) / "config.json")


def _collection(options: EvaluateOptions | CompareOptions) -> "Collection":
    from freemvmt.data.load import load_collection

    collection = load_collection(options.collection, options.split, options)
    return collection.ignoring_identical_ids(options.ignore_identical_ids)


def _measured(
    name: str, collection: "Collection", method: Method, options: EvaluateOptions | CompareOptions
) -> "tuple[Result, Run, Retriever | None]":
    """Evaluate the model, bundle, run file or BM25 ``name``; the retriever is None for a run file."""
    from freemvmt.evaluation import metrics as evaluation
    from freemvmt.evaluation import runs as trec
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.bundle.files import is_bundle
    from freemvmt.search.retriever import Retriever

    protocol, weight = options.protocol, options.weight
    if _is_file(name):
        run = trec.without_self_matches(trec.read_run(Path(name), collection), collection)
        return evaluation.measure(run, collection, name, protocol), run, None
    if is_bundle(Path(name)):
        if options.bm25 != "served" and method != "dense":
            raise UserError(
                f"{name} is measured as it is served, and --bm25 {options.bm25} is not; give bm25 or a model"
            )
        retriever = Retriever.load(name)
        return *evaluation.evaluate(retriever, collection, method, protocol, weight), retriever
    if name == "bm25":
        method = "bm25"
    model = None if method == "bm25" else TwoTowersModel.load(name)
    encode = None
    if model is not None and model.config.kind_of("document") == "transformer":  # slow: not twice for one collection
        encode = partial(model.cached_vectors, "document", console=options.console())
    retriever = Retriever(
        model, collection.documents, collection.document_ids, options.bm25, encode, options.cut, collection.titles
    )
    return *evaluation.evaluate(retriever, collection, method, protocol, weight), retriever


def _passage_reader(retriever: "Retriever | None", collection: "Collection", options: EvaluateOptions) -> "Read | None":
    """What reads the best passages of documents that are cut; None where all are whole, or those of a run file."""
    from freemvmt.evaluation.metrics import depth_of

    if retriever is None or retriever.passage_count == len(retriever):
        return None
    depth = depth_of(collection, options.protocol)
    return partial(retriever.contents, k=depth, method=options.method, weight=options.weight)


def _heavy_score(retriever: "Retriever", collection: "Collection", options: EvaluateOptions) -> float | None:
    """NDCG@10 of the transformer on both sides, where only the documents are a transformer's; None elsewhere."""
    import torch

    from freemvmt.evaluation.metrics import ndcg_10
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.index.exact import top_k
    from freemvmt.search.stores.memory import MemoryStore

    model, store = retriever.model, retriever.store
    if not isinstance(model, TwoTowersModel) or not isinstance(store, MemoryStore) or options.protocol == "pool":
        return None
    if not model.config.is_mixed or model.config.kind_of("document") != "transformer":
        return None
    queries = model.cached_vectors("document", collection.queries, options.console())
    return ndcg_10(top_k(queries, torch.as_tensor(store.all_vectors), 10 + bool(collection.self_matches)), collection)


def _cut_note(retriever: "Retriever | None") -> str:
    if retriever is None or (passages := retriever.passage_count) == len(retriever):
        return ""
    return f", documents cut into {count_of(passages, 'passage')}"


def _bm25_note(options: CollectionOptions) -> str:
    return "" if options.bm25 == "served" else ", BM25 as Anserini's"


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # the name is too long for a path
        return False
