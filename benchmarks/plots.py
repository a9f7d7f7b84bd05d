"""The plots of docs/performance.md, from results/*.json: `uv run python benchmarks/plots.py` writes docs/images/."""

import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from record import read

ROOT = Path(__file__).parent.parent
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
        for stage, label in STAGES.items():
            values = [result["stages"][str(size)][stage][key] for size in sizes]
            line = axes.plot(sizes, values, marker="o", label=f"{label} ({result['slopes'][stage][key]:.2f})")
            above = 5 if stage in ("train", "encode") else -5  # two pairs of lines lie close
            axes.annotate(f"{values[-1]:,.3g}" if values[-1] < 100 else f"{values[-1]:,.0f}",
                          (sizes[-1], values[-1]), xytext=(6, above), textcoords="offset points",
                          va="center", fontsize=9, color=line[0].get_color())  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(min(sizes) / 1.3, max(sizes) * 2.2)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        if key == "mib":
            axes.set_yticks([500, 1000, 2000, 5000], ["500", "1,000", "2,000", "5,000"])
            axes.set_ylim(500, 8000)
        axes.minorticks_off()
        axes.set_xlabel("passages")
        axes.set_title(title, fontsize=11, loc="left")
        axes.legend(title="slope between the last two", fontsize=8, title_fontsize=8, frameon=False)
        axes.grid(color=GRID)
        _plain(axes)
    _save(figure, "scaling.png")


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_axisbelow(True)


def _save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(IMAGES / name, dpi=130)
    plt.close(figure)


def main() -> int:
    """Write both."""
    ratios()
    scaling()
    return 0


if __name__ == "__main__":
    sys.exit(main())
