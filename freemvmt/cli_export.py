"""The verbs of `two-towers` by which a model leaves, and what is told of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from freemvmt.shell import parse
from freemvmt.shell import report as tell


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a model in the form that others read."""

    model: Annotated[str, tyro.conf.arg(metavar="MODEL"), tyro.conf.Positional]
    """A model folder, a name on the Hub, or `untrained`."""
    format: Literal["sentence-transformers", "onnx"]
    """sentence-transformers: a folder that SentenceTransformer(FOLDER) loads. onnx: graphs for any runtime."""
    output: str
    """Folder for it; it must not be there."""
    precision: Literal["fp32", "int8"] = "fp32"
    """onnx: what a number of the token table is kept in."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


def export(argv: Sequence[str]) -> int:
    """Write a model in the form that others read."""
    options = parse(ExportOptions, argv, "two-towers export")
    from freemvmt.console import Console
    from freemvmt.errors import UserError
    from freemvmt.files import size_of
    from freemvmt.model import TwoTowersModel

    console, output = Console(stderr=options.json), Path(options.output)
    model = TwoTowersModel.load(options.model)
    if options.format == "onnx":
        from freemvmt.exporting.onnx_graph import export_onnx

        export_onnx(model, output, options.precision)
    elif options.precision != "fp32":
        raise UserError("--precision is for --format onnx; leave it out")
    else:
        from freemvmt.exporting.static import export_static

        export_static(model, output)
    size = size_of(output)
    console.line(f"saved     {output} ({size / 1e6:,.0f} MB, {model.dim} dimensions)")
    tell(options.json, {"output": str(output), "format": options.format, "bytes": size, "dim": model.dim})
    return 0


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Lay trained models side by side on one page: scores, the settings that differ, and the course of each."""

    models: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR"), tyro.conf.Positional]
    """Folders that `train` wrote."""
    output: str = "report.html"
    """File for the page: one file, with no link to anywhere."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


def report(argv: Sequence[str]) -> int:
    """Lay trained models side by side on one page."""
    options = parse(ReportOptions, argv, "two-towers report")
    from freemvmt.console import Console
    from freemvmt.errors import UserError
    from freemvmt.run_report import write_report

    if not options.models:
        raise UserError("no model is named; give the folders that `two-towers train` wrote")
    console = Console(stderr=options.json)
    rows = write_report([Path(model) for model in options.models], Path(options.output))
    for row in rows:
        console.line(f"{row['ndcg@10']:.4f}    {row['model']}")
    console.line(f"saved     {options.output}")
    tell(options.json, {"output": options.output, "models": rows})
    return 0


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """Put a model on the Hugging Face Hub, with a card that says what it is and how good."""

    model: Annotated[str, tyro.conf.arg(metavar="MODEL"), tyro.conf.Positional]
    """A model folder."""
    name: Annotated[str, tyro.conf.arg(metavar="NAME"), tyro.conf.Positional]
    """Its name on the Hub, owner/name; made if it is not there."""
    private: bool = False
    """For you alone, if it is made now."""
    pull_request: bool = False
    """Open a pull request in place of a commit."""
    scores: tuple[str, ...] = ()
    """Files of what `two-towers evaluate --json` printed: these scores stand in the card too."""
    language: str | None = None
    """Language of the texts, such as en, for the card."""
    license: str | None = None
    """Licence, such as apache-2.0, for the card."""
    message: str = "A two-towers model"
    """What the commit is called."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


def push(argv: Sequence[str]) -> int:
    """Put a model on the Hugging Face Hub."""
    options = parse(PushOptions, argv, "two-towers push")
    from freemvmt import publishing
    from freemvmt.console import Console

    console = Console(stderr=options.json)
    done = publishing.push(
        Path(options.model),
        options.name,
        private=options.private,
        pull_request=options.pull_request,
        language=options.language,
        license=options.license,
        scores=[Path(path) for path in options.scores],
        message=options.message,
    )
    console.line(f"pushed    {done.url}")
    tell(options.json, {"model": options.model, "url": done.url, "commit": done.commit})
    return 0
