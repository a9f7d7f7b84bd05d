"""The table of docs/recurrent.md."""

from typing import Any

from record import read
from speed_tables import arrow


def recurrent_table() -> str:
    """NDCG@10 by tower and method, and what each tower costs."""
    result = read("recurrent")
    collections: dict[str, Any] = result["collections"]
    means = result["mean_of_shown_ndcg@10"]
    names = list(result["recipes"])
    lines = [f"| NDCG@10 | {' | '.join(collections)} | mean of the first four |", "|---" * (len(collections) + 2) + "|"]
    bm25 = [f"{found['bm25']['ndcg@10']:.3f}" for found in collections.values()]
    lines.append(f"| BM25 | {' | '.join(bm25)} | {sum(map(float, bm25[:4])) / 4:.3f} |")
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


def _cell(found: dict[str, Any]) -> str:
    star = "\\*" if arrow(found["minus_average"]) == " ↑" else ""
    return f"{found['ndcg@10']:.3f}{star}{arrow(found['minus_bm25'])}"
