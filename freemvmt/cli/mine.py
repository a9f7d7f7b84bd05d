"""`two-towers mine`: find hard negatives for training pairs."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from freemvmt.cli.parsing import parse
from freemvmt.config import DataConfig, MiningConfig, TrainConfig, part_of
from freemvmt.runtime.console import counted, pasteable, report


@dataclass(frozen=True, kw_only=True)
class MineOptions(DataConfig, MiningConfig):
    """Find hard negatives for training pairs: rows in MS MARCO's schema, for `train --negatives given`."""

    model: Annotated[str, tyro.conf.arg(metavar="MODEL"), tyro.conf.Positional]
    """A model folder, a name on the Hub, or `untrained`."""
    pairs: Annotated[str, tyro.conf.arg(metavar="DATASET"), tyro.conf.Positional]
    """Anything that --dataset takes."""
    output: str
    """File for the rows: .parquet, or .jsonl."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        MiningConfig.__post_init__(self)


def mine(argv: Sequence[str]) -> int:
    """Find hard negatives for training pairs."""
    options = parse(MineOptions, argv, "two-towers mine")
    from freemvmt.data.writer import check_rows_path, write_rows
    from freemvmt.model import TwoTowersModel
    from freemvmt.runtime.console import Console
    from freemvmt.trainer.dataset import prepare
    from freemvmt.trainer.mining import mine as find_negatives

    console, output = Console(stderr=options.json), Path(options.output)
    check_rows_path(output, [options.pairs])
    model = TwoTowersModel.load(options.model)
    config = TrainConfig(
        **asdict(part_of(options, DataConfig)) | {"dataset": (options.pairs,)},
        base=model.config.base,
        distill=1.0 if options.teacher else 0.0,  # makes the teacher's vectors
        teacher=options.teacher or TrainConfig.teacher,
    )
    data = prepare(config, console, model.tokenizer)
    clock = time.perf_counter()
    with console.progress("mining", len(data.queries)) as bar:
        mined = find_negatives(model, data, part_of(options, MiningConfig), bar)
    write_rows(data.examples, mined.negatives, output)
    found = {"queries": len(mined.negatives), "negatives": len(mined.negatives.ids), "known": mined.known}
    itself = f", and {counted(mined.identical, 'time')} the query itself" if mined.identical else ""
    console.line(
        f"mining    {counted(found['negatives'], 'negative')} of {counted(found['queries'], 'query', 'queries')}; "
        f"left out {mined.known:,} known answers and {mined.near:,} that may be some{itself}",
        time.perf_counter() - clock,
    )
    console.line(f"saved     {output}")
    console.line("next      " + pasteable(f"two-towers train --dataset {output} --negatives given"))
    report(
        options.json,
        {
            "output": str(output),
            "candidates": mined.candidates,
            **found,
            "near": mined.near,
            "identical": mined.identical,
        },
    )
    return 0
