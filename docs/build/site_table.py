"""The table of docs/site.md, from results/site.json."""

from collections.abc import Callable
from typing import Any

from record import read

Site = dict[str, Any]
_VECTORS = ("documents", "table", "tokenizer")


def site_quality_table() -> str:
    """NDCG@10 of a site over a transformer's documents, beside the served bundle."""
    result = read("site_quality")
    lines = ["| | MB | BM25 | dense | hybrid | share of the ten best kept |", "|---|---|---|---|---|---|"]
    for name, found in {"served": result["served"], **result["sites"]}.items():
        cells = [f"{found[method]['ndcg@10']:.3f}" for method in ("bm25", "dense", "hybrid")]
        if name == "served":
            lines.append(f"| served | | {' | '.join(cells)} | |")
        else:
            share = f"{found['recall@10']:.1%}"
            lines.append(f"| site, {name} dimensions | {found['mb']:.0f} | {' | '.join(cells)} | {share} |")
    return "\n".join(lines) + f"\n\nNDCG@10, {result['queries']} queries, {result['documents']:,} documents."


def first_hit_table() -> str:
    """What a site fetches before its first hit, from a host that does not compress and from one that does."""
    result = read("site_first_hit")
    lines = ["| | median | most |", "|---|---|---|"]
    for name, site in result["sites"].items():
        title = f"{name}, {site['passages']:,} passages"
        for kind, what in (("kb", "KB"), ("kb_gzip", "KB, host with gzip"), ("requests", "requests")):
            lines.append(f"| {title}: {what} | {site[kind]['p50']:.0f} | {site[kind]['most']:.0f} |")
    return (
        "\n".join(lines) + f"\n\n{result['queries']} real queries, each in a fresh profile, ten hits; Chromium "
        f"{result['chromium'].split('.')[0]}, headless.\n"
        "Made by `uv run python benchmarks/browser_site.py --data FOLDER --bundles msmarco-dl19 --first-hit`."
    )


def site_table() -> str:
    """Sites as columns, what was measured as rows."""
    result = read("site")
    sites: dict[str, Site] = {name.removeprefix("b_"): site for name, site in result["sites"].items()}
    rows: dict[str, Callable[[Site], str]] = {
        f"whole site, {result['dim']} dimensions, MB": lambda site: f"{site['mb']:.1f}",
        "of which vectors and tokenizer, MB": lambda site: f"{_megabytes(site, *_VECTORS):.1f}",
        "first search after the load event, five fresh profiles, ms": lambda site: (
            f"{min(site['first_search_ms']):.0f} to {max(site['first_search_ms']):.0f}"
        ),
        "next search, ranked, ms, p50 / p99": lambda site: _milliseconds(site["ranked_ms"]),
        "with its passages fetched and words explained": lambda site: _milliseconds(site["answered_ms"]),
        "the same once the passages are there": lambda site: _milliseconds(site["answered_again_ms"]),
        "MiniSearch, words alone, ranked, ms, p50 / p99": lambda site: _milliseconds(site["minisearch"]["ranked_ms"]),
        "its index, gzip, beside our words and postings, MB": lambda site: (
            f"{site['minisearch']['index_mb_gzip']:.1f} beside {_megabytes(site, 'words', 'postings'):.1f}"
        ),
        "top 10 equal to the server's over the same numbers: dense, BM25, hybrid": lambda site: ", ".join(
            f"{found['equal']} of {found['queries']}" for found in site["equal_top_10"].values()
        ),
        "of the ten best by whole float32 vectors, in the site's ten": lambda site: f"{site['recall@10']:.1%}",
    }
    heads = [f"{name}, {site['documents']:,} documents" for name, site in sites.items()]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    lines += [f"| {title} | {' | '.join(map(make, sites.values()))} |" for title, make in rows.items()]
    tokens = result["tokens"]
    different, texts = (sum(found[part] for found in tokens.values()) for part in ("different", "texts"))
    return (
        "\n".join(lines) + f"\n\nToken ids: {different} of {texts:,} texts differ ({', '.join(tokens)}; "
        "of `msmarco` and `qa` the first 30,000 distinct texts).\n"
        f"Untrained towers; Chromium {result['chromium'].split('.')[0]}, headless; "
        f"{result['machine']['cores']} cores.\n"
        "Made by `uv run python benchmarks/browser_site.py --data FOLDER --bundles pydocs msmarco-dl19 "
        "--minisearch FOLDER --texts 30000`."
    )


def _megabytes(site: Site, *parts: str) -> float:
    return float(sum(site["mb_of"][part] for part in parts))


def _milliseconds(found: dict[str, float]) -> str:
    return f"{found['p50']:.1f} / {found['p99']:.0f}"
