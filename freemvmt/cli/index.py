"""`two-towers index`: build a bundle from a model and a corpus."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from freemvmt.cli.parsing import CorpusArgument, FolderOptions, ModelArgument, Options, parse
from freemvmt.runtime.console import pasteable


@dataclass(frozen=True, kw_only=True)
class IndexOptions(FolderOptions, Options):
    """Index a corpus with a model into a bundle, which is searched, served and moved as one folder."""

    model: ModelArgument
    corpus: CorpusArgument
    output: str
    """Folder for the bundle; a bundle that is there is replaced when the new one is ready."""
    kind: Literal["auto", "exact", "pq", "ivf", "binary", "hnsw"] = "auto"
    """How vectors are searched. exact: all of them. pq, binary: a sketch of all, of 2 or 1 bit a dimension, then the
    best of it. ivf: the sketches of the nearest cells. hnsw: a graph. auto: by size."""
    quantize: Literal["fp32", "fp16", "int8"] = "fp32"
    """What a dimension of a vector is kept in: 4, 2 or 1 byte."""
    dim: int | None = None
    """Keep so many dimensions of the model's vectors; None: all."""
    store: str | None = None
    """Put the documents into Milvus: `milvus://host:port/collection`, or a file FILE.db for the one within; None: into
    files of the bundle."""
    cut: bool = True
    """Cut documents that are longer than the document tower reads into passages (--no-cut: read their beginning)."""


def index(argv: Sequence[str]) -> int:
    """Index a corpus with a model into a bundle."""
    options = parse(IndexOptions, argv, "two-towers index")
    from freemvmt.data.files.report import FolderReport
    from freemvmt.errors import UserError
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.bundle.build import build
    from freemvmt.search.bundle.files import check_output
    from freemvmt.storage.files import size_of

    console = options.console()
    output = Path(options.output)
    check_output(output, [options.corpus])
    if options.dim is not None and options.dim < 1:
        raise UserError(f"--dim is {options.dim}; give 1 or more")
    clock = time.perf_counter()
    kind = None if options.kind == "auto" else options.kind
    report = FolderReport()
    manifest = build(
        TwoTowersModel.load(options.model),
        options.corpus,
        output,
        kind=kind,
        stored=options.quantize,
        dim=options.dim,
        store=options.store,
        cut=options.cut,
        files=options,
        report=report,
        console=console,
    )
    size = size_of(output)
    console.line(f"saved     {output} ({size / 1e6:,.0f} MB)", time.perf_counter() - clock)
    console.line("next      " + pasteable(f'two-towers search {output} "your question"'))
    console.line("          " + pasteable(f"two-towers serve {output}"))
    summary = {key: value for key, value in manifest.items() if key != "files"}
    return options.finish({"output": str(output), "bytes": size, **report.summary(), **summary})
