"""Where a run is recorded: Weights & Biases, or nowhere.

``start`` gives a ``Tracker``. The base does nothing and has the same methods as the one that records, so a training
loop never asks which it has. A tracker never ends a training: when W&B fails, one warning says so and the rest of the
run goes unrecorded.
"""

import dataclasses
import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Literal

from freemvmt.config import TrainConfig

if TYPE_CHECKING:
    import torch
    import wandb

PROJECT = "two-towers-retrieval"
_LONGEST = 200  # characters of an error of W&B's

_logger = logging.getLogger(__name__)


class Tracker:
    """Records nothing."""

    @property
    def config(self) -> dict[str, Any]:
        """The settings as recorded: in a sweep's run with the values that the sweep chose. Empty if none are."""
        return {}

    @property
    def run_id(self) -> str | None:
        """The name under which a later process can go on with the run."""
        return None

    def watch(self, model: "torch.nn.Module", every: int) -> None:
        """Record histograms of gradients and weights each ``every`` forward or backward passes of ``model``."""

    def log(self, metrics: dict[str, float | int], step: int) -> None:
        """Record ``metrics`` at ``step``, which never goes back."""

    def summary(self, values: dict[str, object]) -> None:
        """Record what is true of the whole run."""

    def save_model(self, folder: Path, name: str) -> None:
        """Keep the files of ``folder`` as the artifact ``name`` of type ``model``."""

    def finish(self, failed: bool = False) -> None:
        """Close the run; a second time does nothing."""


class WandbTracker(Tracker):
    """Records in a run of Weights & Biases."""

    def __init__(self, run: "wandb.Run") -> None:
        self._run: wandb.Run | None = run
        self._folder = run.settings.sync_dir
        self._unwatch: Callable[[], None] = lambda: None

    @property
    def config(self) -> dict[str, Any]:
        return dict(self._run.config) if self._run else {}

    @property
    def run_id(self) -> str | None:
        return self._run.id if self._run else None

    @property
    def offline_runs(self) -> str:
        """What names this run and others beside it on disk, for `wandb sync`."""
        return f"{_short(str(Path(self._folder).parent))}/offline-run-*"

    def watch(self, model: "torch.nn.Module", every: int) -> None:
        def hook(run: "wandb.Run") -> None:
            # idx: without it the second run of a process, as in a sweep, would call its histograms `graph_1…`.
            run.watch(model, log="all", log_freq=every, idx=0)
            self._unwatch = lambda: run.unwatch(model)
            # The hooks run inside the model's own passes: what they raise must not come out there.
            hooks: Any = run._torch
            record = hooks.log_tensor_stats
            hooks.log_tensor_stats = lambda tensor, name: self._do(lambda _: record(tensor, name))

        self._do(hook)

    def log(self, metrics: dict[str, float | int], step: int) -> None:
        self._do(lambda run: run.log(metrics, step=step))

    def summary(self, values: dict[str, object]) -> None:
        self._do(lambda run: run.summary.update(values))

    def save_model(self, folder: Path, name: str) -> None:
        def save(run: "wandb.Run") -> None:
            import wandb

            artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", name), type="model")
            artifact.add_dir(str(folder))
            run.log_artifact(artifact)

        self._do(save)

    def finish(self, failed: bool = False) -> None:
        unwatch, self._unwatch = self._unwatch, lambda: None
        with suppress(Exception):
            unwatch()  # else the model's hooks would go on to record into no run
        self._do(lambda run: run.finish(exit_code=1 if failed else 0))
        self._run = None

    def _do(self, action: Callable[["wandb.Run"], object]) -> None:
        """All that is asked of W&B is asked here, and what goes wrong with it ends here."""
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # whatever it is, the training is worth more
            if stopped_by_agent(error):
                raise
            import wandb

            run, self._run = self._run, None
            _logger.warning(
                "W&B failed (%s) and this run is no longer recorded; what was, up to here: wandb sync %s",
                _line(error),
                _short(self._folder),
            )
            with suppress(Exception):
                run.finish(exit_code=1)
            with suppress(Exception):
                wandb.teardown(exit_code=1)  # takes its exit hook away too, which would end in a traceback


def start(
    config: TrainConfig,
    *,
    extra: dict[str, object] | None = None,
    announce: bool = True,
    run_id: str | None = None,
    online: bool = True,
) -> Tracker:
    """Begin to record a run of ``config``, or go on with ``run_id``; its settings and ``extra`` become its config.

    A run goes to the project ``config.project_name``, else ``$WANDB_PROJECT``, else ``two-towers-retrieval``. W&B's own
    settings hold: ``WANDB_MODE``, ``WANDB_DIR``, ``WANDB_ENTITY`` … Without a key, and without a terminal to ask for
    one at, or when the server does not answer, or if not ``online``, the run is written to disk in W&B's offline mode.
    If ``announce``, a log record says where the run is to be seen.
    """
    if not config.wandb:
        return Tracker()
    try:
        return _start(config, extra or {}, announce, run_id, online)
    except Exception as error:  # whatever it is, the training is worth more
        if stopped_by_agent(error):
            raise
        _logger.warning("W&B did not start (%s); this run is not recorded", _line(error))
        return Tracker()


def project(config: TrainConfig) -> str:
    """The W&B project of a run."""
    return config.project_name or os.environ.get("WANDB_PROJECT") or PROJECT


def signed_in() -> bool:
    """Whether runs go to a W&B server: it is not told to stay offline, and there is a key.

    Where W&B finds no key it asks for one, if there is a terminal to ask at.
    """
    try:
        return _mode() == "online"
    except Exception as error:  # noqa: BLE001 - W&B is an optional service: whatever it raises, it is off
        _logger.warning("W&B did not start (%s)", _line(error))
        return False


def _start(config: TrainConfig, extra: dict[str, object], announce: bool, run_id: str | None, online: bool) -> Tracker:
    import wandb

    def begin(mode: Literal["online", "offline", "disabled", "shared"]) -> "wandb.Run":
        return wandb.init(
            project=project(config),
            name=config.run_name,
            config={**dataclasses.asdict(config), **extra},
            mode=mode,
            id=run_id,
            resume="allow" if run_id else None,
            settings=_settings(),
        )

    why = ""
    try:
        run = begin(_mode(online))
    except wandb.errors.Error as error:  # whatever keeps it from a server, the disk is here
        why = f" ({_line(error)})"
        run = begin("offline")
    if run.disabled:
        return Tracker()
    if run.offline:
        if why or announce:
            level, where = (logging.WARNING if why else logging.INFO), _short(run.settings.sync_dir)
            _logger.log(level, "W&B is offline%s; the run is on disk, to upload: wandb sync %s", why, where)
    elif announce:
        _logger.info("W&B run: %s", run.url)
    return WandbTracker(run)


def _mode(online: bool = True) -> Literal["online", "offline", "disabled", "shared"]:
    """The mode for a run, after looking for a key in W&B's own way, or asking for one, if it may be ``online``."""
    import wandb

    mode = wandb.setup(_settings()).settings.mode
    if mode in ("offline", "dryrun"):
        return "offline"
    if mode == "disabled":
        return mode
    if not online:
        return "offline"
    if wandb.login(prompt=False, verify=False):
        return "shared" if mode == "shared" else "online"
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        return "offline"
    wandb.termsetup(wandb.Settings(), None)  # silent as it is, it would not ask
    try:
        return "online" if wandb.login() else "offline"
    except wandb.errors.UsageError:  # there is a terminal, but not one that can ask
        return "offline"
    finally:
        wandb.termsetup(_settings(), None)


def _settings() -> "wandb.Settings":
    """W&B without its chatter: what a person should know of it, this module says."""
    import wandb

    settings = wandb.Settings(silent=True, console="off", finish_timeout_raises=True)
    if "WANDB_INIT_TIMEOUT" not in os.environ:
        settings.init_timeout = 30.0  # seconds; W&B's own 90 are long for a laptop without a network
    if "WANDB_FINISH_TIMEOUT" not in os.environ:
        settings.finish_timeout = 600.0  # W&B's own is for ever
    return settings


def stopped_by_agent(error: Exception) -> bool:
    """A sweep's agent ends a run early by raising a bare ``Exception`` in its thread; that one is not W&B failing."""
    return type(error) is Exception and not error.args


def _line(error: Exception) -> str:
    """What kind of error it is, and its first line, to stand within a sentence; of a wrong setting what is wrong."""
    text = str(error).strip()
    wrong = type(error).__name__ == "ValidationError"  # pydantic's, which names the setting in its second line
    text = " ".join(text.partition(" [type=")[0].split()) if wrong else text.partition("\n")[0]
    text = text.rstrip(" .:;")
    return f"{type(error).__name__}: {shorten(text, _LONGEST)}" if text else type(error).__name__


def _short(folder: str) -> str:
    path = Path(folder)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else folder
