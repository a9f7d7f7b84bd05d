"""A sweep in W&B's format as a study of Optuna, kept in a file that the next call goes on from."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freemvmt.errors import UserError
from freemvmt.storage.files import make_folders
from freemvmt.storage.locks import NoLocks, locked

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

STARTUP_TRIALS = 5  # drawn at random before the sampler has something to go by


def missing_packages() -> list[str]:
    """Those of the extra ``sweep`` that are not installed."""
    return [name for name in ("optuna", "sklearn", "matplotlib") if find_spec(name) is None]


def distribution(name: str, spec: dict[str, Any]) -> "BaseDistribution":
    """Optuna's counterpart of the W&B parameter ``name``; ``ValueError`` if there is none."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "values" in spec:
        return CategoricalDistribution(spec["values"])
    low, high = spec["min"], spec["max"]
    whole = isinstance(low, int) and isinstance(high, int)
    kind = spec.get("distribution", "int_uniform" if whole else "uniform")
    if kind == "int_uniform":
        return IntDistribution(low, high)
    if kind == "uniform":
        return FloatDistribution(low, high)
    if kind == "q_uniform":
        step = spec.get("q", 1)
        return IntDistribution(low, high, step=step) if whole else FloatDistribution(low, high, step=step)
    if kind == "log_uniform_values":
        return FloatDistribution(low, high, log=True)
    if kind == "q_log_uniform_values" and whole and spec.get("q", 1) == 1:
        return IntDistribution(low, high, log=True)
    raise ValueError(f"sweep parameter {name}: no counterpart of {spec} in Optuna")


@contextmanager
def open_study(path: Path, name: str, early_terminate: dict[str, Any] | None, seed: int) -> Iterator["optuna.Study"]:
    """The study ``name`` in the SQLite file ``path``, made if it is not there; for one process at a time.

    A trial that a killed process left running is marked as failed. Raises ``UserError`` if another process has it,
    and if the file cannot be written or is something else.
    """
    import optuna
    from optuna.trial import TrialState
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    refused = (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, ValueError, KeyError, TypeError)
    what = f"{path} is not a study of this Optuna, or damaged; move it away, or give another --folder"
    with ExitStack() as alone:
        _be_alone(alone, path)
        try:
            connect = {"creator": lambda: _connection(path)}
            storage = optuna.storages.RDBStorage("sqlite:///study", engine_kwargs=connect)
        except refused as error:
            raise UserError(what) from error
        try:
            try:
                study = optuna.create_study(
                    study_name=name,
                    storage=storage,
                    direction="maximize",
                    pruner=_pruner(early_terminate),
                    load_if_exists=True,
                )
                for trial in study.get_trials(deepcopy=False):
                    if trial.state == TrialState.RUNNING:
                        study.tell(trial.number, state=TrialState.FAIL)
            except refused as error:
                raise UserError(what) from error
            # The seed moves on with the study: else one that goes on would draw the same again.
            study.sampler = optuna.samplers.TPESampler(
                seed=seed + len(study.trials), n_startup_trials=STARTUP_TRIALS, multivariate=True
            )
            yield study
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _connection(path: Path) -> sqlite3.Connection:
    """SQLite's file as it is called: in an address `?`, `%` and `#` would mean something.

    A commit is done when the journal is removed. By itself SQLite does not sync the folder then, and a power cut could
    bring the journal back, which undoes the commit: a trial that was done would be gone.
    """
    found = sqlite3.connect(path.absolute(), check_same_thread=False)
    found.execute("PRAGMA synchronous = EXTRA")
    return found


def _pruner(early_terminate: dict[str, Any] | None) -> "optuna.pruners.BasePruner":
    """W&B's hyperband and this percentile are one rule: from epoch ``min_iter`` on, the best 1/``eta`` go on."""
    import optuna

    if early_terminate is None:
        return optuna.pruners.NopPruner()
    keep = 100 / early_terminate.get("eta", 3)
    return optuna.pruners.PercentilePruner(keep, n_startup_trials=3, n_warmup_steps=early_terminate["min_iter"])


def _be_alone(alone: ExitStack, path: Path) -> None:
    """Have the study ``path`` to this process until ``alone`` ends, in a folder that is made if it is not there."""
    lock = path.with_suffix(".lock")
    try:
        make_folders(path.parent)
        alone.enter_context(locked(lock, f"another process runs this sweep ({lock}); wait, or give another --folder"))
    except NoLocks as error:
        raise UserError(f"the file system of {path.parent} does not know locks; give another --folder") from error
    except OSError as error:
        raise UserError(f"cannot write to {path.parent} ({error.strerror}); give another --folder") from error
