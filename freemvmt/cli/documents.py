"""`two-towers add` and `two-towers delete`: change the documents of a bundle without indexing it again."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from freemvmt.cli.parsing import BundleArgument, FolderOptions, Options, parse
from freemvmt.runtime.console import count_of


@dataclass(frozen=True, kw_only=True)
class AddOptions(FolderOptions, Options):
    """Add documents to a bundle, or replace those with the same ids; they are found at once."""

    bundle: BundleArgument
    corpus: Annotated[str, tyro.conf.arg(metavar="CORPUS"), tyro.conf.Positional]
    """Documents, in any form that `index` reads."""


def add(argv: Sequence[str]) -> int:
    """Add documents to a bundle, without indexing it again."""
    options = parse(AddOptions, argv, "two-towers add")
    from freemvmt.data.corpus import read_documents_once
    from freemvmt.data.files.report import FolderReport
    from freemvmt.search.retriever import Retriever
    from freemvmt.search.stores.filters import ignored_note

    console = options.console()
    report = FolderReport()
    documents = read_documents_once(options.corpus, options, report)
    report.print(console)
    retriever = Retriever.load(options.bundle)
    clock = time.perf_counter()
    counts = retriever.add(documents)
    console.line(
        f"added     {count_of(counts.added, 'document')}, replaced {counts.replaced:,}; "
        f"{len(retriever):,} in {options.bundle}",
        time.perf_counter() - clock,
    )
    if counts.unseen:
        console.line(f"note      {ignored_note(counts.unseen)}")
    changes = {"added": counts.added, "replaced": counts.replaced, "documents": len(retriever), "unseen": counts.unseen}
    return options.finish(changes | report.summary())


@dataclass(frozen=True, kw_only=True)
class DeleteOptions(Options):
    """Delete documents from a bundle by their ids."""

    bundle: BundleArgument
    ids: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ID"), tyro.conf.Positional]
    """Ids of documents."""


def delete(argv: Sequence[str]) -> int:
    """Delete documents from a bundle."""
    options = parse(DeleteOptions, argv, "two-towers delete")
    from freemvmt.errors import UserError
    from freemvmt.search.retriever import Retriever

    console = options.console()
    if not options.ids:
        raise UserError("no id is given; name the documents to delete")
    retriever = Retriever.load(options.bundle)
    deleted_ids = retriever.delete(options.ids)
    missing_ids = [document_id for document_id in dict.fromkeys(options.ids) if document_id not in deleted_ids]
    console.line(f"deleted   {count_of(len(deleted_ids), 'document')}; {len(retriever):,} left in {options.bundle}")
    if missing_ids:
        console.line(f"          not there: {', '.join(missing_ids[:5])}{', …' if len(missing_ids) > 5 else ''}")
    return options.finish({"deleted": deleted_ids, "missing": missing_ids, "documents": len(retriever)})
