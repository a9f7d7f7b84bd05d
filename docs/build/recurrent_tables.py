"""The tables of docs/recurrent.md, and those of docs/quality.md that its towers made."""

from typing import Any

from record import read
from speed_tables import arrow


def recurrent_table() -> str:
    """NDCG@10 by tower and method, and what each tower costs."""
    result = read("recurrent")
    collections: dict[str, Any] = result["collections"]
    means = result["mean_of_shown_ndcg@10"]
    names = list(result["recipes"])
    titles = [f"{name} test" if name == "qa" else name for name in collections]
    lines = [f"| NDCG@10 | {' | '.join(titles)} | mean of the first four |", "|---" * (len(titles) + 2) + "|"]
    bm25 = [found["bm25"]["ndcg@10"] for found in collections.values()]
    lines.append(f"| BM25 | {' | '.join(f'{score:.3f}' for score in bm25)} | {sum(bm25[:4]) / 4:.3f} |")
    for method in ("dense", "hybrid"):
        for name in names:
            cells = [_cell(found[name][method]) for found in collections.values()]
            title = name if method == "dense" else f"{name}, hybrid"
            lines.append(f"| {title} | {' | '.join(cells)} | {means[f'{name}, {method}']:.3f} |")
    costs = [
        f"{name} {recipe['parameters'] / 1e6:.1f} M parameters, {sum(recipe['seconds']) / len(recipe['seconds']):.0f} s"
        for name, recipe in result["recipes"].items()
    ]
    trained = " and ".join(f"`{part}`" for part in result["trained_on"])
    return (
        "\n".join(lines)
        + f"\n\nTrained on {trained}, mean of {len(result['seeds'])} seeds, full corpus of each collection. ↑ better "
        "and ↓ worse than BM25, \\* better than the average in the same way of searching, p < 0.05 in a paired "
        f"randomisation test. Training, without the teacher's vectors: {'; '.join(costs)} on "
        f"{result['machine']['cores']} cores.\n"
        "Made by `uv run python benchmarks/recurrent.py --data FOLDER --work FOLDER`."
    )


def lengths_table() -> str:
    """What the recurrence adds, by the length of the query and of its answer."""
    blocks = []
    for name, title in (("query_words", "words of the query"), ("passage_words", "words of the longest answer")):
        lines = [f"| {title} | queries | recurrent - average | 95 % | p |", "|---|---|---|---|---|"]
        for row in read("recurrent")["recurrent_minus_average"][name]:
            span = f"{row['from']} to {row['to']}" if row["to"] else f"{row['from']} and more"
            low, high = row["interval_95"]
            cells = [f"{row['queries']:,}", f"{row['difference']:+.3f}", f"{low:+.3f} to {high:+.3f}"]
            lines.append(f"| {span} | {' | '.join(cells)} | {row['p_value']:.2g} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def order_table() -> str:
    """How often each tower finds the passage that says what the query says, and not the reverse."""
    orders = read("recurrent")["word_order"]
    forms = list(next(iter(orders.values())))
    lines = [f"| right passage first | {' | '.join(forms)} |", "|---" * (len(forms) + 1) + "|"]
    for name, found in orders.items():
        cells = [f"{found[form]['accuracy']:.3f}" for form in forms]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    pairs = next(iter(next(iter(orders.values())).values()))["pairs"]
    return "\n".join(lines) + f"\n\n{pairs:,} pairs of passages in each column; chance is 0.5."


def variants_table() -> str:
    """NDCG@10 and cost of each variant of a recurrence."""
    result = read("recurrent_variants")
    collections: dict[str, Any] = result["collections"]
    titles = [f"{name} test" if name == "qa" else name for name in collections]
    lines = [f"| NDCG@10 | {' | '.join(titles)} | parameters | CPU seconds |", "|---" * (len(titles) + 3) + "|"]
    for name, found in result["variants"].items():
        cells = [f"{one[name]['ndcg@10']:.3f}{arrow(one[name]['minus_average'])}" for one in collections.values()]
        seconds = sum(found["cpu_seconds"]) / len(found["cpu_seconds"])
        lines.append(f"| {name} | {' | '.join(cells)} | {found['parameters'] / 1e6:.2f} M | {seconds:.0f} |")
    return (
        "\n".join(lines) + f"\n\n{result['protocol']}: ↑ better, ↓ worse, p < 0.05.\n"
        "Made by `uv run python benchmarks/recurrent_variants.py --data FOLDER --work FOLDER`."
    )


def smaller_table() -> str:
    """NDCG@10 and bytes a passage by tower, dimensions and kind of number."""
    towers = read("smaller")["towers"]
    kinds = list(next(iter(next(iter(towers.values())).values())))
    lines = [f"| tower | dimensions | {' | '.join(kinds)} |", "|---" * (len(kinds) + 2) + "|"]
    for name, dims in towers.items():
        for dim, found in dims.items():
            cells = [f"{found[kind]['ndcg@10']:.3f} ({found[kind]['bytes']:,.0f})" for kind in kinds]
            lines.append(f"| {name} | {dim} | {' | '.join(cells)} |")
    return (
        "\n".join(lines)
        + "\n\nNDCG@10 (bytes a passage), mean of scifact, squad-a, cranfield, cisi and of three seeds.\n"
        "Made by `uv run python benchmarks/smaller.py --data FOLDER --work FOLDER`."
    )


def fusions_table() -> str:
    """NDCG@10 of each way to join two rankings."""
    result = read("fusions")
    collections: dict[str, Any] = result["collections"]
    ways = list(next(iter(collections.values())))
    lines = [f"| NDCG@10 | {' | '.join(collections)} | mean of the first four |", "|---" * (len(collections) + 2) + "|"]
    for way in ways:
        cells = [f"{found[way]['ndcg@10']:.3f}{arrow(found[way]['minus_bm25'])}" for found in collections.values()]
        mean = sum(found[way]["ndcg@10"] for found in list(collections.values())[:4]) / 4
        lines.append(f"| {way} | {' | '.join(cells)} | {mean:.3f} |")
    return (
        "\n".join(lines) + f"\n\n{result['protocol']}. ↑ better than BM25, ↓ worse, p < 0.05.\n"
        "Made by `uv run python benchmarks/fusions.py --data FOLDER --work FOLDER`."
    )


def _cell(found: dict[str, Any]) -> str:
    star = "\\*" if arrow(found["minus_average"]) == " ↑" else ""
    return f"{found['ndcg@10']:.3f}{star}{arrow(found['minus_bm25'])}"
