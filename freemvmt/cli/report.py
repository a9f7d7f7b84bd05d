"""`two-towers report`: compare trained models on one page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from freemvmt.cli.parsing import Options, parse


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Options):
    """Lay trained models side by side on one page: scores, the settings that differ, and the course of each."""

    models: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR"), tyro.conf.Positional]
    """Folders that `train` wrote."""
    output: str = "report.html"
    """File for the page: one file, with no link to anywhere."""


def report(argv: Sequence[str]) -> int:
    """Lay trained models side by side on one page."""
    options = parse(ReportOptions, argv, "two-towers report")
    from freemvmt.errors import UserError
    from freemvmt.storage.outputs import check_output_file
    from freemvmt.trainer.report import write_report

    if not options.models:
        raise UserError("no model is named; give the folders that `two-towers train` wrote")
    console, output = options.console(), check_output_file(options.output, options.models)
    rows = write_report([Path(model) for model in options.models], output)
    for row in rows:
        console.line(f"{row['ndcg@10']:.4f}    {row['model']}")
    console.line(f"saved     {options.output}")
    return options.finish({"output": options.output, "models": rows})
