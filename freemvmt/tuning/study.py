"""A sweep in W&B's format as an Optuna study in a file, which the next call continues."""

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

STARTUP_TRIALS = 5  # random trials, before the sampler learns from scores


def missing_packages() -> list[str]:
    """The packages of the extra ``sweep`` that are not installed."""
    return [name for name in ("optuna", "sklearn", "matplotlib") if find_spec(name) is None]


def distribution(name: str, spec: dict[str, Any]) -> "BaseDistribution":
    """Optuna's counterpart of the W&B parameter ``name``; ``ValueError`` if there is none."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "values" in spec:
        return CategoricalDistribution(spec["values"])
    low, high = spec["min"], spec["max"]
    is_int = isinstance(low, int) and isinstance(high, int)
    kind = spec.get("distribution", "int_uniform" if is_int else "uniform")
    if kind == "int_uniform":
        return IntDistribution(low, high)
    if kind == "uniform":
        return FloatDistribution(low, high)
    if kind == "q_uniform":
        step = spec.get("q", 1)
        return IntDistribution(low, high, step=step) if is_int else FloatDistribution(low, high, step=step)
    if kind == "log_uniform_values":
        return FloatDistribution(low, high, log=True)
    if kind == "q_log_uniform_values" and is_int and spec.get("q", 1) == 1:
        return IntDistribution(low, high, log=True)
    raise ValueError(f"sweep parameter {name}: no counterpart of {spec} in Optuna")


@contextmanager
def open_study(path: Path, name: str, early_terminate: dict[str, Any] | None, seed: int) -> Iterator["optuna.Study"]:
    """Yield the study ``name`` in the SQLite file ``path``, which is created if it is missing.

    Only one process at a time can open it. Trials that a killed process left running are marked as failed. Raises
    ``UserError`` if another process has the study open, and if the file cannot be written or is no study.
    """
    import optuna
    from optuna.trial import TrialState
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study_errors = (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, ValueError, KeyError, TypeError)
    message = f"{path} is not a study of this Optuna, or damaged; move it away, or give another --folder"
    with ExitStack() as stack:
        _lock(stack, path)
        try:
            engine_options = {"creator": lambda: _connection(path)}
            storage = optuna.storages.RDBStorage("sqlite:///study", engine_kwargs=engine_options)
        except study_errors as error:
            raise UserError(message) from error
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
            except study_errors as error:
                raise UserError(message) from error
            # The seed grows with the study: else a continued study would draw the same settings again.
            study.sampler = optuna.samplers.TPESampler(
                seed=seed + len(study.trials), n_startup_trials=STARTUP_TRIALS, multivariate=True
            )
            yield study
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _connection(path: Path) -> sqlite3.Connection:
    """Connect to the SQLite file by its path: in a URL, `?`, `%` and `#` have a meaning.

    SQLite commits by removing its journal, and by default does not sync the folder then. A power cut could bring the
    journal back, which undoes the commit: a finished trial would be lost. With EXTRA, SQLite syncs the folder.
    """
    connection = sqlite3.connect(path.absolute(), check_same_thread=False)
    connection.execute("PRAGMA synchronous = EXTRA")
    return connection


def _pruner(early_terminate: dict[str, Any] | None) -> "optuna.pruners.BasePruner":
    """A pruner with the rule of W&B's hyperband: from epoch ``min_iter`` on, the best 1/``eta`` of trials continue."""
    import optuna

    if early_terminate is None:
        return optuna.pruners.NopPruner()
    percentile = 100 / early_terminate.get("eta", 3)
    return optuna.pruners.PercentilePruner(percentile, n_startup_trials=3, n_warmup_steps=early_terminate["min_iter"])


def _lock(stack: ExitStack, path: Path) -> None:
    """Hold the lock of the study ``path`` until ``stack`` closes; create the study's folder if it is missing."""
    lock_file = path.with_suffix(".lock")
    try:
        make_folders(path.parent)
        stack.enter_context(
            locked(lock_file, f"another process runs this sweep ({lock_file}); wait, or give another --folder")
        )
    except NoLocks as error:
        raise UserError(f"the file system of {path.parent} does not know locks; give another --folder") from error
    except OSError as error:
        raise UserError(f"cannot write to {path.parent} ({error.strerror}); give another --folder") from error
