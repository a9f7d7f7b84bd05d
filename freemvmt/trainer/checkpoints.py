"""Checkpoints: all that a training needs to continue bit for bit.

This is the weights, the optimizers, the random states, the position in the data, and the best epoch so far. A
checkpoint is one safetensors file, with everything that is not a tensor in its header. It is written to a temporary
file, flushed and renamed; the checkpoint before it is kept until then. It also holds the identity of the run (settings,
data, versions): a run with another identity is refused, with a message that lists the differences. And it holds the
platform (threads, processes, device): on another platform the last digits may differ, and one line says so.
"""

import dataclasses
import functools
import json
import logging
import re
import shutil
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from freemvmt.config import NOT_THE_RESULT, TrainConfig, config_of
from freemvmt.errors import UserError
from freemvmt.runtime.devices import matrix_dtype, pick_device
from freemvmt.storage.digests import digest_of
from freemvmt.storage.hidden_files import first_file
from freemvmt.storage.tensor_files import CorruptFile, load_checked, save_checked
from freemvmt.trainer.dataset import TrainingData
from freemvmt.trainer.state import Progress

logger = logging.getLogger(__name__)

FORMAT = 2
MAX_CHECKPOINTS = 2  # in a folder


class Resumable(Protocol):
    """A training that can be saved and restored: ``run.TrainingRun``."""

    state: Progress

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(all tensors by name, everything else as JSON values)."""

    def load_state_dict(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Restore the result of ``state_dict``."""


class Checkpoints:
    """The checkpoints of one run in ``folder``; with ``folder`` None nothing is written.

    ``saved`` is the checkpoint to resume from. Raises ``UserError`` when its settings, data or versions differ from
    those of this run; with ``anyway`` this is only a warning. ``processes`` is the number of processes that train
    together. ``run_id`` is W&B's id of the run, or None.
    """

    def __init__(
        self,
        folder: Path | None,
        config: TrainConfig,
        data: TrainingData,
        saved: "SavedRun | None" = None,
        anyway: bool = False,
        processes: int = 1,
    ) -> None:
        self.folder, self.saved = folder, saved
        self.run_id = saved.run_id if saved else None
        self._every_steps, self._every_seconds = config.checkpoint_steps, config.checkpoint_seconds
        self._last_time = time.monotonic()
        self._failed = False
        self._config, self._data = config, data
        self._platform = _platform_of(config, processes)
        if saved:
            _check_same(saved, self._identity, anyway)
            if folder is not None:
                _warn_other_platform(saved, self._platform, config)
        # The files of this run, oldest first. A resumed run owns all files of its folder.
        self._paths = [*(old for old in _files(saved.path.parent) if old != saved.path), saved.path] if saved else []

    @functools.cached_property
    def _identity(self) -> dict[str, Any]:
        """Made when it is needed: a training of seconds writes no checkpoint."""
        return {} if self.folder is None else _identity_of(self._config, self._data)

    def tick(self, run: Resumable) -> None:
        """Write a checkpoint if one is due; called after each step."""
        due = self._every_steps is not None and run.state.step % self._every_steps == 0
        if self.folder is not None and (due or time.monotonic() - self._last_time >= self._every_seconds):
            self.write(run)

    def write(self, run: Resumable) -> bool:
        """Write a checkpoint now. Returns whether it was written; a warning says why not."""
        if self.folder is None:
            return False
        tensors, plain = run.state_dict()
        header = {"format": FORMAT, "identity": self._identity, "computed": self._platform, "run_id": self.run_id}
        text = json.dumps(header | plain)
        path = self.folder / f"step-{run.state.step:010d}.safetensors"
        try:
            save_checked(path, tensors, text)
        except UserError as error:
            if not self._failed:
                logger.warning("no checkpoint: %s; training goes on", error)
            self._failed = True
            return False
        finally:
            self._last_time = time.monotonic()
        self._failed = False
        self._paths = [*(old for old in self._paths if old != path), path][-MAX_CHECKPOINTS:]
        for old in _files(self.folder):
            if old not in self._paths:  # older, or of another run that this one replaces
                old.unlink(missing_ok=True)
        self._remove_partial_files()
        return True

    def clear(self) -> None:
        """Remove the checkpoints: the run is over and its model is saved."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._remove_partial_files()
        if first_file(self.folder) is None:
            shutil.rmtree(self.folder, ignore_errors=True)  # stray hidden files would stop rmdir

    def _remove_partial_files(self) -> None:
        """Remove the partial files of a killed run; only one run at a time writes here."""
        assert self.folder is not None
        for part in self.folder.glob(".step-*.part"):
            shutil.rmtree(part, ignore_errors=True)


@dataclass(frozen=True)
class SavedRun:
    """A checkpoint that was read; ``plain`` is everything that is not a tensor."""

    path: Path
    tensors: dict[str, Tensor]
    plain: dict[str, Any]

    @property
    def run_id(self) -> str | None:
        """W&B's id of the run."""
        run_id: str | None = self.plain["run_id"]
        return run_id

    def config(self) -> TrainConfig:
        """The settings of the run; ``UserError`` when this version does not know them."""
        try:
            return config_of(dict(self.plain["identity"]["settings"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.path} is of another version ({error}); start without --resume") from error

    def restore(self, run: Resumable) -> None:
        """Restore the state of ``run``; ``UserError`` when the checkpoint does not fit it."""
        try:
            run.load_state_dict(self.tensors, self.plain)
        except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
            raise UserError(f"{self.path} does not fit this training ({error}); start without --resume") from error


def last_checkpoint(folder: Path) -> SavedRun:
    """The newest sound checkpoint in ``folder``; damaged ones are skipped with a warning. ``UserError`` without one."""
    try:
        files = _files(folder) if folder.is_dir() else []
    except (OSError, ValueError) as error:  # the name cannot be a path
        reason = f"{str(folder)[:200]!a} cannot be read ({getattr(error, 'strerror', error)})"
        raise UserError(f"{reason}; give the folder that a training named, or start without --resume") from error
    for path in reversed(files):
        try:
            tensors, text = load_checked(path)
            plain = json.loads(text)
            if plain["format"] != FORMAT:
                raise UserError(
                    f"{path} has format {plain['format']!r}, this version reads {FORMAT}; update two-towers"
                )
            sections = plain["identity"], plain.get("computed", {})
            if not all(isinstance(section, dict) for section in sections) or not isinstance(
                plain["run_id"], str | None
            ):
                raise ValueError("it does not say of which run it is")
            return SavedRun(path, tensors, plain)
        except (CorruptFile, OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s is damaged (%s); it is passed over", path, error)
    raise UserError(f"{folder} holds no checkpoint; give the folder that a training named, or start without --resume")


def _identity_of(config: TrainConfig, data: TrainingData) -> dict[str, Any]:
    """What must be equal for a run to be resumed: settings, data, versions."""
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    content: list[str | NDArray[Any]] = [data.validation.fingerprint()]
    for lists in (data.queries, data.passages, data.examples.positives, data.examples.negatives):
        content += [lists.ids, lists.offsets]
    if data.stream is not None:
        content.append(data.stream.identity)
    if data.teacher_vectors is not None:
        content += [data.teacher_vectors.queries, data.teacher_vectors.passages]
    return {
        "settings": settings,
        "data": {"content": digest_of(content)},
        "versions": {package: version(package) for package in ("two-towers", "torch")},
    }


def _check_same(saved: SavedRun, identity: dict[str, Any], anyway: bool) -> None:
    """Raise ``UserError`` with the differences to the saved identity; with ``anyway`` only log them."""
    differences = []
    for section, values in identity.items():
        before = saved.plain["identity"].get(section, {})
        for name, value in values.items():
            if before.get(name) != value and not (section == "settings" and name in NOT_THE_RESULT):
                differences.append(f"{name} was {before.get(name)!r}, is {value!r}")
    if differences and not anyway:
        raise UserError(
            f"{saved.path} is of another training: {'; '.join(differences)}; give the same, or --resume-anyway"
        )
    if differences:
        logger.warning("going on with another training: %s", "; ".join(differences))


def _platform_of(config: TrainConfig, processes: int) -> dict[str, Any]:
    """What decides the order in which numbers are added, and their precision."""
    device = pick_device(config.device)
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if device.type == "cpu":
        device_name += f" with {torch.backends.cpu.get_cpu_capability()}"
    number_format = str(matrix_dtype(config.precision, device)).removeprefix("torch.")
    return {
        "threads": torch.get_num_threads(),
        "processes": processes,
        "device": device_name,
        "precision": number_format,
    }


def _warn_other_platform(saved: SavedRun, platform: dict[str, Any], config: TrainConfig) -> None:
    """Log in one line how the platform differs from the saved one: the last digits of the result may differ too.

    On a CPU, averages and recurrences were measured to be equal with any number of threads; transformers were not.
    Checkpoints from before 2026-12 do not hold the platform.
    """
    before = saved.plain.get("computed", {})
    names = [name for name in platform if name != "threads" or "transformer" in config.kinds]
    differences = [
        f"{name} {before[name]}, now {platform[name]}"
        for name in names
        if before.get(name, platform[name]) != platform[name]
    ]
    if differences:
        logger.warning(
            "the checkpoint was made with %s: the result may differ in its last digits", "; ".join(differences)
        )


def _files(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, oldest first."""
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"step-\d{10}\.safetensors", path.name))
