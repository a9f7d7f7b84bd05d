"""Records of a run in Weights & Biases, or nowhere.

``start`` returns a ``Tracker``. The base class records nothing and has the same methods as ``WandbTracker``, so the
training loop does not depend on which it has. A tracker never ends a training: when W&B fails, one warning says so, and
the rest of the run is not recorded.
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
from freemvmt.errors import first_line

if TYPE_CHECKING:
    import torch
    import wandb

PROJECT = "two-towers-retrieval"
_MAX_ERROR_LENGTH = 200  # characters of an error message of W&B

_logger = logging.getLogger(__name__)


class Tracker:
    """Records nothing."""

    @property
    def config(self) -> dict[str, Any]:
        """The recorded settings, with the values that a sweep has chosen; empty if nothing is recorded."""
        return {}

    @property
    def run_id(self) -> str | None:
        """The id by which a later process can resume the run."""
        return None

    def watch(self, model: "torch.nn.Module", every: int) -> None:
        """Record histograms of gradients and weights every ``every`` passes of ``model``."""

    def log(self, metrics: dict[str, float | int], step: int) -> None:
        """Record ``metrics`` at ``step``, which never decreases."""

    def summary(self, values: dict[str, object]) -> None:
        """Record values of the whole run."""

    def save_model(self, folder: Path, name: str) -> None:
        """Upload the files of ``folder`` as the artifact ``name`` of type ``model``."""

    def finish(self, failed: bool = False) -> None:
        """Close the run; a second call does nothing."""


class WandbTracker(Tracker):
    """Records a run in Weights & Biases."""

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
        """The pattern of this run's folder and others beside it, for `wandb sync`."""
        return f"{_relative_path(str(Path(self._folder).parent))}/offline-run-*"

    def watch(self, model: "torch.nn.Module", every: int) -> None:
        def hook(run: "wandb.Run") -> None:
            from wandb.integration.torch.wandb_torch import TorchHistory

            hooks: Any = TorchHistory
            record = hooks.log_tensor_stats

            def guarded(*arguments: Any) -> None:
                self._do(lambda _: record(*arguments))

            def unwatch() -> None:
                hooks.log_tensor_stats = record
                run.unwatch(model)

            # The hooks run inside the model's passes, and their errors must not end a pass.
            hooks.log_tensor_stats = guarded
            self._unwatch = unwatch
            # Without idx the second run of a process, as in a sweep, would name its histograms `graph_1…`.
            run.watch(model, log="all", log_freq=every, idx=0)

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
            unwatch()  # otherwise the model's hooks would stay active
        self._do(lambda run: run.finish(exit_code=1 if failed else 0))
        self._run = None

    def _do(self, action: Callable[["wandb.Run"], object]) -> None:
        """Call W&B. Every call goes through here; an error ends the recording, with a warning."""
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
                _error_line(error),
                _relative_path(self._folder),
            )
            with suppress(Exception):
                run.finish(exit_code=1)
            with suppress(Exception):
                wandb.teardown(exit_code=1)  # also removes its exit hook, which would print a traceback


def start(
    config: TrainConfig,
    *,
    extra: dict[str, object] | None = None,
    announce: bool = True,
    run_id: str | None = None,
    online: bool = True,
) -> Tracker:
    """Start to record a run of ``config``, or resume ``run_id``. W&B stores the settings and ``extra`` as its config.

    The project is ``config.project_name``, else ``$WANDB_PROJECT``, else ``two-towers-retrieval``. W&B's own settings
    are respected: ``WANDB_MODE``, ``WANDB_DIR``, ``WANDB_ENTITY`` … The run is written to disk, in W&B's offline mode,
    if not ``online``, when the server does not answer, or without a key and a terminal to ask for one. With
    ``announce`` a log record says where to find the run.
    """
    if not config.wandb:
        return Tracker()
    try:
        return _start(config, extra or {}, announce, run_id, online)
    except Exception as error:  # whatever it is, the training is worth more
        if stopped_by_agent(error):
            raise
        _logger.warning("W&B did not start (%s); this run is not recorded", _error_line(error))
        return Tracker()


def project(config: TrainConfig) -> str:
    """The W&B project of a run."""
    return config.project_name or os.environ.get("WANDB_PROJECT") or PROJECT


def signed_in() -> bool:
    """Whether runs go to a W&B server: W&B is not in offline mode, and has a key.

    Without a key W&B asks for one, if there is a terminal.
    """
    try:
        return _mode() == "online"
    except Exception as error:  # noqa: BLE001 - W&B is an optional service: whatever it raises, it is off
        _logger.warning("W&B did not start (%s)", _error_line(error))
        return False


def _start(config: TrainConfig, extra: dict[str, object], announce: bool, run_id: str | None, online: bool) -> Tracker:
    import wandb

    def start_run(mode: Literal["online", "offline", "disabled", "shared"]) -> "wandb.Run":
        return wandb.init(
            project=project(config),
            name=config.run_name,
            config={**dataclasses.asdict(config), **extra},
            mode=mode,
            id=run_id,
            resume="allow" if run_id else None,
            settings=_settings(),
        )

    reason = ""
    try:
        run = start_run(_mode(online))
    except wandb.errors.Error as error:  # whatever the problem with the server is, the disk remains
        reason = f" ({_error_line(error)})"
        run = start_run("offline")
    if run.disabled:
        return Tracker()
    if run.offline:
        if reason or announce:
            level, where = (logging.WARNING if reason else logging.INFO), _relative_path(run.settings.sync_dir)
            _logger.log(level, "W&B is offline%s; the run is on disk, to upload: wandb sync %s", reason, where)
    elif announce:
        _logger.info("W&B run: %s", run.url)
    return WandbTracker(run)


def _mode(online: bool = True) -> Literal["online", "offline", "disabled", "shared"]:
    """The mode for a run. If it may be ``online``, W&B looks for a key, or asks for one."""
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
    wandb.termsetup(wandb.Settings(), None)  # with our silent settings it would not ask
    try:
        return "online" if wandb.login() else "offline"
    except wandb.errors.UsageError:  # there is a terminal, but not one that can ask
        return "offline"
    finally:
        wandb.termsetup(_settings(), None)


def _settings() -> "wandb.Settings":
    """W&B's settings without its output: this module reports what a person needs."""
    import wandb

    settings = wandb.Settings(silent=True, console="off", finish_timeout_raises=True)
    if "WANDB_INIT_TIMEOUT" not in os.environ:
        settings.init_timeout = 30.0  # seconds; W&B's default of 90 is long for a laptop without a network
    if "WANDB_FINISH_TIMEOUT" not in os.environ:
        settings.finish_timeout = 600.0  # seconds; W&B's default is no limit
    return settings


def stopped_by_agent(error: Exception) -> bool:
    """Whether a sweep's agent stopped the run: it raises a bare ``Exception`` in its thread, which is no failure."""
    return type(error) is Exception and not error.args


def _error_line(error: Exception) -> str:
    """The type and the first line of an error, as part of a sentence; of a wrong setting also its name."""
    name, text = type(error).__name__, first_line(error)
    if name == "ValidationError":  # pydantic's error names the setting in its second line
        text = shorten(str(error).partition(" [type=")[0], _MAX_ERROR_LENGTH)
    text = text.rstrip(" .:;")
    return name if text in ("", name) else f"{name}: {text}"


def _relative_path(folder: str) -> str:
    path = Path(folder)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else folder
