"""A page that compares trained models: their scores, the settings in which they differ, and the curve of each.

The page is one HTML file with its picture inside; it loads nothing from elsewhere.
"""

import base64
import html
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freemvmt.config import NOT_THE_RESULT
from freemvmt.data.lines import json_lines
from freemvmt.errors import UserError
from freemvmt.runtime.console import count_of
from freemvmt.storage.files import atomic_file
from freemvmt.towers.model_folder import METRICS, read_description
from freemvmt.trainer.history import COLORS, History, picture

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedModel:
    """A model folder's record of its training, and the history that lies beside it."""

    name: str
    record: dict[str, Any]
    history: History


def read_trained_model(folder: Path) -> TrainedModel:
    """Read the training of the model in ``folder``; ``UserError`` when it was not trained here or has no history."""
    record = read_description(folder / "config.json")["training"]
    if not isinstance(record, dict) or not isinstance(record.get("scores"), dict):
        raise UserError(f"{folder} was not trained here; give the folders that `two-towers train` wrote")
    path = folder / METRICS
    if not path.is_file():
        raise UserError(f"{folder} has no {METRICS}; train the model again, with this version")
    curve, history = [], []
    for where, row in json_lines(path):
        try:
            if "batch_loss" in row:
                curve.append([float(row["step"]), float(row["batch_loss"])])
            else:
                history.append({name: float(row[name]) for name in ("step", "avg_train_loss", "val_ndcg_10")})
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where}: no point of a training ({error}); train the model again") from error
    untrained = record["scores"].get("untrained_ndcg@10")
    known = float(untrained) if isinstance(untrained, int | float) else None
    return TrainedModel(str(folder), record, History(curve, history, known))


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
        f'<tr><td><i style="background:{COLORS[index % len(COLORS)]}"></i>{_text(run.name)}</td>'
        + "".join(f"<td>{_cell(row[name])}</td>" for name in columns)
        + "".join(f"<td>{_cell(values[index])}</td>" for values in differences.values())
        + "</tr>"
        for index, (run, row) in enumerate(zip(runs, rows, strict=True))
    )
    image = _image([run.history for run in runs])
    return _TEMPLATE.format(head=head, body=body, image=image, count=count_of(len(runs), "training"))


def _image(histories: Sequence[History]) -> str:
    png = picture(histories)
    if png is None:
        _logger.info("the page has no picture, because matplotlib is not installed; install two-towers[sweep]")
        return ""
    source = base64.b64encode(png).decode()
    return f'<img alt="loss and validation NDCG@10, by step" src="data:image/png;base64,{source}">'


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
<title>two-towers: {count}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }}
h1 {{ font-size: 1.3rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #8885; white-space: nowrap; }}
th {{ font-weight: 600; }}
td i {{ display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em; }}
img {{ max-width: 100%; height: auto; margin-top: 1.5rem; }}
</style>
<h1>{count}</h1>
<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>
<p>After the protocol: the settings in which they differ. Scores of one protocol and one data set may be compared.</p>
{image}
</html>
"""
