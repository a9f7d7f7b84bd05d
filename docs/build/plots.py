"""The plots of docs, from results/*.json: `uv run python docs/build/plots.py` writes docs/images/."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from record import read

ROOT = Path(__file__).parent.parent.parent
IMAGES = ROOT / "docs" / "images"
OURS, THEIRS, GRID = "#1f6f6b", "#b9bfc4", "#e4e7e9"
STAGES = {"encode": "encode", "train": "train, one epoch", "index": "index", "search": "search, hybrid, one query"}


def ratios() -> None:
    """How many times as long the others take, a bar each; 1 is ours."""
    rows: list[tuple[str, float, tuple[float, float]]] = []
    encode, training, corpus, startup = (read(name) for name in ("encode", "training", "full_corpus", "startup"))
    for name, found in encode["ways"].items():
        if "times_as_long" in found:
            rows.append((f"encode 100,000 passages: {name}", found["times_as_long"], found["range"]))
    peer = training["ways"]["sentence-transformers"]
    rows.append(("train one epoch: sentence-transformers", peer["seconds_ratio"], peer["seconds_range"]))
    rows.append(("  its memory", peer["peak_mib_ratio"], peer["peak_mib_range"]))
    for work in ("evaluation", "search"):
        for name, found in corpus[work].items():
            if isinstance(found, dict) and "times_as_long" in found:
                title = "evaluate a whole corpus" if work == "evaluation" else "exact search"
                rows.append((f"{title}: {name}", found["times_as_long"], found["range"]))
    found = startup["ways"]["import sentence_transformers"]
    rows.append(("start: import sentence_transformers, to our --help", found["times_as_long"], found["range"]))
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(rows) + 1.1))
    for place, (_, ratio, (low, high)) in enumerate(reversed(rows)):
        axes.barh(place, ratio, color=THEIRS, height=0.6)
        axes.plot([low, high], [place, place], color="#444", linewidth=1.2)
        axes.text(max(ratio, high, 0.97) * 1.06, place, f"{ratio:.1f} x", va="center", fontsize=10)
    axes.axvline(1, color=OURS, linewidth=2)
    axes.text(1.02, len(rows) - 0.45, "two-towers", color=OURS, fontsize=10, ha="left", va="bottom")
    axes.set_xscale("log")
    axes.set_xlim(0.5, max(high for _, _, (_, high) in rows) * 2)
    axes.set_ylim(-0.6, len(rows))
    axes.set_yticks(range(len(rows)), [title for title, _, _ in reversed(rows)])
    ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100) if tick < axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("times two-towers: median and range of the rounds")
    _plain(axes)
    _save(figure, "performance.png")


def scaling() -> None:
    """Seconds and memory by the number of passages, both axes logarithmic."""
    result = read("scaling")
    sizes = result["sizes"]
    figure, both = plt.subplots(1, 2, figsize=(10, 4.2))
    for axes, key, title in zip(both, ("seconds", "mib"), ("seconds", "largest resident memory, MiB"), strict=True):
        ends = {}
        for stage, label in STAGES.items():
            values = [result["stages"][str(size)][stage][key] for size in sizes]
            line = axes.plot(sizes, values, marker="o", label=f"{label} ({result['slopes'][stage][key]:.2f})")
            ends[values[-1]] = line[0].get_color()
        _label_ends(axes, sizes[-1], ends)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(min(sizes) / 1.3, max(sizes) * 2.2)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        if key == "mib":
            axes.set_yticks([100, 200, 500, 1000, 2000, 5000], ["100", "200", "500", "1,000", "2,000", "5,000"])
            axes.set_ylim(100, 10_000)
        axes.minorticks_off()
        axes.set_xlabel("passages")
        axes.set_title(title, fontsize=11, loc="left")
        axes.legend(title="slope between the last two", fontsize=8, title_fontsize=8, frameon=False)
        axes.grid(color=GRID)
        _plain(axes)
    _save(figure, "scaling.png")


def towers() -> None:
    """NDCG@10 of BM25, average, recurrence and hybrid on each collection."""
    found = read("recurrent")["collections"]
    ways = {
        "BM25": ("#8a9299", lambda one: one["bm25"]["ndcg@10"]),
        "average": ("#c9d6d5", lambda one: one["average"]["dense"]["ndcg@10"]),
        "recurrent": (OURS, lambda one: one["recurrent"]["dense"]["ndcg@10"]),
        "recurrent, hybrid": ("#e0a33c", lambda one: one["recurrent"]["hybrid"]["ndcg@10"]),
    }
    figure, axes = plt.subplots(figsize=(11, 4.2))
    width = 0.8 / len(ways)
    for place, (name, (color, score)) in enumerate(ways.items()):
        values = [score(one) for one in found.values()]
        bars = axes.bar([x + (place - 1.5) * width for x in range(len(found))], values, width, color=color, label=name)
        axes.bar_label(bars, [f"{value:.2f}".removeprefix("0") for value in values], fontsize=8, padding=1)
    axes.set_xticks(range(len(found)), [f"{name} test" if name == "qa" else name for name in found])
    axes.set_ylabel("NDCG@10")
    axes.set_ylim(0, 1.05)
    axes.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.12))
    _plain(axes)
    _save(figure, "towers.png")


def smaller() -> None:
    """NDCG@10 by bytes a passage: a line a tower and kind of number, a point a size."""
    found = read("smaller")["towers"]
    colors = {"average": "#8a9299", "average, matryoshka": "#e0a33c", "recurrent": OURS}
    styles = {"fp32": "-", "fp16": "--", "int8": ":", "binary + int8": "-."}
    figure, axes = plt.subplots(figsize=(9, 5.6))
    for name, dims in found.items():
        for kind, style in styles.items():
            points = [dims[dim][kind] for dim in dims]
            axes.plot(
                [point["bytes"] for point in points], [point["ndcg@10"] for point in points], style, marker="o",
                markersize=4, color=colors[name], label=f"{name}, {kind}",
            )  # fmt: skip
        for dim, kinds in dims.items():
            point = kinds["fp32"]
            axes.annotate(dim, (point["bytes"], point["ndcg@10"]), xytext=(0, 6), textcoords="offset points",
                          ha="center", fontsize=8, color=colors[name])  # fmt: skip
    axes.set_xscale("log", base=2)
    ticks = [64, 128, 256, 512, 1024, 2048]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xlabel("bytes a passage (numbers at the points: dimensions)")
    axes.set_ylabel("NDCG@10, mean of four collections")
    axes.grid(color=GRID)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    _plain(axes)
    _save(figure, "smaller.png")


def scale() -> None:
    """Seconds, memory and latency of a bundle by the number of passages, all axes logarithmic."""
    rows, stages = read("msmarco_scale")["rows"], ("reading", "encoding", "vectors", "words")
    sizes = [row["passages"] for row in rows]
    lines: list[tuple[str, dict[str, list[float]]]] = [
        ("seconds", {
            "text to bundle": [row["seconds"] for row in rows],
            **{stage: [row["stages_s"][stage] for row in rows] for stage in stages},
        }),
        ("memory, GiB", {
            "index, peak": [row["peak_mib"] / 1024 for row in rows],
            "search": [row["search"]["mib"] / 1024 for row in rows],
            "bundle on disk": [row["bundle_bytes"] / 2**30 for row in rows],
        }),
        ("a search, p50, ms", {
            name: [row["search"][name]["p50_ms"] for row in rows] for name in ("dense", "bm25", "hybrid")
        }),
    ]  # fmt: skip
    figure, all_axes = plt.subplots(1, len(lines), figsize=(13, 4.2))
    for axes, (title, found) in zip(all_axes, lines, strict=True):
        ends = {}
        for label, values in found.items():
            line = axes.plot(sizes, values, marker="o", label=label)
            ends[values[-1]] = line[0].get_color()
        _label_ends(axes, sizes[-1], ends)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(min(sizes) / 1.3, max(sizes) * 2.8)
        axes.set_xticks(sizes, [f"{size / 1e6:.3g} M" for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("passages")
        axes.set_title(title, fontsize=11, loc="left")
        axes.legend(fontsize=8, frameon=False)
        axes.grid(color=GRID)
        _plain(axes)
    _save(figure, "scale.png")


def light() -> None:
    """NDCG@10 by what a query costs: a point a pair of towers, its color by what a document costs."""
    costs, documents = read("query_cost")["ways"], read("document_encoder")["ways"]
    light, aligned, labels = (read(name) for name in ("light_query", "aligned", "quality_qa_msmarco"))
    micros = {
        "average": costs["average"]["p50"],
        "GRU": costs["GRU"]["p50"],
        "MiniLM": costs["MiniLM, ONNX Runtime"]["p50"],
    }
    rates = {
        "average": read("encode")["ways"]["two-towers"]["passages_per_second"],
        "GRU": aligned["recipes"]["recurrent weights"]["passages_per_second"],
        "MiniLM": documents["two-towers, ONNX Runtime"]["passages_per_second"],
    }
    sources = {
        ("average", "MiniLM", "aligned"): (light, "average"),
        ("GRU", "MiniLM", "aligned"): (light, "recurrent"),
        ("MiniLM", "MiniLM", "as it is"): (light, "transformer"),
        ("average", "average", "aligned"): (aligned, "average"),
        ("GRU", "GRU", "aligned"): (aligned, "recurrent weights"),
        ("average", "average", "labels"): (labels, None),
    }
    colors = {"average": "#e0a33c", "GRU": "#8a6fb0", "MiniLM": OURS}
    panels = {
        "msmarco-dl19": ("msmarco-dl19",),
        "msmarco-dev-a": ("msmarco-dev-a",),
        "mean of the other four": ("scifact", "squad-a", "cranfield", "cisi"),
    }
    figure, all_axes = plt.subplots(1, len(panels), figsize=(14, 4.8))
    for axes, (title, names) in zip(all_axes, panels.items(), strict=True):
        for (query, document, how), (result, tower) in sources.items():
            scores = [result["collections"][name] for name in names]
            score = sum((one if tower is None else one[tower])["dense"]["ndcg@10"] for one in scores) / len(names)
            axes.plot(micros[query], score, "o", markersize=9, color=colors[document])
            above = {"labels": 5, "aligned": -5}[how] if query == document == "average" else 0
            above = 9 if (query, document) == ("average", "MiniLM") else above
            beside = (-5 if above > 5 else 8, above)
            axes.annotate(f"{query} / {document}, {how}", (micros[query], score), xytext=beside,
                          textcoords="offset points", va="center", fontsize=8)  # fmt: skip
        bm25 = sum(light["collections"][name]["bm25"]["ndcg@10"] for name in names) / len(names)
        axes.axhline(bm25, color="#8a9299", linestyle="--", linewidth=1)
        axes.text(12, bm25, "BM25", color="#6b7278", fontsize=8, va="bottom")
        axes.set_xscale("log")
        axes.set_xlim(10, 150_000)
        ticks = [10, 100, 1_000, 10_000, 100_000]
        axes.set_xticks(ticks, ["0.01 ms", "0.1 ms", "1 ms", "10 ms", "100 ms"])
        axes.minorticks_off()
        axes.set_xlabel("to encode a query, one core")
        axes.set_title(title, fontsize=11, loc="left")
        axes.grid(color=GRID)
        _plain(axes)
    all_axes[0].set_ylabel("NDCG@10, dense")
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=color) for color in colors.values()]
    figure.legend(handles, [f"documents by {name}: {rates[name]:,.0f} passages/s" for name in colors], ncols=3,
                  frameon=False, loc="lower center", bbox_to_anchor=(0.5, -0.06), fontsize=9)  # fmt: skip
    _save(figure, "light.png")


def _label_ends(axes: Any, x: float, ends: dict[float, str]) -> None:
    """Write each last value in its color; where two lie close on the logarithmic axis, the smaller stands below."""
    values = sorted(ends)
    for place, value in enumerate(values):
        is_low = place + 1 < len(values) and values[place + 1] < 1.3 * value
        is_high = place > 0 and value < 1.3 * values[place - 1]
        text = f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
        axes.annotate(text, (x, value), xytext=(6, 6 * (is_high - is_low)), textcoords="offset points", va="center",
                      fontsize=8, color=ends[value])  # fmt: skip


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_axisbelow(True)


def _save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(IMAGES / name, dpi=130, bbox_inches="tight")
    plt.close(figure)


def main() -> int:
    """Write all."""
    for plot in (ratios, scaling, towers, light, smaller, scale):
        plot()
    return 0


if __name__ == "__main__":
    sys.exit(main())
