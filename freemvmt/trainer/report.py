"""A page that compares trained models: their scores, the settings in which they differ, and the curve of each.

The page is one HTML file with its plots as SVG; it loads nothing from elsewhere.
"""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freemvmt.config import NOT_THE_RESULT
from freemvmt.data.lines import json_lines
from freemvmt.errors import UserError
from freemvmt.storage.files import atomic_file
from freemvmt.towers.model_folder import METRICS, read_description

_COLORS = ("#1f6f6b", "#b4552d", "#4a5fa5", "#8a6d1f", "#7b3f80", "#3d7a3a", "#a33b52", "#5b6670")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 560, 260, 52, 30


@dataclass(frozen=True)
class TrainedModel:
    """A model folder's record of its training, with the (step, value) points of its loss and its scores."""

    name: str
    record: dict[str, Any]
    loss: list[tuple[float, float]]
    scores: list[tuple[float, float]]


def read_trained_model(folder: Path) -> TrainedModel:
    """Read the training of the model in ``folder``; ``UserError`` when it was not trained here or has no history."""
    record = read_description(folder / "config.json")["training"]
    if not isinstance(record, dict) or not isinstance(record.get("scores"), dict):
        raise UserError(f"{folder} was not trained here; give the folders that `two-towers train` wrote")
    path = folder / METRICS
    if not path.is_file():
        raise UserError(f"{folder} has no {METRICS}; train the model again, with this version")
    loss, scores = [], []
    for where, row in json_lines(path):
        try:
            if "batch_loss" in row:
                loss.append((float(row["step"]), float(row["batch_loss"])))
            else:
                scores.append((float(row["step"]), float(row["val_ndcg_10"])))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where}: no point of a training ({error}); train the model again") from error
    untrained = record["scores"].get("untrained_ndcg@10")
    start = [(0.0, float(untrained))] if isinstance(untrained, int | float) else []
    return TrainedModel(str(folder), record, loss, start + scores)


def write_report(folders: Sequence[Path], output: Path) -> list[dict[str, Any]]:
    """Write the page; return the rows of its table, one for each model."""
    runs = [read_trained_model(folder) for folder in folders]
    rows = [_row(run) for run in runs]
    differences = _differences(runs)
    with atomic_file(output) as part:
        part.write_text(_page(runs, rows, differences), encoding="utf-8")
    return [
        row | {"settings": {name: values[index] for name, values in differences.items()}}
        for index, row in enumerate(rows)
    ]


def _row(run: TrainedModel) -> dict[str, Any]:
    scores = run.record["scores"]
    return {
        "model": run.name,
        "ndcg@10": scores.get("ndcg@10"),
        "untrained_ndcg@10": scores.get("untrained_ndcg@10"),
        "best_epoch": scores.get("best_epoch"),
        "data": run.record.get("data"),
        "pairs": run.record.get("pairs"),
        "ended": run.record.get("ended"),
        "protocol": (run.record.get("validation") or {}).get("protocol"),
    }


def _differences(runs: Sequence[TrainedModel]) -> dict[str, list[Any]]:
    """The settings that differ between the runs, each with its value in every run."""
    configs = [run.record.get("config") or {} for run in runs]
    names = dict.fromkeys(name for config in configs for name in config if name not in NOT_THE_RESULT)
    values = {name: [config.get(name) for config in configs] for name in names}
    return {name: row for name, row in values.items() if any(value != row[0] for value in row)}


def _page(runs: Sequence[TrainedModel], rows: Sequence[dict[str, Any]], differences: dict[str, list[Any]]) -> str:
    columns = ["ndcg@10", "untrained_ndcg@10", "best_epoch", "pairs", "data", "ended", "protocol"]
    head = "".join(f"<th>{_text(title.replace('_', ' '))}</th>" for title in ["model", *columns, *differences])
    body = "".join(
        f'<tr><td><i style="background:{_color(index)}"></i>{_text(run.name)}</td>'
        + "".join(f"<td>{_cell(row[name])}</td>" for name in columns)
        + "".join(f"<td>{_cell(values[index])}</td>" for values in differences.values())
        + "</tr>"
        for index, (run, row) in enumerate(zip(runs, rows, strict=True))
    )
    scores = _plot("validation NDCG@10", [run.scores for run in runs], dots=True)
    loss = _plot("loss", [run.loss for run in runs])
    return _TEMPLATE.format(head=head, body=body, scores=scores, loss=loss, count=len(runs))


def _plot(title: str, lines: Sequence[Sequence[tuple[float, float]]], dots: bool = False) -> str:
    points = [point for line in lines for point in line]
    if not points:
        return ""
    right = max(step for step, _ in points) or 1.0
    low, high = min(value for _, value in points), max(value for _, value in points)
    high = high if high > low else low + 1.0

    def to_pixels(step: float, value: float) -> tuple[float, float]:
        x = _LEFT + (_WIDTH - _LEFT - 8) * step / right
        return x, (_HEIGHT - _BOTTOM) - (_HEIGHT - _BOTTOM - 12) * (value - low) / (high - low)

    elements = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = low + share * (high - low)
        _, y = to_pixels(0, value)
        elements.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        elements.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
        x = to_pixels(share * right, low)[0]
        elements.append(f'<text x="{x:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{share * right:,.0f}</text>')
    for index, line in enumerate(lines):
        positions = [to_pixels(*point) for point in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in positions)
        elements.append(f'<polyline points="{path}" stroke="{_color(index)}" class="line"/>')
        if dots:
            elements += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_color(index)}"/>' for x, y in positions]
    body = "".join(elements)
    label = html.escape(title, quote=True)
    return (
        f"<figure><figcaption>{_text(title)}, by step</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{body}</svg></figure>'
    )


def _color(index: int) -> str:
    return _COLORS[index % len(_COLORS)]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return _text(value if isinstance(value, str) else json.dumps(value))


def _text(value: str) -> str:
    return html.escape(value.encode("utf-8", "backslashreplace").decode())


_TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>two-towers: {count} trainings</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }}
h1 {{ font-size: 1.3rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #8885; white-space: nowrap; }}
th {{ font-weight: 600; }}
td i {{ display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em; }}
.plots {{ display: flex; flex-wrap: wrap; gap: 1rem 2rem; margin-top: 1.5rem; }}
figure {{ margin: 0; flex: 1 1 26rem; }}
figcaption {{ font-weight: 600; margin-bottom: .3rem; }}
svg {{ width: 100%; height: auto; }}
svg text {{ font-size: 11px; fill: currentColor; opacity: .75; }}
.grid {{ stroke: #8884; }}
.line {{ fill: none; stroke-width: 1.6; }}
</style>
<h1>{count} trainings</h1>
<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>
<p>After the protocol: the settings in which they differ. Scores of one protocol and one data set may be compared.</p>
<div class="plots">{scores}{loss}</div>
</html>
"""
