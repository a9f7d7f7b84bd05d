"""`two-towers train`: train two towers and save the best epoch as a model folder."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from freemvmt.cli.parsing import Options, parse
from freemvmt.config import TrainConfig
from freemvmt.runtime.console import QUIET, pasteable

if TYPE_CHECKING:
    from freemvmt.trainer.checkpoints import SavedRun


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainConfig, Options):
    """Train two towers on pairs of queries and passages, and save the best epoch as a model folder."""

    resume: str | None = None
    """Go on with a training that was stopped: the folder of its checkpoints. Its settings need not be given again."""
    resume_anyway: bool = False
    """Go on even where settings, data or versions are not those of the checkpoint."""


def train(argv: Sequence[str], prog: str = "two-towers train") -> int:
    """Train a model and save it."""
    checkpoint = _stopped_training(argv)
    default = None if checkpoint is None else TrainOptions(**dataclasses.asdict(checkpoint.config()))
    options = parse(TrainOptions, argv, prog, default=default)
    from freemvmt.trainer.distributed import is_first_process
    from freemvmt.training import train_and_save

    console = options.console() if is_first_process() else QUIET
    result, output = train_and_save(options.train_config(), console, checkpoint, options.resume_anyway)
    exit_code = 1 if result.ended == "interrupted" else 0
    if not is_first_process():  # only the first process prints
        return exit_code
    stop_note = "" if result.ended == "finished" else f"; stopped: {result.ended}"
    console.line(
        f"val ndcg@10  untrained {result.untrained_ndcg_10:.4f}, trained {result.val_ndcg_10:.4f} "
        f"(epoch {result.best_epoch} of {len(result.history)}{stop_note})"
    )
    scores = result.model.record["scores"]
    if "retention" in scores:
        console.line(
            f"retention    {scores['retention']:.1%} of {scores['frozen_ndcg@10']:.4f}, the frozen tower on both sides"
        )
    console.line(f"saved     {output}")
    if result.ended == "interrupted":
        folder = options.resume or f"{output}.checkpoints"
        console.line(f"next      {pasteable(f'two-towers train --resume {folder}')}      go on where it stopped")
    command = pasteable(f"two-towers evaluate {output} COLLECTION")
    console.line(f"next      {command}      a BEIR folder, or a data set's test split")
    answer = {"model": str(output), "seconds": round(result.seconds, 2), **result.model.record}
    return options.finish(answer, exit_code)


def _stopped_training(argv: Sequence[str]) -> "SavedRun | None":
    """The checkpoint that ``--resume`` names. It is read before the other flags, whose defaults are its settings."""
    folder: str | None = None
    for word, next_word in zip_longest(argv, argv[1:]):
        name, equals, value = word.partition("=")
        if name == "--resume":
            folder = value if equals else next_word
    if folder is None:  # also if the flag is last and has no value, which parsing reports
        return None
    from freemvmt.trainer.checkpoints import last_checkpoint

    return last_checkpoint(Path(folder))
