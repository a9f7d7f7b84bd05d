"""The verbs of `two-towers` that make a model, each a few lines over the package."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from freemvmt.config import DataConfig, MiningConfig, TrainConfig, part_of
from freemvmt.shell import counted, parse, report

if TYPE_CHECKING:
    from freemvmt.learning.checkpoint import Saved


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainConfig):
    """Train two towers on pairs of queries and passages, and save the best epoch as a model folder."""

    resume: str | None = None
    """Go on with a training that was stopped: the folder of its checkpoints. Its settings need not be given again."""
    resume_anyway: bool = False
    """Go on even where settings, data or versions are not those of the checkpoint."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


def train(argv: Sequence[str], prog: str = "two-towers train") -> int:
    """Train a model and save it."""
    saved = _stopped_training(argv)
    default = None if saved is None else TrainOptions(**dataclasses.asdict(saved.config()))
    options = parse(TrainOptions, argv, prog, default=default)
    from freemvmt.console import QUIET, Console
    from freemvmt.learning.ranks import is_first_process
    from freemvmt.training import train_and_save

    console = Console(stderr=options.json) if is_first_process() else QUIET
    result, output = train_and_save(options.train_config(), console, saved, options.resume_anyway)
    if not is_first_process():  # the first one speaks for all
        return 1 if result.ended == "interrupted" else 0
    stopped = "" if result.ended == "finished" else f"; stopped: {result.ended}"
    console.line(
        f"val ndcg@10  untrained {result.untrained_ndcg_10:.4f}, trained {result.val_ndcg_10:.4f} "
        f"(epoch {result.best_epoch} of {len(result.history)}{stopped})"
    )
    console.line(f"saved     {output}")
    if result.ended == "interrupted":
        folder = options.resume or f"{output}.checkpoints"
        console.line(f"next      two-towers train --resume {folder}      go on where it stopped")
    console.line(f"next      two-towers evaluate {output} COLLECTION      a BEIR folder, or a data set's test split")
    report(options.json, {"model": str(output), "seconds": round(result.seconds, 2), **result.model.record})
    return 1 if result.ended == "interrupted" else 0


def _stopped_training(argv: Sequence[str]) -> "Saved | None":
    """The checkpoint that ``--resume`` names: read before the flags, whose defaults are its settings."""
    given: str | None = None
    for word, following in zip_longest(argv, argv[1:]):
        name, equals, value = word.partition("=")
        if name == "--resume":
            given = value if equals else following
    if given is None:  # or the flag stands last, with no value: parsing says so
        return None
    from freemvmt.learning.checkpoint import last_checkpoint

    return last_checkpoint(Path(given))


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
    from freemvmt.console import Console
    from freemvmt.learning.mining import mine as find_negatives
    from freemvmt.learning.preparation import prepare
    from freemvmt.model import TwoTowersModel
    from freemvmt.text.written import check_rows_path, write_rows

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
    console.line(f"next      two-towers train --dataset {output} --negatives given")
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


def sweep(argv: Sequence[str]) -> int:
    """Search for good settings."""
    from freemvmt.sweep_config import run_sweep_command

    return run_sweep_command(argv, prog="two-towers sweep")


def quickstart(argv: Sequence[str]) -> int:
    """Train, measure and search the docs of the Python packages installed here."""
    from freemvmt.quickstart import QuickstartOptions, run_quickstart

    options = parse(QuickstartOptions, argv, "two-towers quickstart")
    from freemvmt.console import Console

    report(options.json, run_quickstart(options, Console(stderr=options.json)))
    return 0
