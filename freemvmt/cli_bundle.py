"""The verbs of `two-towers` that make, ask, change and serve a bundle."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from freemvmt.config import HYBRID_WEIGHT, Method
from freemvmt.extras import needed
from freemvmt.server.settings import ServeSettings
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
    kind: Literal["auto", "exact", "pq", "hnsw"] = "auto"
    """How vectors are searched. exact: all of them. pq: a sketch of all. hnsw: a graph. auto: by size."""
    quantize: bool = False
    """Keep vectors in 8 bits a dimension, a quarter of the size."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


def index(argv: Sequence[str]) -> int:
    """Index a corpus with a model into a bundle."""
    options = parse(IndexOptions, argv, "two-towers index")
    from freemvmt.console import Console
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.bundle import check_output
    from freemvmt.search.indexing import build

    console = Console(stderr=options.json)
    output = Path(options.output)
    check_output(output)
    clock = time.perf_counter()
    kind = None if options.kind == "auto" else options.kind
    manifest = build(
        TwoTowersModel.load(options.model),
        options.corpus,
        output,
        kind=kind,
        quantize=options.quantize,
        console=console,
    )
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    console.line(f"saved     {output} ({size / 1e6:,.0f} MB)", time.perf_counter() - clock)
    console.line(f'next      two-towers search {output} "your question"')
    console.line(f"          two-towers serve {output}")
    shown = {key: value for key, value in manifest.items() if key != "files"}
    report(options.json, {"output": str(output), "bytes": size, **shown})
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
    """Keep documents by metadata: field=value, field>=value, field<value, field='["a", "b"]'."""
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
    from freemvmt.search.documents import read_corpus
    from freemvmt.search.retriever import Retriever

    console = Console(stderr=options.json)
    documents = list(read_corpus(options.corpus))
    retriever = Retriever.load(options.bundle)
    clock = time.perf_counter()
    done = retriever.add(documents)
    console.line(
        f"added     {counted(done.added, 'document')}, replaced {done.replaced:,}; "
        f"{len(retriever):,} in {options.bundle}",
        time.perf_counter() - clock,
    )
    report(options.json, {"added": done.added, "replaced": done.replaced, "documents": len(retriever)})
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


@dataclass(frozen=True, kw_only=True)
class ServeOptions(ServeSettings):
    """Serve a bundle over HTTP, with a search page. Writing needs the token in TWO_TOWERS_TOKEN off loopback."""

    bundle: Annotated[str | None, tyro.conf.arg(metavar="[BUNDLE]"), tyro.conf.Positional] = None
    """A folder that `index` wrote; none: the docs of the Python packages installed here."""


def serve(argv: Sequence[str]) -> int:
    """Serve a bundle over HTTP, with a search page; with no bundle, the docs installed here."""
    options = parse(ServeOptions, argv, "two-towers serve")
    options.check_exposure()
    for library in ("faiss", "tantivy", "fastapi", "uvicorn", "prometheus_client"):
        needed(library)
    from freemvmt.console import Console
    from freemvmt.quickstart import pydocs_bundle
    from freemvmt.server.run import serve as run_server

    console = Console()
    bundle = pydocs_bundle(console) if options.bundle is None else Path(options.bundle)
    return run_server(bundle, options, console)
