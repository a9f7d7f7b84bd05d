"""The verbs of `two-towers` by which a model or a bundle leaves, and what is told of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from freemvmt.shell import parse
from freemvmt.shell import report as tell

if TYPE_CHECKING:
    from freemvmt.console import Console


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a model in the form that others read, or a bundle as a site."""

    model: Annotated[str, tyro.conf.arg(metavar="MODEL"), tyro.conf.Positional]
    """A model folder, a name on the Hub, or `untrained`; for a site, a bundle."""
    format: Literal["sentence-transformers", "onnx", "site"]
    """sentence-transformers: a folder that SentenceTransformer(FOLDER) loads. onnx: graphs for any runtime. site: a
    page and files that it searches in the browser, from any static host."""
    output: str
    """Folder for it; it must not be there."""
    precision: Literal["fp32", "int8"] | None = None
    """onnx: what a number of the token table is kept in; None: fp32."""
    dim: int | None = None
    """site: dimensions of the vectors; None: the most with which it fits into --max-mb."""
    max_mb: float | None = None
    """site: million bytes that all its files may have together; None: 20."""
    onnx_web: str | None = None
    """site: the folder `dist` of the npm package onnxruntime-web, by which a recurrent query tower runs in the page."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


def export(argv: Sequence[str]) -> int:
    """Write a model in the form that others read, or a bundle as a site."""
    options = parse(ExportOptions, argv, "two-towers export")
    from freemvmt.console import Console
    from freemvmt.errors import UserError

    console = Console(stderr=options.json)
    own = {"precision": "onnx", "dim": "site", "max_mb": "site", "onnx_web": "site"}
    for name, format in own.items():
        if options.format != format and getattr(options, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is for --format {format}; leave it out")
    found = _site(options, console) if options.format == "site" else _model(options, console)
    tell(options.json, {"output": options.output, "format": options.format, **found})
    return 0


def _model(options: ExportOptions, console: "Console") -> dict[str, Any]:
    from freemvmt.files import size_of
    from freemvmt.model import TwoTowersModel
    from freemvmt.outputs import check_free

    output = Path(options.output)
    check_free(output, [options.model])
    model = TwoTowersModel.load(options.model)
    if options.format == "onnx":
        from freemvmt.exporting.onnx_graph import export_onnx

        export_onnx(model, output, options.precision or "fp32")
    else:
        from freemvmt.exporting.static import export_static

        export_static(model, output)
    size = size_of(output)
    console.line(f"saved     {output} ({size / 1e6:,.0f} MB, {model.dim} dimensions)")
    return {"bytes": size, "dim": model.dim}


def _site(options: ExportOptions, console: "Console") -> dict[str, Any]:
    from freemvmt.errors import UserError
    from freemvmt.exporting.web_site import MAX_MB, export_site

    max_mb = MAX_MB if options.max_mb is None else options.max_mb
    if not max_mb > 0:  # also what is no number
        raise UserError(f"--max-mb is {max_mb:g}; give more than 0")
    runtime = None if options.onnx_web is None else Path(options.onnx_web)
    site = export_site(
        Path(options.model), Path(options.output), dim=options.dim, max_mb=max_mb, runtime=runtime, console=console
    )
    console.line(
        f"saved     {options.output} ({site.bytes / 1e6:.1f} MB, {site.dim} dimensions; of the ten best by whole "
        f"vectors it finds {site.recall:.0%})"
    )
    console.line(f"next      python -m http.server --directory {options.output}    http://localhost:8000")
    return {"bytes": site.bytes, "dim": site.dim, "documents": site.documents, "recall@10": round(site.recall, 4)}


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
    from freemvmt.outputs import check_file
    from freemvmt.run_report import write_report

    if not options.models:
        raise UserError("no model is named; give the folders that `two-towers train` wrote")
    console = Console(stderr=options.json)
    output = check_file(options.output, options.models)
    rows = write_report([Path(model) for model in options.models], output)
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
