"""Run a sweep that is defined in W&B's format: by W&B's agent, or by Optuna where W&B is offline or off.

Both train with the same function, on data that is read once. Both end with the same report: a table of the trials, the
flags of the best trial, and a plot.
"""

import contextlib
import dataclasses
import io
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freemvmt.config import NOT_THE_RESULT, TrainConfig, replace
from freemvmt.errors import UserError
from freemvmt.runtime.console import QUIET, Console
from freemvmt.storage.digests import sha256_of_text
from freemvmt.storage.outputs import check_sweeps
from freemvmt.trainer import tracking
from freemvmt.trainer.tracking import Tracker, WandbTracker
from freemvmt.tuning.report import State, SweepResult, Trial, report
from freemvmt.tuning.study import distribution, missing_packages, open_study

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from freemvmt.trainer.dataset import TrainingData
    from freemvmt.trainer.result import TrainingResult


_logger = logging.getLogger(__name__)


Prepare = Callable[[TrainConfig, Console], "TrainingData"]
Train = Callable[..., "TrainingResult"]  # as freemvmt.training.train


def run_sweep(
    definition: dict[str, Any],
    config: TrainConfig,
    *,
    count: int,
    folder: Path = Path("sweeps"),
    console: Console = QUIET,
    prepare: Prepare | None = None,
    train: Train | None = None,
) -> SweepResult:
    """Train ``count`` times with settings that ``definition`` searches, all others as in ``config``, and report.

    A W&B server chooses the settings if ``config.wandb`` is set and W&B is online with a key; else Optuna chooses them.
    Optuna keeps its study in ``folder``, and the next call continues it. After SIGINT the sweep ends with its report.

    Raises ``UserError`` if there is nothing to search, if Optuna is needed and missing, if W&B refuses the sweep, and
    if no trial is complete.
    """
    if count < 1:
        raise UserError(f"--count is {count}; give 1 or more")
    if prepare is None or train is None:
        from freemvmt import training
        from freemvmt.trainer import dataset as preparation

        prepare, train = prepare or preparation.prepare, train or training.train
    parameters = definition["parameters"]
    config = replace(config, {name: spec["value"] for name, spec in parameters.items() if "value" in spec})
    if not any("value" not in spec for spec in parameters.values()):
        raise UserError("every setting of this sweep is given by a flag, so there is nothing to search; leave one out")
    online = config.wandb and tracking.signed_in()
    if not online and (missing := missing_packages()):
        raise UserError(f"a sweep without a W&B server needs {', '.join(missing)}; install two-towers[sweep]")
    check_sweeps(folder)
    data = prepare(config, console)
    definition = _fitting(definition, len(data.examples.pairs()[0]))
    sweep = _Sweep(definition, config, data, train, console)
    if config.wandb and not online:
        console.line("wandb     there is no key, or it is off or offline, so Optuna chooses the settings")
    if online:
        sweep.with_wandb(count)
    else:
        sweep.with_optuna(count, folder)
    if not any(trial.state == "complete" for trial in sweep.trials) and not sweep.stopped:
        raise UserError("no trial came to its end; see the warnings above")
    return report(definition["name"], config, sweep.trials, folder, console, sweep.stopped)


def _fitting(definition: dict[str, Any], pairs: int) -> dict[str, Any]:
    """``definition`` without the batch sizes that exceed the number of training pairs."""
    sizes = definition["parameters"].get("batch_size", {}).get("values")
    if not sizes:
        return definition
    fit = [size for size in sizes if size <= pairs] or [max(2, pairs)]
    return definition | {"parameters": definition["parameters"] | {"batch_size": {"values": fit}}}


class _Sweep:
    """One call of ``run_sweep``: the input that all its trials share, and the trials so far."""

    def __init__(
        self, definition: dict[str, Any], config: TrainConfig, data: "TrainingData", train: Train, console: Console
    ) -> None:
        self._definition, self._config, self._data = definition, config, data
        self._train, self._console = train, console
        self._name: str = definition["name"]
        self._space = {name: spec for name, spec in definition["parameters"].items() if "value" not in spec}
        self.trials: list[Trial] = []
        self.stopped = False
        self._offline_runs = ""  # path pattern of W&B's offline runs

    def with_wandb(self, count: int) -> None:
        """Run ``count`` trials; a W&B server chooses their settings."""
        import wandb

        project = tracking.project(self._config)
        with _environment("WANDB_SILENT", "true"):  # the agent reads it before each run
            try:
                with contextlib.redirect_stdout(io.StringIO()) as output:
                    sweep = wandb.sweep(self._definition, project=project)
            except Exception as error:
                reason = str(error).partition("\n")[0]
                raise UserError(f"W&B did not take the sweep ({reason}); --no-wandb searches without it") from error
            url = output.getvalue().partition("Sweep URL: ")[2].strip()
            self._console.line(f"sweep     {self._name}, W&B chooses: {url or sweep}")
            wandb.agent(sweep, self._wandb_trial, project=project, count=count)
        self.stopped = len(self.trials) < count

    def _wandb_trial(self) -> None:
        tracker = tracking.start(self._config, extra={"sweep_name": self._name}, announce=False)
        if not isinstance(tracker, WandbTracker):
            raise RuntimeError("W&B did not start, so it has chosen no settings")
        settings = {name: tracker.config[name] for name in self._space}
        start, number = time.perf_counter(), len(self.trials)
        scores: list[float] = []
        state: State = "complete"
        try:
            scores.append(self._run(settings, tracker, lambda epoch, score: scores.append(score)))
        except Exception as error:
            state = "pruned" if tracking.stopped_by_agent(error) else "failed"
            if state == "failed" and not isinstance(error, UserError):
                raise  # the agent prints the error, and ends a sweep whose first runs all fail
            if state == "failed":
                _logger.warning("trial %d failed: %s", number, error)
        finally:
            self._add(Trial(number, max(scores, default=None), state, settings), start)

    def with_optuna(self, count: int, folder: Path) -> None:
        """Run ``count`` trials; Optuna chooses their settings, and continues the study in ``folder``."""
        import optuna
        from optuna.trial import TrialState

        path = folder / f"{self._name}.db"
        distributions = {name: distribution(name, spec) for name, spec in self._space.items()}
        early_terminate = self._definition.get("early_terminate")
        with open_study(path, f"{self._name} {self._fingerprint()}", early_terminate, self._config.seed) as study:
            if not study.trials:  # the first trial trains as without a sweep, so the best trial is no worse
                study.enqueue_trial(self._defaults())
            finished_count = sum(trial.state.is_finished() for trial in study.trials)
            note = f", after {finished_count} trials" if finished_count else ""
            self._console.line(f"sweep     {self._name}, Optuna chooses{note}: {path}")
            try:
                for _ in range(count):
                    start, trial = time.perf_counter(), study.ask(distributions)
                    try:
                        study.tell(trial, self._optuna_trial(trial))
                    except optuna.TrialPruned:
                        study.tell(trial, state=TrialState.PRUNED)
                    except KeyboardInterrupt:
                        study.tell(trial, state=TrialState.FAIL)
                        raise
                    except Exception as error:
                        study.tell(trial, state=TrialState.FAIL)
                        if trial.number >= 2 and all(other.state == TrialState.FAIL for other in study.trials):
                            raise
                        _logger.warning("trial %d failed: %s", trial.number, error)
                    self._add(_trial(study.trials[trial.number]), start)
            except KeyboardInterrupt:
                self.stopped = True
            self.trials = [_trial(trial) for trial in study.trials if trial.state.is_finished()]
        if self._offline_runs:
            self._console.line(
                f"wandb     each trial is an offline run; to upload them: wandb sync {self._offline_runs}"
            )

    def _optuna_trial(self, trial: "optuna.Trial") -> float:
        import optuna

        config = replace(self._config, trial.params)

        def on_epoch(epoch: int, score: float) -> None:
            trial.report(score, epoch)
            if epoch < config.epochs and trial.should_prune():
                raise optuna.TrialPruned

        extra: dict[str, object] = {"sweep_name": self._name, "trial": trial.number}
        return self._run(trial.params, tracking.start(config, extra=extra, announce=False, online=False), on_epoch)

    def _run(self, settings: dict[str, Any], tracker: Tracker, on_epoch: Callable[[int, float], None]) -> float:
        config = replace(self._config, settings)
        if isinstance(tracker, WandbTracker):
            self._offline_runs = tracker.offline_runs
        failed = True
        try:
            result = self._train(config, self._data, tracker=tracker, console=self._console, on_epoch=on_epoch)
            failed = False
        finally:
            tracker.finish(failed=failed)
        if result.ended == "interrupted":  # the training caught the SIGINT, which must end the sweep too
            raise KeyboardInterrupt
        return result.val_ndcg_10

    def _add(self, trial: Trial, start: float) -> None:
        self.trials.append(trial)
        self._console.line(f"trial {trial}", time.perf_counter() - start)

    def _defaults(self) -> dict[str, Any]:
        """The values of the searched settings in ``config``, where the search allows them."""

        def allowed(value: Any, spec: dict[str, Any]) -> bool:
            return value in spec["values"] if "values" in spec else spec["min"] <= value <= spec["max"]

        values = {name: getattr(self._config, name) for name in self._space}
        return {
            name: value for name, value in values.items() if value is not None and allowed(value, self._space[name])
        }

    def _fingerprint(self) -> str:
        """A hash of all that scores depend on: scores on other data or with other fixed settings are not comparable."""
        fixed_settings = {
            name: value for name, value in dataclasses.asdict(self._config).items() if name not in NOT_THE_RESULT
        }
        data = [self._data.name, len(self._data.examples.pairs()[0])]
        text = json.dumps([self._definition, fixed_settings, data], sort_keys=True)
        return sha256_of_text(text)[:12]


def _trial(frozen: "FrozenTrial") -> Trial:
    states: dict[str, State] = {"COMPLETE": "complete", "PRUNED": "pruned"}
    return Trial(frozen.number, frozen.value, states.get(frozen.state.name, "failed"), frozen.params)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    old_value = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if old_value is None:
            del os.environ[name]
        else:
            os.environ[name] = old_value
