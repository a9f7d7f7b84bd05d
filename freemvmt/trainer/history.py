"""The history of a training: its loss by step and its validation scores by epoch, as JSON lines and as a plot."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from freemvmt.towers.model_folder import METRICS, PICTURE

_STRONG, _PALE, _GRID = "#1f6f6b", "#b9bfc4", "#e4e7e9"
MAX_POINTS = 2000  # of the loss curve; a longer training keeps every second point, then every fourth …


def thinned(curve: list[list[float]], spacing: int, step: int, loss: float) -> tuple[list[list[float]], int]:
    """``curve`` with the loss of ``step`` added, if it is a multiple of ``spacing``; and the new spacing in steps."""
    if step % spacing and step != 1:
        return curve, spacing
    curve.append([step, loss])
    if len(curve) < MAX_POINTS:
        return curve, spacing
    return [point for point in curve if point[0] % (2 * spacing) == 0 or point[0] == 1], 2 * spacing


@dataclass(frozen=True)
class History:
    """The (step, loss) points of a training, its scores after each epoch, and the score before training."""

    curve: Sequence[Sequence[float]]
    history: Sequence[dict[str, float]]
    untrained: float

    def write(self, folder: Path) -> None:
        """Write metrics.jsonl and, where matplotlib is installed, curves.png."""
        (folder / METRICS).write_text(self.lines(), encoding="utf-8")
        if find_spec("matplotlib"):
            self._draw(folder / PICTURE)

    def lines(self) -> str:
        """A JSON line for each point of the loss (``step``, ``batch_loss``) and for each epoch's scores."""
        rows: list[dict[str, Any]] = [{"step": int(step), "batch_loss": loss} for step, loss in self.curve]
        rows += [dict(entry) for entry in self.history]
        rows.sort(key=lambda row: (row["step"], "epoch" in row))
        return "".join(json.dumps(row) + "\n" for row in rows)

    def _draw(self, path: Path) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        losses, scores = figure.subplots(1, 2)
        steps = [entry["step"] for entry in self.history]
        means = [entry["avg_train_loss"] for entry in self.history]
        losses.plot(*zip(*self.curve, strict=True), color=_PALE, linewidth=1, label="of a batch")
        losses.plot(steps, means, color=_STRONG, marker="o", label="mean of an epoch")
        losses.legend(frameon=False, fontsize=8)
        measured = [self.untrained, *(entry["val_ndcg_10"] for entry in self.history)]
        scores.plot([0, *steps], measured, color=_STRONG, marker="o")
        for axes, title in ((losses, "loss"), (scores, "validation NDCG@10")):
            axes.set_title(title, loc="left", fontsize=11)
            axes.set_xlabel("step")
            axes.grid(color=_GRID)
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=120)
