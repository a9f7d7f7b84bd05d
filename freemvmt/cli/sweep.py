"""`two-towers sweep`: search for good settings."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from freemvmt.cli.parsing import Options, parse
from freemvmt.config import TrainConfig, flag
from freemvmt.tuning.spaces import Name, definition


@dataclass(frozen=True, kw_only=True)
class SweepOptions(TrainConfig, Options):
    """Search for good settings: with W&B's agent, or with Optuna where W&B is offline or off."""

    config: Name = "basic"
    """Which settings are searched: quick: 2 of them on few rows. basic: 4. extensive: 9."""
    count: int = 10
    """Training runs to make now; a sweep that was stopped goes on from what it has."""
    jobs: int = 0
    """Trials at a time, each in a process of its own; 0: two where cores and memory allow it and it saves time. With a
    W&B server always one."""
    folder: Path = Path("sweeps")
    """Folder for the study of an offline sweep, and for the plot."""


def run_sweep_command(argv: Sequence[str], prog: str = "sweep_config.py") -> int:
    """Run the sweep of the command line ``argv``; return 0, or 1 if it was stopped before its end.

    Raises ``UserError`` if a flag is wrong, and as ``tuning.run.run_sweep`` does.
    """
    options = parse(SweepOptions, argv, prog)
    from freemvmt.tuning.run import run_sweep

    sweep_definition = definition(options.config, fixed=_given(argv))
    console = options.console()
    result = run_sweep(
        sweep_definition,
        options.train_config(),
        count=options.count,
        jobs=options.jobs,
        folder=options.folder,
        console=console,
    )
    return options.finish(result.as_dict(), int(result.stopped))


def _given(argv: Sequence[str]) -> set[str]:
    """The settings whose flag is in ``argv``, also with the default as its value."""
    words = {word.partition("=")[0].replace("_", "-") for word in argv}
    return {field.name for field in fields(TrainConfig) if {flag(field.name), flag("no_" + field.name)} & words}


def sweep(argv: Sequence[str]) -> int:
    """Search for good settings."""
    return run_sweep_command(argv, prog="two-towers sweep")
