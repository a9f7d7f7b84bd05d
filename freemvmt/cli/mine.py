"""`two-towers mine`: find hard negatives for training pairs."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from freemvmt.cli.parsing import ModelArgument, Options, parse
from freemvmt.config import DataConfig, MiningConfig, TrainConfig, part_of
from freemvmt.runtime.console import count_of, pasteable


@dataclass(frozen=True, kw_only=True)
class MineOptions(DataConfig, MiningConfig, Options):
    """Find hard negatives for training pairs: rows in MS MARCO's schema, for `train --negatives given`."""

    model: ModelArgument
    pairs: Annotated[str, tyro.conf.arg(metavar="DATASET"), tyro.conf.Positional]
    """Anything that --dataset takes."""
    output: str
    """File for the rows: .parquet, or .jsonl."""

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        MiningConfig.__post_init__(self)


def mine(argv: Sequence[str]) -> int:
    """Find hard negatives for training pairs."""
    options = parse(MineOptions, argv, "two-towers mine")
    from freemvmt.data.writer import check_rows_path, write_rows
    from freemvmt.model import TwoTowersModel
    from freemvmt.trainer.dataset import prepare
    from freemvmt.trainer.mining import mine as find_negatives

    console, output = options.console(), Path(options.output)
    check_rows_path(output, [options.pairs])
    model = TwoTowersModel.load(options.model)
    config = TrainConfig(
        **asdict(part_of(options, DataConfig)) | {"dataset": (options.pairs,)},
        base=model.config.base,
        distill=1.0 if options.teacher else 0.0,  # so that `prepare` makes the teacher's vectors
        teacher=options.teacher or TrainConfig.teacher,
    )
    data = prepare(config, console, model.tokenizer)
    clock = time.perf_counter()
    with console.progress("mining", len(data.queries)) as bar:
        result = find_negatives(model, data, part_of(options, MiningConfig), bar)
    write_rows(data.examples, result.negatives, output)
    counts = {"queries": len(result.negatives), "negatives": len(result.negatives.ids), "known": result.known}
    identical_note = f", and {count_of(result.identical, 'time')} the query itself" if result.identical else ""
    console.line(
        f"mining    {count_of(counts['negatives'], 'negative')} of {count_of(counts['queries'], 'query', 'queries')}; "
        f"left out {result.known:,} known answers and {result.near:,} that may be some{identical_note}",
        time.perf_counter() - clock,
    )
    console.line(f"saved     {output}")
    console.line("next      " + pasteable(f"two-towers train --dataset {output} --negatives given"))
    return options.finish(
        {
            "output": str(output),
            "candidates": result.candidates,
            **counts,
            "near": result.near,
            "identical": result.identical,
        }
    )
