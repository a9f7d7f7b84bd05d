"""The tables of docs/light-query.md, and that of aligned towers in docs/recurrent.md."""

from typing import Any

from record import read
from speed_tables import arrow

NAMES = {"average": "average", "recurrent": "GRU, weights and states", "transformer": "transformer"}


def light_table() -> str:
    """NDCG@10 by query tower over a transformer's documents, alone and in hybrid with BM25."""
    result = read("light_query")
    found: dict[str, Any] = result["collections"]
    means = result["mean_of_shown_ndcg@10"]
    head = ["query tower", *found, "mean of the first four"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    bm25 = [one["bm25"]["ndcg@10"] for one in found.values()]
    lines.append(f"| BM25 | {' | '.join(f'{score:.3f}' for score in bm25)} | {sum(bm25[:4]) / 4:.3f} |")
    for method in ("dense", "hybrid"):
        for name, title in _names(result):
            cells = [_cell(one[name][method]) for one in found.values()]
            label = title if method == "dense" else f"{title}, hybrid"
            lines.append(f"| {label} | {' | '.join(cells)} | {means[f'{name}, {method}']:.3f} |")
    seconds = {name: max(recipe["seconds"]) for name, recipe in result["recipes"].items()}
    kept = {
        name: sum(recipe["retention_on_validation"]) / len(recipe["retention_on_validation"])
        for name, recipe in result["recipes"].items()
    }
    trained_on = " and ".join(f"`{part}`" for part in result["trained_on"])
    costs = "; ".join(f"{NAMES[name]} {seconds[name]:.0f} s" for name in seconds)
    return (
        "\n".join(lines)
        + f"\n\nLearned from the queries of {trained_on} alone, mean of {len(result['seeds'])} seeds, full corpus of "
        "each collection. ↑ better and ↓ worse than BM25, \\* better than the average in the same way of searching, "
        f"p < 0.05 in a paired randomisation test. Training, after the transformer's vectors: {costs}. Of the "
        "transformer's NDCG@10 on the validation queries they keep "
        f"{' and '.join(f'{kept[name]:.1%}' for name in kept)}."
        "\nMade by `uv run python benchmarks/light_query.py --data FOLDER --work FOLDER`."
    )


def _names(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What was measured: the name of a query tower in the results, and in the table."""
    measured = next(iter(result["collections"].values()))
    return [(name, title) for name, title in NAMES.items() if name in measured]


def pairs_table() -> str:
    """The pairs of towers that matter, for README: dense and hybrid, on real MS MARCO queries and on the other four."""
    light, equal = read("light_query"), read("quality_qa_msmarco")
    found: dict[str, Any] = light["collections"]
    shown = [name for name in found if not name.startswith("msmarco")]
    columns = ("msmarco-dl19", "msmarco-dev-a")
    lines = [
        f"| NDCG@10, dense / hybrid with BM25 | {' | '.join(columns)} | mean of the other four |",
        "|---" * (len(columns) + 2) + "|",
    ]

    def row(title: str, scores: list[tuple[float, float | None]]) -> str:
        cells = [f"{dense:.3f}" + ("" if hybrid is None else f" / {hybrid:.3f}") for dense, hybrid in scores]
        return f"| {title} | {' | '.join(cells)} |"

    def of(source: dict[str, Any], dense: Any, hybrid: Any) -> list[tuple[float, float | None]]:
        pairs = {name: (dense(one), hybrid(one)) for name, one in source.items()}
        means = [sum(pairs[name][side] for name in shown) / len(shown) for side in (0, 1)]
        return [*(pairs[name] for name in columns), (means[0], means[1])]

    bm25 = of(found, lambda one: one["bm25"]["ndcg@10"], lambda one: one["bm25"]["ndcg@10"])
    lines.append(row("BM25", [(dense, None) for dense, _ in bm25]))
    both = of(equal["collections"], lambda one: one["dense"]["ndcg@10"], lambda one: one["hybrid"]["ndcg@10"])
    lines.append(row("average queries, average documents (the default)", both))
    titles = {
        "average": "**average queries, transformer documents**",
        "recurrent": "GRU queries, transformer documents",
        "transformer": "the transformer on both sides",
    }
    for name, title in titles.items():
        if name not in next(iter(found.values())):
            continue
        scores = of(
            found,
            lambda one, name=name: one[name]["dense"]["ndcg@10"],
            lambda one, name=name: one[name]["hybrid"]["ndcg@10"],
        )
        lines.append(row(title, scores))
    return "\n".join(lines)


def query_cost_table() -> str:
    """Microseconds that it takes to encode a query."""
    result = read("query_cost")
    lines = ["| a query is encoded by | median, µs | 99 % below, µs | times as long |", "|---|---|---|---|"]
    for name, found in result["ways"].items():
        lines.append(f"| {name} | {found['p50']:,.0f} | {found['p99']:,.0f} | {found['times_as_long']:,.1f} |")
    queries = result["protocol"].partition("; ")[2].partition("; ")[0]
    return (
        "\n".join(lines) + f"\n\n{queries.capitalize()}; one core of {result['machine']['processor']}, tokenizing "
        "included.\nMade by `uv run python benchmarks/query_cost.py`."
    )


def document_encoder_table() -> str:
    """Passages a second of a transformer on a CPU."""
    result = read("document_encoder")
    lines = ["| documents are encoded by | passages/s | ratio (range) | least cosine |", "|---|---|---|---|"]
    for name, found in result["ways"].items():
        low, high = found["range"]
        lines.append(
            f"| {name} | {found['passages_per_second']:.1f} | {found['ratio']:.2f} ({low:.2f} to {high:.2f}) | "
            f"{found['least_cosine']:.4f} |"
        )
    roofline = result["roofline"]
    return (
        "\n".join(lines)
        + f"\n\n{result['protocol'].capitalize()}, {roofline['tokens_a_passage']:.0f} tokens a passage, "
        f"{result['machine']['cores']} cores of {result['machine']['processor']}. The products alone would take the "
        f"time of {roofline['passages_per_second']:.0f} passages/s, at the {roofline['gflops']:.0f} GFLOP/s of one "
        "large product here."
        "\nMade by `uv run python benchmarks/document_encoder.py --data FOLDER`."
    )


def light_variants_table() -> str:
    """NDCG@10 of what was tried beside alignment alone."""
    result = read("light_query_variants")
    lines = ["| average query tower | same sources | slice | seconds |", "|---|---|---|---|"]
    base = result["variants"]["alignment"]
    for name, found in result["variants"].items():
        same, other = found["mean"]
        changes = "" if found is base else f" ({same - base['mean'][0]:+.3f})", f" ({other - base['mean'][1]:+.3f})"
        cells = [f"{same:.3f}{changes[0]}", f"{other:.3f}{changes[1] if found is not base else ''}"]
        lines.append(f"| {name} | {' | '.join(cells)} | {found['seconds']:.0f} |")
    same, other = result["transformer"]
    lines.append(f"| the transformer on both sides | {same:.3f} | {other:.3f} | |")
    spread = max(max(scores) - min(scores) for scores in (base["same_sources"], base["other_domain"]))
    return (
        "\n".join(lines)
        + f"\n\nMean of {len(result['seeds'])} seeds; those of the alignment alone differ by up to {spread:.3f}. *Same "
        "sources* is the mean of `qa` without the three and of `msmarco`."
        "\nMade by `uv run python benchmarks/light_query_variants.py --data FOLDER`."
    )


def aligned_table() -> str:
    """NDCG@10 of two light towers that learned the transformer's vectors."""
    result = read("aligned")
    found: dict[str, Any] = result["collections"]
    means = result["mean_of_shown_ndcg@10"]
    head = ["NDCG@10", *found, "mean of the first four", "passages/s"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    bm25 = [one["bm25"]["ndcg@10"] for one in found.values()]
    lines.append(f"| BM25 | {' | '.join(f'{score:.3f}' for score in bm25)} | {sum(bm25[:4]) / 4:.3f} | |")
    for method in ("dense", "hybrid"):
        for name, recipe in result["recipes"].items():
            cells = [_cell(one[name][method]) for one in found.values()]
            label = name if method == "dense" else f"{name}, hybrid"
            rate = f"{recipe['passages_per_second']:,}" if method == "dense" else ""
            lines.append(f"| {label} | {' | '.join(cells)} | {means[f'{name}, {method}']:.3f} | {rate} |")
    seconds = "; ".join(f"{name} {max(recipe['seconds']):.0f} s" for name, recipe in result["recipes"].items())
    texts = result["protocol"].rpartition("trained on ")[2].capitalize()
    return (
        "\n".join(lines) + f"\n\n{texts}; mean of {len(result['seeds'])} seeds, full "
        "corpus of each collection. ↑ better and ↓ worse than BM25, \\* better than the average in the same way of "
        f"searching, p < 0.05 in a paired randomisation test. Training, after the transformer's vectors: {seconds}."
        "\nMade by `uv run python benchmarks/aligned.py --data FOLDER --work FOLDER`."
    )


def _cell(found: dict[str, Any]) -> str:
    test = found.get("minus_average")
    star = "\\*" if test and test["p_value"] < 0.05 and test["difference"] > 0 else ""
    return f"{found['ndcg@10']:.3f}{star}{arrow(found.get('minus_bm25'))}"
