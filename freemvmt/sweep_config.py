"""The named sweeps, in Weights & Biases' sweep format; W&B's agent and Optuna both work from these.

    cd freemvmt && uv run python sweep_config.py --config basic --count 10

A parameter is a field of ``TrainConfig``; a flag of it given beside ``--config`` stays as given and is not searched.
"""

import copy
import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from freemvmt.config import TrainConfig, flag

Name = Literal["basic", "extensive", "quick"]

_RATE = {"distribution": "log_uniform_values", "min": 3e-5, "max": 3e-3}
_BASE = {"method": "bayes", "metric": {"name": "val_ndcg_10", "goal": "maximize"}}

SWEEPS: dict[Name, dict[str, Any]] = {
    # A look at the two that matter most, in minutes.
    "quick": _BASE
    | {
        "parameters": {
            "learning_rate": _RATE,
            "batch_size": {"values": [64, 256, 1024]},
            "epochs": {"value": 1},
            "max_samples": {"value": 5000},
        },
    },
    # The loss as it is, and how it is trained.
    "basic": _BASE
    | {
        "parameters": {
            "learning_rate": _RATE,
            "batch_size": {"values": [64, 256, 1024, 2048, 4096, 8192]},
            "margin": {"min": 0.05, "max": 0.5},
            "epochs": {"min": 1, "max": 5},
        },
        # From the second epoch on, the better half goes on.
        "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 2},
    },
    # Everything that can be changed without reading the data again.
    "extensive": _BASE
    | {
        "parameters": {
            "learning_rate": _RATE,
            "table_rate_factor": {"distribution": "log_uniform_values", "min": 10.0, "max": 1000.0},
            "batch_size": {"values": [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]},
            "epochs": {"min": 1, "max": 10},
            "loss": {"values": ["triplet", "infonce"]},
            "negatives": {"values": ["hardest", "random", "all"]},
            "margin": {"min": 0.05, "max": 0.5},
            "temperature": {"distribution": "log_uniform_values", "min": 0.01, "max": 0.2},
            "idf_scale": {"min": 0.0, "max": 1.0},
        },
        "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 2},
    },
}


@dataclass(frozen=True, kw_only=True)
class SweepOptions(TrainConfig):
    """Search for good settings: with W&B's agent, or with Optuna where W&B is offline or off."""

    config: Name = "basic"
    """Which settings are searched: quick: 2 of them on few rows. basic: 4. extensive: 9."""
    count: int = 10
    """Training runs to make now; a sweep that was stopped goes on from what it has."""
    folder: Path = Path("sweeps")
    """Folder for the study of an offline sweep, and for the plot."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


def definition(name: Name, given: Collection[str] = ()) -> dict[str, Any]:
    """The sweep ``name`` without the parameters ``given``, which keep the value that the user gave."""
    sweep = copy.deepcopy(SWEEPS[name])
    sweep["name"] = name
    for parameter in given:
        sweep["parameters"].pop(parameter, None)
    return sweep


def run_sweep_command(argv: Sequence[str], prog: str = "sweep_config.py") -> int:
    """Run the sweep that the command line ``argv`` asks for; 0, or 1 if it was stopped before its end.

    Raises ``UserError`` for flags that are wrong, and as ``sweeps.run_sweep`` does.
    """
    from freemvmt.shell import parse

    options = parse(SweepOptions, argv, prog)
    from freemvmt.console import Console
    from freemvmt.sweeps import run_sweep

    sweep = definition(options.config, given=_given(argv))
    console = Console(stderr=options.json)
    result = run_sweep(sweep, options.train_config(), count=options.count, folder=options.folder, console=console)
    if options.json:
        sys.stdout.write(json.dumps(result.as_dict()) + "\n")
    return int(result.stopped)


def _given(argv: Sequence[str]) -> set[str]:
    """The settings that ``argv`` names, whether or not they are given their default."""
    words = {word.partition("=")[0].replace("_", "-") for word in argv}
    return {field.name for field in fields(TrainConfig) if {flag(field.name), flag("no_" + field.name)} & words}


if __name__ == "__main__":
    from freemvmt.shell import run

    sys.exit(run(lambda: run_sweep_command(sys.argv[1:]), sys.argv[1:]))
