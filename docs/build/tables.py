"""The tables of README.md and docs, from results/*.json: `uv run python docs/build/tables.py` writes them in place.

A test fails when a page and its results differ.
"""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import aging
from folder_table import adapt_table, folder_table, long_documents_table
from install_tables import extras_table, lite_table, pythons_table
from light_tables import (
    aligned_table,
    document_encoder_table,
    light_table,
    light_variants_table,
    pairs_table,
    query_cost_table,
)
from live_tables import engine_table, filters_table, serving_table
from record import read, reading
from recurrent_tables import (
    fusions_table,
    lengths_table,
    order_table,
    recurrent_table,
    smaller_table,
    variants_table,
)
from reliability_table import reliability_table
from scale_tables import encoding_table, plan_table, scale_table, streaming_table
from site_table import first_hit_table, site_quality_table, site_table
from speed_tables import (
    arrow,
    cpu_table,
    gpu_table,
    roofline_table,
    scaling_table,
    short_speed_table,
    speed_table,
    training_table,
)

ROOT = Path(__file__).parent.parent.parent


def quality_table(names: list[str]) -> str:
    """NDCG@10 by collection and method, a block a training set."""
    blocks = []
    for name in names:
        result = read(f"quality_{name}")
        collections: dict[str, Any] = result["collections"]
        means = result["mean_ndcg@10"]
        several = len(collections) > 1
        head = ["NDCG@10", *collections, *(["mean"] if several else [])]
        lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        titles = {
            "untrained": "untrained towers",
            "bm25": "BM25",
            "dense": "**trained towers**",
            "hybrid": "**hybrid**",
        }
        for method, title in titles.items():
            cells = [_cell(found[method]) for found in collections.values()]
            lines.append(f"| {' | '.join([title, *cells, *([f'{means[method]:.3f}'] if several else [])])} |")
        trained_on = " and ".join(f"`{part}`" for part in result["trained_on"])
        sizes = "; ".join(
            f"{name} {found['queries']:,} queries, {int(found['protocol'].split()[2]):,} documents"
            for name, found in collections.items()
        )
        seconds = max(run["seconds"] for run in result["training"])
        pairs = result["training"][0]["pairs"]
        arrows = "↑ better and ↓ worse than BM25 with p < 0.05 in a paired randomisation test"
        blocks.append(
            f"Trained on {trained_on} ({pairs:,} pairs, {seconds:.0f} s on {result['machine']['cores']} cores), "
            f"{result['loss']} loss, mean of {len(result['seeds'])} seeds:\n\n"
            + "\n".join(lines)
            + f"\n\nFull corpus of each collection: {sizes}. {arrows}.\nMade by `{command(name, result)}`."
        )
    return "\n\n".join(blocks)


def weight_table(name: str) -> str:
    """NDCG@10 by the dense side's share, on data left out of training."""
    means = read(name)["mean_ndcg@10"]
    weights = [key for key in means["dense"] if key not in ("bm25", "dense")]
    rows = {"dense": "the towers"} if len(means) == 1 else {"dense": "average queries", "transformer": "transformer"}
    lines = [f"| weight | BM25 | {' | '.join(weights)} | dense |", "|---" * (len(weights) + 3) + "|"]
    for model, label in rows.items():
        cells = [f"{means[model][key]:.3f}" for key in ("bm25", *weights, "dense")]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def age(name: str) -> str:
    """No table: only what is said below one, for figures that stand in a picture or in a sentence."""
    read(name)
    return ""


def command(name: str, result: dict[str, Any]) -> str:
    """The line that made a result."""
    parts = [f"uv run python benchmarks/quality.py {name} --data FOLDER --train {' '.join(result['trained_on'])}"]
    parts.append(f"--collections {' '.join(result['collections'])}")
    if result["loss"] != "triplet":
        parts.append(f"--loss {result['loss']}")
    return " ".join(parts)


def _cell(found: dict[str, Any]) -> str:
    return f"{found['ndcg@10']:.3f}" + arrow(found.get("minus_bm25"))


PAGES = {
    "README.md": {
        "pairs": pairs_table,
        "speed": short_speed_table,
    },
    "docs/quality.md": {
        "quality": lambda: quality_table(["qa_msmarco", "qa", "msmarco"]),
        "weight": lambda: weight_table("hybrid_weight"),
        "fusions": fusions_table,
        "infonce": lambda: quality_table(["qa_infonce"]),
        "smaller": smaller_table,
    },
    "docs/engines.md": {"engines": engine_table, "filters": filters_table},
    "docs/explanation.md": {"variants-age": lambda: age("recurrent_variants")},
    "docs/how-to/folders.md": {"folder": folder_table, "adapt": adapt_table},
    "docs/how-to/long-documents.md": {"long-documents": long_documents_table},
    "docs/how-to/rerank.md": {"rerank-age": lambda: age("rerank")},
    "docs/how-to/tracking.md": {"sweeps-age": lambda: age("sweeps")},
    "docs/install.md": {"pythons": pythons_table, "extras": extras_table},
    "docs/lite.md": {"lite": lite_table},
    "docs/light-query.md": {
        "light-query": light_table,
        "light-variants": light_variants_table,
        "query-cost": query_cost_table,
        "document-encoder": document_encoder_table,
        "light-weight": lambda: weight_table("hybrid_weight_light"),
    },
    "docs/performance.md": {
        "speed": speed_table,
        "training": training_table,
        "roofline": roofline_table,
        "scaling": scaling_table,
        "cpu": cpu_table,
        "gpu": gpu_table,
    },
    "docs/recurrent.md": {
        "aligned": aligned_table,
        "recurrent": recurrent_table,
        "lengths": lengths_table,
        "order": order_table,
        "variants": variants_table,
        "cost-age": lambda: age("recurrent_speed"),
    },
    "docs/reliability.md": {"reliability": reliability_table},
    "docs/scale.md": {
        "scale": scale_table,
        "streaming": streaming_table,
        "encoding": encoding_table,
        "plan": plan_table,
    },
    "docs/serving.md": {"serving": serving_table},
    "docs/site.md": {"site-first-hit": first_hit_table, "site": site_table, "site-quality": site_quality_table},
}


def filled(page: str) -> str:
    """The text of ``page`` with each of its tables made anew."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for mark, make in PAGES[page].items():
        pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
        with reading() as results:
            table = make()
        note = aging.note(results.items())
        table = "\n\n".join(part for part in (table, note) if part)
        text = pattern.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)
    return text


def main() -> int:
    """Write all tables in place."""
    for page in PAGES:
        (ROOT / page).write_text(filled(page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
