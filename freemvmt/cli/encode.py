"""`two-towers encode`: write the vectors of a corpus as Parquet shards."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from freemvmt.cli.parsing import CorpusArgument, FolderOptions, ModelArgument, Options, parse
from freemvmt.config import Side


@dataclass(frozen=True, kw_only=True)
class EncodeOptions(FolderOptions, Options):
    """Write the vectors of a corpus as Parquet shards, which any engine reads; a run that was stopped goes on."""

    model: ModelArgument
    corpus: CorpusArgument
    output: str
    """Folder for the shards and their manifest."""
    side: Side = "documents"
    """Which tower encodes."""
    stored: Literal["fp32", "fp16"] = "fp32"
    """What a dimension is kept in."""
    shard: int = 100_000
    """Documents a file."""
    engine: Literal["local", "ray"] = "local"
    """Who encodes: this process, or Ray Data, on this machine or a cluster (Ray listens on every interface)."""
    ray_address: str | None = None
    """ray: the cluster's address, all of which sees MODEL and the output; None: started on this machine."""


def encode(argv: Sequence[str]) -> int:
    """Write the vectors of a corpus as Parquet shards."""
    options = parse(EncodeOptions, argv, "two-towers encode")
    from freemvmt.data.files.report import FolderReport
    from freemvmt.errors import UserError
    from freemvmt.export import vectors as encoding
    from freemvmt.model import TwoTowersModel

    if options.shard < 1:
        raise UserError(f"--shard is {options.shard}; give 1 or more")
    console, output = options.console(), Path(options.output)
    encoding.check_output(output, options.corpus)
    clock = time.perf_counter()
    model = TwoTowersModel.load(options.model)
    engine = None
    if options.engine == "ray":
        from freemvmt.export.ray import on_ray

        engine = on_ray(model, options.model, output, options.side, options.stored, options.ray_address)
    elif options.ray_address is not None:
        raise UserError("--ray-address is for --engine ray; add it, or leave the address out")
    report = FolderReport()
    manifest = encoding.encode(
        model,
        options.corpus,
        output,
        side=options.side,
        stored=options.stored,
        shard=options.shard,
        files=options,
        report=report,
        engine=engine,
        console=console,
    )
    console.line(f"saved     {output}", time.perf_counter() - clock)
    summary = {key: value for key, value in manifest.items() if key != "files"}
    return options.finish({"output": str(output), **report.summary(), **summary})
