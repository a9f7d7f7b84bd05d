"""The named sweeps, in Weights & Biases' sweep format, which W&B's agent and ``study`` (Optuna) read.

A parameter is a field of ``TrainConfig``. If its flag is given beside ``--config``, it keeps that value and is not
searched.
"""

import copy
from collections.abc import Collection
from typing import Any, Literal

Name = Literal["basic", "extensive", "quick"]


_RATE = {"distribution": "log_uniform_values", "min": 3e-5, "max": 3e-3}


_BASE = {"method": "bayes", "metric": {"name": "val_ndcg_10", "goal": "maximize"}}


SWEEPS: dict[Name, dict[str, Any]] = {
    # The two settings that matter most, in minutes.
    "quick": _BASE
    | {
        "parameters": {
            "learning_rate": _RATE,
            "batch_size": {"values": [64, 256, 1024]},
            "epochs": {"value": 1},
            "max_samples": {"value": 5000},
        },
    },
    # The margin of the default loss, and how it is trained.
    "basic": _BASE
    | {
        "parameters": {
            "learning_rate": _RATE,
            "batch_size": {"values": [64, 256, 1024, 2048, 4096, 8192]},
            "margin": {"min": 0.05, "max": 0.5},
            "epochs": {"min": 1, "max": 5},
        },
        # From the second epoch on, only the better half of the trials continues.
        "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 2},
    },
    # Settings that can change without reading the data again.
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


def definition(name: Name, fixed: Collection[str] = ()) -> dict[str, Any]:
    """The sweep ``name`` without the parameters ``fixed``, which the user has set."""
    sweep = copy.deepcopy(SWEEPS[name])
    sweep["name"] = name
    for parameter in fixed:
        sweep["parameters"].pop(parameter, None)
    return sweep
