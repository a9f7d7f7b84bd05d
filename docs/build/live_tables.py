"""Tables on a live corpus and its server, from results/engines.json and results/serving.json."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import read

Row = Callable[[dict[str, Any]], str]

PACKAGE = Path(__file__).parents[2] / "freemvmt" / "search"
# By engine, the code of the package that stands on it, with all that a bundle needs of it and a benchmark does not.
SHIPPED = {
    "faiss+tantivy": ("stores/local", "stores/texts.py", "stores/arrays.py", "index/dense.py", "index/lexical.py"),
    "milvus-lite": ("stores/milvus", "bundle/milvus.py"),
}


def _lines(*parts: str) -> int:
    """Lines that are not empty, of files and of folders."""
    files = [file for part in parts for file in sorted((PACKAGE / part).rglob("*.py")) or [PACKAGE / part]]
    return sum(bool(line.strip()) for file in files for line in file.read_text(encoding="utf-8").splitlines())


def engine_table() -> str:
    """Engines as columns, what was measured as rows."""
    result = read("engines")
    engines: dict[str, dict[str, Any]] = {name: {**found, "name": name} for name, found in result["engines"].items()}
    stores = {name: _lines(*parts) for name, parts in SHIPPED.items()}
    rows: dict[str, Row] = {}
    for depth in (1000, 100):
        measure = f"hybrid_{depth}"
        rows[f"**hybrid, depth {depth}**: p50 / p95 / p99, ms"] = lambda found, at=measure: _latency(found, at)
        best = min(found["latency_ms"][measure]["p50"] for found in engines.values() if found.get("latency_ms"))
        rows[f"p50, times the fastest, depth {depth}"] = lambda found, at=measure, best=best: (
            f"{found['latency_ms'][at]['p50'] / best:.1f}"
        )
        rows[f"vectors alone, depth {depth}"] = lambda found, depth=depth: _latency(found, f"dense_{depth}")
        rows[f"BM25 alone, depth {depth}"] = lambda found, depth=depth: _latency(found, f"bm25_{depth}")
    rows["recall@10 against exact, depth 100; 1000"] = lambda found: "; ".join(
        f"{at['recall@10']:.3f}" for at in found["recall"].values()
    )
    for name, score in result["bm25s_ndcg@10"].items():
        rows[f"NDCG@10 of its BM25, {name} (bm25s {score:.3f})"] = lambda found, name=name: (
            f"{found['bm25_ndcg@10'][name]:.3f}"
        )
    for part, title in (("dense", "vectors"), ("bm25", "BM25")):
        rows[f"filters, {title}: wrong; fewer than there are; not the best, of pairs"] = lambda found, part=part: (
            "{wrong}; {short}; {other} of {pairs}".format(**found["filters"][part])
        )
    rows["an added document is found after: p50 (slowest), s"] = lambda found: _spread(found["live"]["add_found"])
    rows["a deleted one is gone after"] = lambda found: _spread(found["live"]["delete_gone"])
    rows["50 are added: `add` returns after, s"] = lambda found: f"{found['grown']['batch_p50_seconds']:.3f}"
    rows["hybrid, depth 1000, once 1,000 were added: p50, ms"] = lambda found: (
        f"{found['latency_ms_grown']['hybrid_1000']['p50']:.1f}"
    )
    rows["build, s; disk, MB"] = lambda found: f"{found['build_seconds']:.0f}; {found['disk_mb']:.0f}"
    rows["`kill -9`: acknowledged and missing; batches half there; did not open, of kills"] = lambda found: (
        "{missing} of {acknowledged:,}; {half_written_batches}; {did_not_open} of {kills}".format(**found["kill_9"])
    )
    rows["lines of the adapter that was measured"] = lambda found: str(found["adapter_lines"])
    rows["lines of the store that ships"] = lambda found: (
        f"{stores[found['name']]:,}" if found["name"] in stores else ""
    )
    versions = result["versions"]
    names = ("lancedb", "milvus-lite", "faiss-cpu", "tantivy", "bm25s")
    head = f"| {result['documents']:,} documents | {' | '.join(engines)} |\n" + "|---" * (len(engines) + 1) + "|\n"
    quick = " **A quick look on a busy machine, no figures to quote.**" if result["quick"] else ""
    return (
        head
        + "\n".join(_line(title, make, engines) for title, make in rows.items())
        + f"\n\n{result['machine']['cores']} cores, {result['dim']} dimensions; encoding the query "
        f"({result['encode_query_p50_ms']:.2f} ms) not counted; a p99 needs 100 queries. "
        + ", ".join(f"{name} {versions[name]}" for name in names)
        + f".{quick}\nMade by `uv run --group bench python benchmarks/engines.py --data FOLDER --model MODEL`."
    )


def serving_table() -> str:
    """Targets as rows; queries a second, p50 and p99 by the number of clients."""
    result = read("serving")
    targets: dict[str, dict[str, Any]] = result["targets"]
    counts = list(next(iter(targets.values()))["clients"])
    head = ["queries a second, p50 / p99 ms", "documents", *(f"{count} clients" for count in counts)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, found in targets.items():
        documents = f"{found['documents']:,}" if "documents" in found else ""
        cells = [name, documents, *(_load(found["clients"][count]) for count in counts)]
        lines.append(f"| {' | '.join(cells)} |")
    errors = sum(sum(at["errors"].values()) for found in targets.values() for at in found["clients"].values())
    quick = " **A quick look on a busy machine, no figures to quote.**" if result["quick"] else ""
    cores = result["machine"]["cores"]
    parts = ["\n".join(lines), f"{cores} cores, the generator on them too; errors: {errors}.{quick}"]
    if soak := result.get("soak"):
        memory, written = soak["memory_mb"], soak["written"]
        parts.append(
            f"{soak['clients']} clients for {soak['seconds']:.0f} s while {written['added']:,} documents came and "
            f"{written['deleted']:,} went: {soak['answers']:,} answers, {sum(soak['errors'].values())} errors; memory "
            f"{memory['start']:.0f} MB at first, {memory['end']:.0f} MB at the end, "
            f"{soak['memory_mb_a_minute_in_the_second_half']:+.1f} MB a minute in the second half."
        )
    parts.append("Made by `uv run --group bench python benchmarks/serving.py --data FOLDER --bundles BUNDLE BUNDLE`.")
    return "\n\n".join(parts)


def _load(found: dict[str, Any]) -> str:
    return f"{found['qps']:,.0f}, {found['p50_ms']:.1f} / {found['p99_ms']:.1f}" if found["answers"] else "failed"


def _line(title: str, make: Row, engines: dict[str, dict[str, Any]]) -> str:
    cells = []
    for found in engines.values():
        try:
            cells.append(make(found))
        except (KeyError, TypeError):  # an engine failed before it came to this
            cells.append("failed")
    return f"| {title} | {' | '.join(cells)} |"


def _latency(found: dict[str, Any], measure: str) -> str:
    at = found["latency_ms"][measure]
    return " / ".join(f"{at[share]:.1f}" if share in at else "–" for share in ("p50", "p95", "p99"))


def _spread(found: dict[str, float]) -> str:
    return f"{found['p50']:.3f} ({found['max']:.3f})"


def filters_table() -> str:
    """Milliseconds of opening the metadata and of each filter, ours and SQLite's, by the number of documents."""
    sizes: dict[str, dict[str, Any]] = read("filters")["sizes"]
    head = "| ms, ours / SQLite | " + " | ".join(f"{int(size):,} documents" for size in sizes) + " |\n"
    lines = []
    for name in next(iter(sizes.values())):
        if name != "bytes":
            cells = (
                " / ".join(f"{1000 * found[name][way]['seconds']:.1f}" for way in ("columns", "SQLite"))
                for found in sizes.values()
            )
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return head + "|---" * (len(sizes) + 1) + "|\n" + "\n".join(lines) + "\n\nMade by `benchmarks/filters.py`."
