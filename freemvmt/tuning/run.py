"""Run a sweep that is defined in W&B's format: by W&B's agent, or by Optuna where W&B is offline or off.

Both train with the same function. Both end with the same report: a table of the trials, the flags of the best trial,
and a plot. Optuna's trials train one at a time in this process, on data that is read once, or several at a time in
workers.
"""

import contextlib
import dataclasses
import io
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freemvmt.config import NOT_THE_RESULT, TrainConfig, replace
from freemvmt.errors import UserError, first_line
from freemvmt.runtime.console import QUIET, Console, count_of
from freemvmt.runtime.devices import return_freed_memory
from freemvmt.storage.digests import sha256_of_text
from freemvmt.storage.outputs import check_sweeps
from freemvmt.trainer import tracking
from freemvmt.trainer.signals import interruption
from freemvmt.trainer.tracking import WandbTracker
from freemvmt.tuning.jobs import jobs_for
from freemvmt.tuning.report import State, SweepResult, Trial, report
from freemvmt.tuning.study import distribution, missing_packages, open_study
from freemvmt.tuning.trial import OWN, Trainer, Training, identity, offline_runs, offline_tracker
from freemvmt.tuning.workers import End, Epoch, Started, Workers, threads_of_each

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


_logger = logging.getLogger(__name__)


def run_sweep(
    definition: dict[str, Any],
    config: TrainConfig,
    *,
    count: int,
    jobs: int = 0,
    folder: Path = Path("sweeps"),
    console: Console = QUIET,
    training: Training = OWN,
) -> SweepResult:
    """Train ``count`` times with settings that ``definition`` searches, all others as in ``config``, and report.

    A W&B server chooses the settings if ``config.wandb`` is set and W&B is online with a key; else Optuna chooses them.
    Optuna keeps its study in ``folder``, and the next call continues it. After SIGINT the sweep ends with its report.

    Optuna's trials train ``jobs`` at a time; 0: two at a time where that saves time (``jobs_for``). More than one train
    in processes of their own, each of which reads the data; with another ``training`` all train in this one.

    Raises ``UserError`` if there is nothing to search, if Optuna is needed and missing, if W&B refuses the sweep, and
    if no trial is complete.
    """
    if count < 1:
        raise UserError(f"--count is {count}; give 1 or more")
    if jobs < 0:
        raise UserError(f"--jobs is {jobs}; give 0 or more")
    if training != OWN:
        jobs = 1
    parameters = definition["parameters"]
    config = replace(config, {name: spec["value"] for name, spec in parameters.items() if "value" in spec})
    if not any("value" not in spec for spec in parameters.values()):
        raise UserError("every setting of this sweep is given by a flag, so there is nothing to search; leave one out")
    online = config.wandb and tracking.signed_in()
    if not online and (missing := missing_packages()):
        raise UserError(f"a sweep without a W&B server needs {', '.join(missing)}; install two-towers[sweep]")
    check_sweeps(folder)
    start = time.perf_counter()
    trainer = Trainer(training.train, training.prepare(config, console), console)
    read_seconds = time.perf_counter() - start
    data = identity(trainer.data)
    sweep = _Sweep(_fitting(definition, data[1]), config, data, trainer, console)
    del trainer  # workers take its place
    if config.wandb and not online:
        console.line("wandb     there is no key, or it is off or offline, so Optuna chooses the settings")
    if online:
        sweep.with_wandb(count)
    else:
        sweep.with_optuna(count, folder, jobs, read_seconds)
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
        self,
        definition: dict[str, Any],
        config: TrainConfig,
        data: tuple[str, int],
        trainer: Trainer,
        console: Console,
    ) -> None:
        self._definition, self._config, self._data = definition, config, data
        self._trainer, self._console = trainer, console
        self._name: str = definition["name"]
        self._space = {name: spec for name, spec in definition["parameters"].items() if "value" not in spec}
        self.trials: list[Trial] = []
        self._seconds: list[float] = []  # of each trial
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
                reason = first_line(error)
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
            config = replace(self._config, settings)
            scores.append(self._trainer.score(config, tracker, lambda epoch, score: scores.append(score)))
        except Exception as error:
            state = "pruned" if tracking.stopped_by_agent(error) else "failed"
            if state == "failed" and not isinstance(error, UserError):
                raise  # the agent prints the error, and ends a sweep whose first runs all fail
            if state == "failed":
                _logger.warning("trial %d failed: %s", number, error)
        finally:
            self._add(Trial(number, max(scores, default=None), state, settings), start)

    def with_optuna(self, count: int, folder: Path, jobs: int, read_seconds: float) -> None:
        """Run ``count`` trials; Optuna chooses their settings, and continues the study in ``folder``."""
        path = folder / f"{self._name}.db"
        distributions = {name: distribution(name, spec) for name, spec in self._space.items()}
        early_terminate = self._definition.get("early_terminate")
        with open_study(path, f"{self._name} {self._fingerprint()}", early_terminate, self._config.seed) as study:
            if not study.trials:  # the first trial trains as without a sweep, so the best trial is no worse
                study.enqueue_trial(self._defaults())
            finished_count = sum(trial.state.is_finished() for trial in study.trials)
            note = f", after {count_of(finished_count, 'trial')}" if finished_count else ""
            self._console.line(f"sweep     {self._name}, Optuna chooses{note}: {path}")
            try:
                for left in range(count, 0, -1):
                    mean_seconds = sum(self._seconds) / len(self._seconds) if self._seconds else None
                    at_a_time = min(left, jobs or jobs_for(self._config, left, mean_seconds, read_seconds))
                    if at_a_time > 1:
                        self._in_workers(study, distributions, left, at_a_time)
                        break
                    self._in_this_process(study, distributions)
            except KeyboardInterrupt:
                self.stopped = True
            self.trials = [_trial(trial) for trial in study.trials if trial.state.is_finished()]
        if self._offline_runs:
            self._console.line(
                f"wandb     each trial is an offline run; to upload them: wandb sync {self._offline_runs}"
            )

    def _in_this_process(self, study: "optuna.Study", distributions: "dict[str, BaseDistribution]") -> None:
        """Run one trial."""
        import optuna

        start, trial = time.perf_counter(), study.ask(distributions)
        config = replace(self._config, trial.params)

        def on_epoch(epoch: int, score: float) -> None:
            if _is_pruned(trial, epoch, score, config.epochs):
                raise optuna.TrialPruned

        outcome: float | Exception | None
        try:
            tracker = offline_tracker(config, self._name, trial.number)
            self._offline_runs = offline_runs(tracker)
            outcome = self._trainer.score(config, tracker, on_epoch)
        except optuna.TrialPruned:
            outcome = None
        except KeyboardInterrupt:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise
        except Exception as error:  # noqa: BLE001 - a trial may fail
            outcome = error
        self._close(study, trial, start, outcome)

    def _in_workers(
        self, study: "optuna.Study", distributions: "dict[str, BaseDistribution]", count: int, jobs: int
    ) -> None:
        """Run ``count`` trials, ``jobs`` at a time; the next is chosen when one ends."""
        from optuna.trial import TrialState

        del self._trainer  # each worker reads the data: this process needs them no more
        return_freed_memory()
        self._console.line(f"sweep     {jobs} trials at a time, each with {count_of(threads_of_each(jobs), 'thread')}")
        shared = {"config": dataclasses.asdict(self._config), "sweep_name": self._name, "data": self._data}
        running: dict[int, tuple[optuna.Trial, float]] = {}
        with (
            interruption() as interrupted,
            Workers(jobs, shared) as workers,
            self._console.progress("trials", count) as bar,
        ):
            try:
                while count or running:
                    while count and len(running) < jobs:
                        start, trial = time.perf_counter(), study.ask(distributions)
                        running[trial.number] = trial, start
                        workers.train(trial.number, trial.params)
                        count -= 1
                    if interrupted():
                        raise KeyboardInterrupt
                    match workers.receive(timeout=0.1):
                        case Started(_, runs):
                            self._offline_runs = runs
                        case Epoch(number, epoch, score):
                            trial, _ = running[number]
                            epochs = replace(self._config, trial.params).epochs
                            workers.answer(number, prune=_is_pruned(trial, epoch, score, epochs))
                            bar.advance(0, f"trial {number}, epoch {epoch}: {score:.4f}")
                        case End(number, outcome):
                            self._close(study, *running.pop(number), outcome)
                            bar.advance()
            finally:
                for trial, _ in running.values():
                    study.tell(trial, state=TrialState.FAIL)

    def _close(
        self, study: "optuna.Study", trial: "optuna.Trial", start: float, outcome: float | Exception | None
    ) -> None:
        """Store how a trial ended: with a score, an error, or pruned. If the first three fail, raise the error."""
        from optuna.trial import TrialState

        if outcome is None:
            study.tell(trial, state=TrialState.PRUNED)
        elif isinstance(outcome, Exception):
            study.tell(trial, state=TrialState.FAIL)
            finished = [other.state for other in study.trials if other.state.is_finished()]
            if len(finished) >= 3 and set(finished) == {TrialState.FAIL}:
                raise outcome
            _logger.warning("trial %d failed: %s", trial.number, outcome)
        else:
            study.tell(trial, outcome)
        self._add(_trial(study.trials[trial.number]), start)

    def _add(self, trial: Trial, start: float) -> None:
        self.trials.append(trial)
        self._seconds.append(time.perf_counter() - start)
        self._console.line(f"trial {trial}", self._seconds[-1])

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
        text = json.dumps([self._definition, fixed_settings, self._data], sort_keys=True)
        return sha256_of_text(text)[:12]


def _is_pruned(trial: "optuna.Trial", epoch: int, score: float, epochs: int) -> bool:
    """Store the score of an epoch; whether the trial ends with it."""
    trial.report(score, epoch)
    return epoch < epochs and bool(trial.should_prune())  # a pruner may return numpy's bool


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
