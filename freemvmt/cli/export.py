"""`two-towers export`: write a model in a form that other programs read, or a bundle as a site."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from freemvmt.cli.parsing import Options, parse
from freemvmt.config import flag

if TYPE_CHECKING:
    from freemvmt.runtime.console import Console


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """Write a model in the form that others read, or a bundle as a site."""

    model: Annotated[str, tyro.conf.arg(metavar="MODEL"), tyro.conf.Positional]
    """A model folder, a name on the Hub, or `untrained`; for a site, a bundle."""
    format: Literal["sentence-transformers", "onnx", "site"]
    """sentence-transformers: a folder that SentenceTransformer(FOLDER) loads. onnx: graphs for any runtime. site: a
    page and files that it searches in the browser, from any static host."""
    output: str
    """Folder for it; it must not be there."""
    precision: Literal["fp32", "int8"] | None = None
    """onnx: what a number of the token table is kept in, but not a transformer's; None: fp32."""
    dim: int | None = None
    """site: dimensions of the vectors; None: the most with which it fits into --max-mb."""
    max_mb: float | None = None
    """site: million bytes that all its files may have together; None: 20."""
    onnx_web: str | None = None
    """site: the folder `dist` of the npm package onnxruntime-web, by which a recurrent query tower runs in the page."""
    url: str | None = None
    """site: template of a link from each hit to its original, such as "https://docs.example.org/{path}#{anchor}"."""


def export(argv: Sequence[str]) -> int:
    """Write a model in the form that others read, or a bundle as a site."""
    options = parse(ExportOptions, argv, "two-towers export")
    from freemvmt.errors import UserError

    console = options.console()
    format_of = {"precision": "onnx", "dim": "site", "max_mb": "site", "onnx_web": "site", "url": "site"}
    for name, format in format_of.items():
        if options.format != format and getattr(options, name) is not None:
            raise UserError(f"{flag(name)} is for --format {format}; leave it out")
    details = _site(options, console) if options.format == "site" else _model(options, console)
    return options.finish({"output": options.output, "format": options.format, **details})


def _model(options: ExportOptions, console: "Console") -> dict[str, Any]:
    from freemvmt.model import TwoTowersModel
    from freemvmt.storage.files import size_of
    from freemvmt.storage.outputs import check_empty

    output = Path(options.output)
    check_empty(output, [options.model])
    model = TwoTowersModel.load(options.model)
    if options.format == "onnx":
        from freemvmt.export.onnx import export_onnx

        export_onnx(model, output, options.precision or "fp32")
    else:
        from freemvmt.export.sentence_transformers import export_sentence_transformers

        export_sentence_transformers(model, output)
    size = size_of(output)
    console.line(f"saved     {output} ({size / 1e6:,.0f} MB, {model.dim} dimensions)")
    return {"bytes": size, "dim": model.dim}


def _site(options: ExportOptions, console: "Console") -> dict[str, Any]:
    from freemvmt.errors import UserError
    from freemvmt.export.site.export import MAX_MB, export_site

    max_mb = MAX_MB if options.max_mb is None else options.max_mb
    if not max_mb > 0:  # also NaN
        raise UserError(f"--max-mb is {max_mb:g}; give more than 0")
    site = export_site(
        Path(options.model),
        Path(options.output),
        dim=options.dim,
        max_mb=max_mb,
        runtime=None if options.onnx_web is None else Path(options.onnx_web),
        url=options.url,
        console=console,
    )
    console.line(
        f"saved     {options.output} ({site.bytes / 1e6:.1f} MB, {site.dim} dimensions; of the ten best by whole "
        f"vectors it finds {site.recall:.0%})"
    )
    console.line(f"next      python -m http.server --directory {options.output}    http://localhost:8000")
    counts = {"documents": site.documents, "passages": site.passages}
    return {"bytes": site.bytes, "dim": site.dim, **counts, "recall@10": round(site.recall, 4)}
