"""The verbs of `two-towers` that make, ask and change a bundle."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from freemvmt.config import HYBRID_WEIGHT, Method
from freemvmt.shell import counted, cut, parse, report

if TYPE_CHECKING:
    from freemvmt.search.retriever import Hit

BundleArgument = Annotated[str, tyro.conf.arg(metavar="BUNDLE"), tyro.conf.Positional]


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """Index a corpus with a model into a bundle, which is searched, served and moved as one folder."""

    model: Annotated[str, tyro.conf.arg(metavar="MODEL"), tyro.conf.Positional]
    """A model folder, a name on the Hub, or `untrained`."""
    corpus: Annotated[str, tyro.conf.arg(metavar="CORPUS"), tyro.conf.Positional]
    """A BEIR folder, a file of JSONL, TSV or Parquet, or pydocs."""
    output: str
    """Folder for the bundle; a bundle that is there is replaced when the new one is ready."""
    kind: Literal["auto", "exact", "pq", "ivf", "binary", "hnsw"] = "auto"
    """How vectors are searched. exact: all of them. pq, binary: a sketch of all, of 2 or 1 bit a dimension, then the
    best of it. ivf: the sketches of the nearest cells. hnsw: a graph. auto: by size."""
    quantize: Literal["fp32", "fp16", "int8"] = "fp32"
    """What a dimension of a vector is kept in: 4, 2 or 1 byte."""
    dim: int | None = None
    """Keep so many dimensions of the model's vectors; None: all."""
    store: str | None = None
    """Put the documents into Milvus: `milvus://host:port/collection`, or a file FILE.db for the one within; None: into
    files of the bundle."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


def index(argv: Sequence[str]) -> int:
    """Index a corpus with a model into a bundle."""
    options = parse(IndexOptions, argv, "two-towers index")
    from freemvmt.console import Console
    from freemvmt.errors import UserError
    from freemvmt.files import size_of
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.bundle import check_output
    from freemvmt.search.indexing import build

    console = Console(stderr=options.json)
    output = Path(options.output)
    check_output(output, [options.corpus])
    if options.dim is not None and options.dim < 1:
        raise UserError(f"--dim is {options.dim}; give 1 or more")
    clock = time.perf_counter()
    kind = None if options.kind == "auto" else options.kind
    manifest = build(
        TwoTowersModel.load(options.model),
        options.corpus,
        output,
        kind=kind,
        stored=options.quantize,
        dim=options.dim,
        store=options.store,
        console=console,
    )
    size = size_of(output)
    console.line(f"saved     {output} ({size / 1e6:,.0f} MB)", time.perf_counter() - clock)
    console.line(f'next      two-towers search {output} "your question"')
    console.line(f"          two-towers serve {output}")
    shown = {key: value for key, value in manifest.items() if key != "files"}
    report(options.json, {"output": str(output), "bytes": size, **shown})
    return 0


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """Write the vectors of a corpus as Parquet shards, which any engine reads; a run that was stopped goes on."""

    model: Annotated[str, tyro.conf.arg(metavar="MODEL"), tyro.conf.Positional]
    """A model folder, a name on the Hub, or `untrained`."""
    corpus: Annotated[str, tyro.conf.arg(metavar="CORPUS"), tyro.conf.Positional]
    """A BEIR folder, a file of JSONL, TSV or Parquet, or pydocs."""
    output: str
    """Folder for the shards and their manifest."""
    side: Literal["documents", "queries"] = "documents"
    """Which tower encodes."""
    stored: Literal["fp32", "fp16"] = "fp32"
    """What a dimension is kept in."""
    shard: int = 100_000
    """Documents a file."""
    engine: Literal["local", "ray"] = "local"
    """Who encodes: this process, or Ray Data, on this machine or a cluster (Ray listens on every interface)."""
    ray_address: str | None = None
    """ray: the cluster's address, all of which sees MODEL and the output; None: started on this machine."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


def encode(argv: Sequence[str]) -> int:
    """Write the vectors of a corpus as Parquet shards."""
    options = parse(EncodeOptions, argv, "two-towers encode")
    from freemvmt.console import Console
    from freemvmt.errors import UserError
    from freemvmt.model import TwoTowersModel
    from freemvmt.search import encoding

    if options.shard < 1:
        raise UserError(f"--shard is {options.shard}; give 1 or more")
    console, output = Console(stderr=options.json), Path(options.output)
    encoding.check_output(output, options.corpus)
    clock = time.perf_counter()
    model = TwoTowersModel.load(options.model)
    engine = None
    if options.engine == "ray":
        from freemvmt.search.ray_engine import on_ray

        engine = on_ray(model, options.model, output, options.side, options.stored, options.ray_address)
    elif options.ray_address is not None:
        raise UserError("--ray-address is for --engine ray; add it, or leave the address out")
    manifest = encoding.encode(
        model,
        options.corpus,
        output,
        side=options.side,
        stored=options.stored,
        shard=options.shard,
        engine=engine,
        console=console,
    )
    console.line(f"saved     {output}", time.perf_counter() - clock)
    report(options.json, {"output": str(output), **{key: manifest[key] for key in manifest if key != "files"}})
    return 0


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Search a bundle."""

    bundle: BundleArgument
    """A folder that `index` wrote."""
    query: Annotated[str, tyro.conf.arg(metavar="QUERY"), tyro.conf.Positional]
    """What to look for."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    """How many documents."""
    method: Method = "hybrid"
    """dense: the towers. bm25: words. hybrid: both."""
    weight: float = HYBRID_WEIGHT
    """Hybrid: the dense side's share, 0 to 1."""
    filter: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Keep documents by metadata: field=value, field>=value, field<value, field='["a", "b"]' (any of them). A list in a
    document is met by one of its members; text compares without case, in the order of its characters (ISO dates)."""
    explain: bool = False
    """Show how much each word adds to the cosine with the query."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


def search(argv: Sequence[str]) -> int:
    """Search a bundle."""
    options = parse(SearchOptions, argv, "two-towers search")
    from freemvmt.console import Console
    from freemvmt.search.fields import parse_filters
    from freemvmt.search.retriever import Retriever

    console = Console(stderr=options.json)
    retriever = Retriever.load(options.bundle)
    conditions = parse_filters(options.filter, retriever.fields)
    clock = time.perf_counter()
    hits = retriever.search(options.query, options.k, options.method, options.weight, conditions or None)
    took = (time.perf_counter() - clock) * 1000
    found: list[dict[str, Any]] = []
    for rank, hit in enumerate(hits, start=1):
        console.line(f"{rank:>3}  {hit.score:.3f}  {_headline(hit)}")
        found.append(asdict(hit))
        if options.explain:
            explanation = retriever.explain(options.query, hit.id)
            console.line(f"            cosine {explanation.score:.3f}")
            console.shares([(piece.text, piece.share) for piece in (*explanation.title, *explanation.text)], 12)
            found[-1]["explanation"] = asdict(explanation)
    sort = f"{options.method}, {len(retriever):,} documents"
    console.line(f"     {sort}, {took:.1f} ms" if hits else f"     nothing found ({sort})")
    report(options.json, {"query": options.query, "method": options.method, "took_ms": round(took, 3), "hits": found})
    return 0


def _headline(hit: "Hit") -> str:
    """A hit on a line: its title, or else its id, and the beginning of its text."""
    name = hit.title or hit.id
    start = " ".join(hit.text.split())
    return f"{cut(name, 40):<40}  {cut(start.removeprefix(name).strip(), 60)}".rstrip()


@dataclass(frozen=True, kw_only=True)
class AddOptions:
    """Add documents to a bundle, or replace those with the same ids; they are found at once."""

    bundle: BundleArgument
    """A folder that `index` wrote."""
    corpus: Annotated[str, tyro.conf.arg(metavar="FILE"), tyro.conf.Positional]
    """Documents, in any form that `index` reads."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


def add(argv: Sequence[str]) -> int:
    """Add documents to a bundle, without indexing it again."""
    options = parse(AddOptions, argv, "two-towers add")
    from freemvmt.console import Console
    from freemvmt.search.corpora import read_distinct
    from freemvmt.search.fields import unseen_note
    from freemvmt.search.retriever import Retriever

    console = Console(stderr=options.json)
    documents = read_distinct(options.corpus)
    retriever = Retriever.load(options.bundle)
    clock = time.perf_counter()
    done = retriever.add(documents)
    console.line(
        f"added     {counted(done.added, 'document')}, replaced {done.replaced:,}; "
        f"{len(retriever):,} in {options.bundle}",
        time.perf_counter() - clock,
    )
    if done.unseen:
        console.line(f"note      {unseen_note(done.unseen)}")
    report(
        options.json,
        {"added": done.added, "replaced": done.replaced, "documents": len(retriever), "unseen": done.unseen},
    )
    return 0


@dataclass(frozen=True, kw_only=True)
class DeleteOptions:
    """Delete documents from a bundle by their ids."""

    bundle: BundleArgument
    """A folder that `index` wrote."""
    ids: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ID"), tyro.conf.Positional]
    """Ids of documents."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


def delete(argv: Sequence[str]) -> int:
    """Delete documents from a bundle."""
    options = parse(DeleteOptions, argv, "two-towers delete")
    from freemvmt.console import Console
    from freemvmt.errors import UserError
    from freemvmt.search.retriever import Retriever

    console = Console(stderr=options.json)
    if not options.ids:
        raise UserError("no id is given; name the documents to delete")
    retriever = Retriever.load(options.bundle)
    gone = retriever.delete(options.ids)
    missing = [name for name in dict.fromkeys(options.ids) if name not in gone]
    console.line(f"deleted   {counted(len(gone), 'document')}; {len(retriever):,} left in {options.bundle}")
    if missing:
        console.line(f"          not there: {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}")
    report(options.json, {"deleted": gone, "missing": missing, "documents": len(retriever)})
    return 0
