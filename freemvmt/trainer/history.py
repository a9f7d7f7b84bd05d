"""The history of a training: its loss by step and its validation scores by epoch, as JSON lines and as a picture."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

from freemvmt.towers.model_folder import METRICS, PICTURE

COLORS = ("#1f6f6b", "#b4552d", "#4a5fa5", "#8a6d1f", "#7b3f80", "#3d7a3a", "#a33b52", "#5b6670")  # one a training
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
    """The (step, loss) points of a training, its scores after each epoch, and the score before training, if known."""

    curve: Sequence[Sequence[float]]
    history: Sequence[dict[str, float]]
    untrained: float | None

    def write(self, folder: Path) -> None:
        """Write metrics.jsonl and, where matplotlib is installed, curves.png."""
        (folder / METRICS).write_text(self.lines(), encoding="utf-8")
        if image := picture([self]):
            (folder / PICTURE).write_bytes(image)

    def lines(self) -> str:
        """A JSON line for each point of the loss (``step``, ``batch_loss``) and for each epoch's scores."""
        rows: list[dict[str, Any]] = [{"step": int(step), "batch_loss": loss} for step, loss in self.curve]
        rows += [dict(entry) for entry in self.history]
        rows.sort(key=lambda row: (row["step"], "epoch" in row))
        return "".join(json.dumps(row) + "\n" for row in rows)


def picture(histories: Sequence[History]) -> bytes | None:
    """A PNG of losses and validation scores by step, each training in its colour; None without matplotlib."""
    if not find_spec("matplotlib"):
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4))
    figure.subplots_adjust(left=0.075, right=0.985, top=0.89, bottom=0.15, wspace=0.16)
    losses, scores = figure.subplots(1, 2)
    for history, color in zip(histories, cycle(COLORS), strict=False):
        steps = [entry["step"] for entry in history.history]
        means = [entry["avg_train_loss"] for entry in history.history]
        losses.plot(*zip(*history.curve, strict=True), color=color, linewidth=1, alpha=0.3)
        losses.plot(steps, means, color=color, marker="o", zorder=3)
        points = [(entry["step"], entry["val_ndcg_10"]) for entry in history.history]
        start = [] if history.untrained is None else [(0, history.untrained)]
        scores.plot(*zip(*start, *points, strict=True), color=color, marker="o")
    losses.legend(["of a batch", "mean of an epoch"], frameon=False, fontsize=8)
    for axes, title in ((losses, "loss"), (scores, "validation NDCG@10")):
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel("step")
        axes.grid(color="#e4e7e9")
        axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()
