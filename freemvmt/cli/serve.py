"""`two-towers serve`: serve a bundle over HTTP. This module must load fast, and without PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro

from freemvmt.cli.parsing import parse
from freemvmt.errors import UserError
from freemvmt.runtime.console import Console
from freemvmt.runtime.optional import require
from freemvmt.server.settings import ServeSettings


@dataclass(frozen=True, kw_only=True)
class ServeOptions(ServeSettings):
    """Serve a bundle over HTTP, with a search page. Writing needs the token in TWO_TOWERS_TOKEN off loopback."""

    bundle: Annotated[str | None, tyro.conf.arg(metavar="[BUNDLE]"), tyro.conf.Positional] = None
    """A folder that `index` wrote; none: the docs of the Python packages installed here."""


def serve(argv: Sequence[str]) -> int:
    """Serve a bundle over HTTP, with a search page; with no bundle, the docs installed here."""
    options = parse(ServeOptions, argv, "two-towers serve")
    options.check_exposure()
    for library in ("faiss", "fastapi", "uvicorn", "prometheus_client"):
        if find_spec(library) is None:
            require(library)  # raises an error that names the extra
    console = Console()
    if options.bundle is None:
        if options.backend == "onnx":
            raise UserError("--backend onnx serves a bundle; name one that `two-towers index` wrote")
        from freemvmt.cli.quickstart import pydocs_bundle

        bundle = pydocs_bundle(console)
    else:
        bundle = Path(options.bundle)
    if options.workers:
        from freemvmt.server.supervisor import supervise

        return supervise(bundle, options)
    from freemvmt.server.serve import serve as run_server

    return run_server(bundle, options, console)
