"""`two-towers search`: search a bundle from the command line."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import tyro

from freemvmt.cli.parsing import BundleArgument, Options, parse
from freemvmt.config import Method, RerankConfig
from freemvmt.errors import UserError
from freemvmt.runtime.console import count_of, shorten
from freemvmt.runtime.garbage import no_collection, no_collection_at_exit

if TYPE_CHECKING:
    from freemvmt.search.retriever import Hit, Retriever


@dataclass(frozen=True, kw_only=True)
class SearchOptions(RerankConfig, Options):
    """Search a bundle."""

    # Of ``float | None`` and ``tuple[str, ...]`` tyro would import typeguard, a fifth of the time to the first answer.
    bundle: BundleArgument
    query: Annotated[str, tyro.conf.arg(metavar="QUERY"), tyro.conf.Positional]
    """What to look for."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    """How many documents."""
    method: Method = "hybrid"
    """dense: the towers. bm25: words. hybrid: both."""
    weight: Optional[float] = None  # noqa: UP045
    """Hybrid: the dense side's share, 0 to 1; None: the model's own, 0.4 to 0.8 by the kinds of the towers."""
    filter: tyro.conf.UseAppendAction[tuple] = ()  # type: ignore[type-arg]
    """Keep documents by metadata: field=value, field>=value, field<value, field='["a", "b"]' (any of them). A list in a
    document is met by one of its members; text compares without case, in the order of its characters (ISO dates)."""
    passages: bool = False
    """Find passages: several of one long document, if they are the best."""
    explain: bool = False
    """Show how much each word adds to the cosine with the query."""


def search(argv: Sequence[str]) -> int:
    """Search a bundle."""
    options = parse(SearchOptions, argv, "two-towers search")
    options.check_rerank()
    if not options.query.strip():  # towers have a vector for it, and every document is equally near
        raise UserError("the query is blank; give the words to look for")
    no_collection_at_exit()
    console = options.console()
    retriever = _load(options)
    from freemvmt.search.hits import hit_fields
    from freemvmt.search.stores.filters import parse_filters

    conditions = parse_filters(options.filter, retriever.fields)
    clock = time.perf_counter()
    hits = retriever.search(
        options.query, options.k, options.method, options.weight, conditions or None, options.passages,
        options.depth if retriever.reranker else 0,
    )  # fmt: skip
    milliseconds = (time.perf_counter() - clock) * 1000
    results: list[dict[str, Any]] = []
    for rank, hit in enumerate(hits, start=1):
        console.line(f"{rank:>3}  {hit.score:.3f}  {_headline(hit)}")
        results.append(hit_fields(hit))
        if hit.place is not None:
            console.line(f"            {hit.place}")
        if options.explain:
            explanation = retriever.explain(options.query, hit.id, None if hit.place is None else hit.place.start)
            console.line(f"            cosine {explanation.score:.3f}")
            for pieces in ((*explanation.title, *explanation.text), explanation.query):
                if any(piece.share for piece in pieces):
                    console.shares([(piece.text, piece.share) for piece in pieces], 12)
            results[-1]["explanation"] = asdict(explanation)
    again = f", reranked by {retriever.reranker.name}" if retriever.reranker else ""
    summary = f"{options.method}{again}, {count_of(len(retriever), 'document')}"
    console.line(f"     {summary}, {milliseconds:.1f} ms" if hits else f"     nothing found ({summary})")
    return options.finish(
        {"query": options.query, "method": options.method, "took_ms": round(milliseconds, 3), "hits": results}
    )


def _load(options: SearchOptions) -> "Retriever":
    """The retriever over the bundle; its files are compared with their checksums while the libraries are imported."""
    from freemvmt.search.bundle.files import FileCheck

    with no_collection():
        check = FileCheck(Path(options.bundle))
        from freemvmt.search.retriever import Retriever

        retriever = Retriever.load(options.bundle, verify=check)
        if options.rerank is not None:
            from freemvmt.search.reranker import load_reranker

            retriever.reranker = load_reranker(options)
    return retriever


def _headline(hit: "Hit") -> str:
    """One line for a hit: its title (or its id, without a title) and the beginning of its text."""
    name = hit.title or hit.id
    beginning = " ".join(hit.text.split())
    return f"{shorten(name, 40):<40}  {shorten(beginning.removeprefix(name).strip(), 60)}".rstrip()
