"""Runs a sweep from its definition in W&B's format: by W&B's agent, or by Optuna where W&B is offline or off.

Both ways train by the same function on data that was read once, and both end in the same report: a table of the trials,
the flags of the best one, and a plot.
"""

import contextlib
import dataclasses
import hashlib
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
    """Train ``count`` times with settings from ``definition``, all else as in ``config``, and report.

    With ``config.wandb`` and a W&B server to send to, that server chooses the settings; else Optuna does, and keeps its
    study in ``folder``, where the next call goes on from it. SIGINT ends the sweep, not the report.

    Raises ``UserError`` if nothing is to be searched, if Optuna is needed and missing, if W&B refuses the sweep, and
    if no trial came to an end.
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
    """``definition`` without the batch sizes that are larger than there are training pairs."""
    sizes = definition["parameters"].get("batch_size", {}).get("values")
    if not sizes:
        return definition
    fit = [size for size in sizes if size <= pairs] or [max(2, pairs)]
    return definition | {"parameters": definition["parameters"] | {"batch_size": {"values": fit}}}


class _Sweep:
    """One call of ``run_sweep``: what is the same in all its trials, and the trials so far."""

    def __init__(
        self, definition: dict[str, Any], config: TrainConfig, data: "TrainingData", train: Train, console: Console
    ) -> None:
        self._definition, self._config, self._data = definition, config, data
        self._train, self._console = train, console
        self._name: str = definition["name"]
        self._searched = {name: spec for name, spec in definition["parameters"].items() if "value" not in spec}
        self.trials: list[Trial] = []
        self.stopped = False
        self._recorded = ""  # where W&B runs are on disk

    def with_wandb(self, count: int) -> None:
        """Let a W&B server choose."""
        import wandb

        project = tracking.project(self._config)
        with _environment("WANDB_SILENT", "true"):  # the agent reads it again before each run
            try:
                with contextlib.redirect_stdout(io.StringIO()) as said:
                    sweep = wandb.sweep(self._definition, project=project)
            except Exception as error:
                reason = str(error).partition("\n")[0]
                raise UserError(f"W&B did not take the sweep ({reason}); --no-wandb searches without it") from error
            url = said.getvalue().partition("Sweep URL: ")[2].strip()
            self._console.line(f"sweep     {self._name}, W&B chooses: {url or sweep}")
            wandb.agent(sweep, self._wandb_trial, project=project, count=count)
        self.stopped = len(self.trials) < count

    def _wandb_trial(self) -> None:
        tracker = tracking.start(self._config, extra={"sweep_name": self._name}, announce=False)
        if not isinstance(tracker, WandbTracker):
            raise RuntimeError("W&B did not start, so it has chosen no settings")
        chosen = {name: tracker.config[name] for name in self._searched}
        started, number = time.perf_counter(), len(self.trials)
        scores: list[float] = []
        state: State = "complete"
        try:
            scores.append(self._run(chosen, tracker, lambda epoch, score: scores.append(score)))
        except Exception as error:
            state = "pruned" if tracking.stopped_by_agent(error) else "failed"
            if state == "failed" and not isinstance(error, UserError):
                raise  # the agent shows it, and ends a sweep whose first runs all fail
            if state == "failed":
                _logger.warning("trial %d failed: %s", number, error)
        finally:
            self._note(Trial(number, max(scores, default=None), state, chosen), started)

    def with_optuna(self, count: int, folder: Path) -> None:
        """Let Optuna choose, going on with the study in ``folder``."""
        import optuna
        from optuna.trial import TrialState

        path = folder / f"{self._name}.db"
        distributions = {name: distribution(name, spec) for name, spec in self._searched.items()}
        stop = self._definition.get("early_terminate")
        with open_study(path, f"{self._name} {self._fingerprint()}", stop, self._config.seed) as study:
            if not study.trials:  # the first trial is what is trained without a sweep, so the best one is no worse
                study.enqueue_trial(self._defaults())
            before = sum(trial.state.is_finished() for trial in study.trials)
            goes_on = f", after {before} trials" if before else ""
            self._console.line(f"sweep     {self._name}, Optuna chooses{goes_on}: {path}")
            try:
                for _ in range(count):
                    started, trial = time.perf_counter(), study.ask(distributions)
                    try:
                        study.tell(trial, self._optuna_trial(trial))
                    except optuna.TrialPruned:
                        study.tell(trial, state=TrialState.PRUNED)
                    except KeyboardInterrupt:
                        study.tell(trial, state=TrialState.FAIL)
                        raise
                    except Exception as error:
                        study.tell(trial, state=TrialState.FAIL)
                        if trial.number >= 2 and all(old.state == TrialState.FAIL for old in study.trials):
                            raise
                        _logger.warning("trial %d failed: %s", trial.number, error)
                    self._note(_trial(study.trials[trial.number]), started)
            except KeyboardInterrupt:
                self.stopped = True
            self.trials = [_trial(trial) for trial in study.trials if trial.state.is_finished()]
        if self._recorded:
            self._console.line(f"wandb     each trial is an offline run; to upload them: wandb sync {self._recorded}")

    def _optuna_trial(self, trial: "optuna.Trial") -> float:
        import optuna

        config = replace(self._config, trial.params)

        def on_epoch(epoch: int, score: float) -> None:
            trial.report(score, epoch)
            if epoch < config.epochs and trial.should_prune():
                raise optuna.TrialPruned

        extra: dict[str, object] = {"sweep_name": self._name, "trial": trial.number}
        return self._run(trial.params, tracking.start(config, extra=extra, announce=False, online=False), on_epoch)

    def _run(self, chosen: dict[str, Any], tracker: Tracker, on_epoch: Callable[[int, float], None]) -> float:
        config = replace(self._config, chosen)
        if isinstance(tracker, WandbTracker):
            self._recorded = tracker.offline_runs
        failed = True
        try:
            result = self._train(config, self._data, tracker=tracker, console=self._console, on_epoch=on_epoch)
            failed = False
        finally:
            tracker.finish(failed=failed)
        if result.ended == "interrupted":  # the training took the SIGINT that was meant for the sweep
            raise KeyboardInterrupt
        return result.val_ndcg_10

    def _note(self, trial: Trial, started: float) -> None:
        self.trials.append(trial)
        self._console.line(f"trial {trial}", time.perf_counter() - started)

    def _defaults(self) -> dict[str, Any]:
        """The searched settings' own values, as far as the search allows them."""

        def allowed(value: Any, spec: dict[str, Any]) -> bool:
            return value in spec["values"] if "values" in spec else spec["min"] <= value <= spec["max"]

        own = {name: getattr(self._config, name) for name in self._searched}
        return {
            name: value for name, value in own.items() if value is not None and allowed(value, self._searched[name])
        }

    def _fingerprint(self) -> str:
        """Of all that scores depend on: those of another data set or another fixed setting are not comparable."""
        fixed = {name: value for name, value in dataclasses.asdict(self._config).items() if name not in NOT_THE_RESULT}
        data = [self._data.name, len(self._data.examples.pairs()[0])]
        text = json.dumps([self._definition, fixed, data], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _trial(frozen: "FrozenTrial") -> Trial:
    states: dict[str, State] = {"COMPLETE": "complete", "PRUNED": "pruned"}
    return Trial(frozen.number, frozen.value, states.get(frozen.state.name, "failed"), frozen.params)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
