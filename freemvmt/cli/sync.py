"""`two-towers sync`: bring a bundle in step with a folder of files."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Optional

import tyro

from freemvmt.cli.parsing import BundleArgument, FolderOptions, Options, parse
from freemvmt.runtime.console import Console, count_of

if TYPE_CHECKING:
    from freemvmt.search.bundle.sync import SyncCounts
    from freemvmt.search.retriever import Retriever


@dataclass(frozen=True, kw_only=True)
class SyncOptions(FolderOptions, Options):
    """Add to a bundle what is new in a folder, replace what has changed, and delete what is gone, in one change."""

    bundle: BundleArgument
    # Of ``str | None`` tyro would import typeguard, which takes long.
    folder: Annotated[Optional[str], tyro.conf.arg(metavar="[FOLDER]"), tyro.conf.Positional] = None  # noqa: UP045
    """The folder of files; none: the one that the bundle was made from, with the globs of then."""
    watch: bool = False
    """Look at the folder again every two seconds, until ctrl-C."""


def sync(argv: Sequence[str]) -> int:
    """Bring a bundle in step with a folder of files."""
    options = parse(SyncOptions, argv, "two-towers sync")
    from freemvmt.errors import UserError
    from freemvmt.search.retriever import Retriever

    if options.watch and options.json:
        raise UserError("--watch goes on, and --json prints one object at the end; leave one of them out")
    console, retriever = options.console(), Retriever.load(options.bundle)
    counts = _sync(retriever, options, console)
    if options.watch:
        with suppress(KeyboardInterrupt):
            _watch(retriever, options, console)
    return options.finish({**asdict(counts), "documents": len(retriever)})


def _watch(retriever: "Retriever", options: SyncOptions, console: Console) -> None:
    """Bring the bundle in step again and again; a problem is a line."""
    from freemvmt.search.bundle.sync import INTERVAL, follow

    time.sleep(INTERVAL)
    follow(
        lambda: _sync(retriever, options, console, quiet=True),
        lambda problem: console.line(f"note      {problem}"),
        threading.Event(),
    )


def _sync(retriever: "Retriever", options: SyncOptions, console: Console, quiet: bool = False) -> "SyncCounts":
    """Bring the bundle in step once; ``quiet`` prints nothing if nothing has changed."""
    from freemvmt.data.files.report import FolderReport
    from freemvmt.search.bundle.sync import folder_of, sync

    clock, report = time.perf_counter(), FolderReport()
    counts = sync(retriever, *folder_of(retriever, options.folder, options), report)
    if counts.changes or not quiet:
        report.print(console)
        console.line(
            f"synced    added {counts.added:,}, replaced {counts.replaced:,}, deleted {counts.deleted:,}, "
            f"unchanged {counts.unchanged:,}; {count_of(len(retriever), 'document')} in {options.bundle}",
            time.perf_counter() - clock,
        )
    return counts
