"""All that a training needs to go on bit for bit: weights, optimizers, random states, place in the data, best so far.

A checkpoint is one safetensors file: the tensors, and in its header what is not one. It is written beside its place,
flushed and renamed, and the one before it is kept until it is there. What a run is (settings, data, versions) stands
in it too; a run that is another is told what differs. So does what sums up its numbers (threads, processes, device):
where that is another, the last digits may be, and one line says so.
"""

import dataclasses
import hashlib
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
from torch import Tensor

from freemvmt.config import NOT_THE_RESULT, TrainConfig
from freemvmt.errors import UserError
from freemvmt.runtime.devices import matrix_dtype, pick_device
from freemvmt.storage.hidden_files import first_in
from freemvmt.storage.tensor_files import Damaged, keep, read_kept
from freemvmt.trainer.dataset import TrainingData
from freemvmt.trainer.state import Progress

logger = logging.getLogger(__name__)

FORMAT = 2
KEPT = 2  # checkpoints


class Resumable(Protocol):
    """What a checkpoint is made of and put back into: ``run.TrainingRun``."""

    state: Progress

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(all tensors by name, all else for JSON)."""

    def load_state_dict(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""


class Checkpoints:
    """The checkpoints of one run in ``folder``; ``run_id`` is W&B's name of it, if it has one.

    With ``folder`` None nothing is kept, so that a training never asks. ``saved`` is the checkpoint to go on from:
    raises ``UserError`` unless settings, data and versions are those of then, and
    only says so if ``anyway``. ``processes`` train together.
    """

    def __init__(
        self,
        folder: Path | None,
        config: TrainConfig,
        data: TrainingData,
        saved: "Saved | None" = None,
        anyway: bool = False,
        processes: int = 1,
    ) -> None:
        self.folder, self.saved = folder, saved
        self.run_id = saved.run_id if saved else None
        self._steps, self._seconds = config.checkpoint_steps, config.checkpoint_seconds
        self._last = time.monotonic()
        self._failed = False
        self._identity = {} if folder is None else _identity_of(config, data)
        self._computed = _computed_by(config, processes)
        if saved:
            _check_same(saved, self._identity, anyway)
            if folder is not None:
                _compare_computed(saved, self._computed, config)
        # Written by this run, oldest first; of a folder that it goes on in all are: it may end with no other due.
        self._own = [*(old for old in _files(saved.path.parent) if old != saved.path), saved.path] if saved else []

    def tick(self, run: Resumable) -> None:
        """After a step: write a checkpoint if it is time for one. A warning says that one could not be written."""
        due = self._steps is not None and run.state.step % self._steps == 0
        if self.folder is not None and (due or time.monotonic() - self._last >= self._seconds):
            self.write(run)

    def write(self, run: Resumable) -> bool:
        """Write a checkpoint now; whether it is there."""
        if self.folder is None:
            return False
        tensors, plain = run.state_dict()
        about = {"format": FORMAT, "identity": self._identity, "computed": self._computed, "run_id": self.run_id}
        told = json.dumps(about | plain)
        path = self.folder / f"step-{run.state.step:010d}.safetensors"
        try:
            keep(path, tensors, told)
        except UserError as error:
            if not self._failed:
                logger.warning("no checkpoint: %s; training goes on", error)
            self._failed = True
            return False
        finally:
            self._last = time.monotonic()
        self._failed = False
        self._own = [*(old for old in self._own if old != path), path][-KEPT:]
        for old in _files(self.folder):
            if old not in self._own:  # older, or of another run, whose place this one takes
                old.unlink(missing_ok=True)
        self._remove_parts()
        return True

    def clear(self) -> None:
        """Take the checkpoints away: the run is over, and what it made is kept elsewhere."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in self._own:
            path.unlink(missing_ok=True)
        self._remove_parts()
        if first_in(self.folder) is None:
            shutil.rmtree(self.folder, ignore_errors=True)  # strays stand in the way of rmdir

    def _remove_parts(self) -> None:
        """Take away what a run that was killed while it wrote has left: one run at a time writes here."""
        assert self.folder is not None
        for part in self.folder.glob(".step-*.part"):
            shutil.rmtree(part, ignore_errors=True)


@dataclass(frozen=True)
class Saved:
    """A checkpoint as it was read: ``plain`` is all that is not a tensor."""

    path: Path
    tensors: dict[str, Tensor]
    plain: dict[str, Any]

    @property
    def run_id(self) -> str | None:
        """W&B's name of the run."""
        found: str | None = self.plain["run_id"]
        return found

    def config(self) -> TrainConfig:
        """The settings of the run; ``UserError`` where this version does not know them."""
        try:
            found = dict(self.plain["identity"]["settings"])
            lists = {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
            return TrainConfig(**found | lists)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.path} is of another version ({error}); start without --resume") from error

    def restore(self, run: Resumable) -> None:
        """Put ``run`` where the training was; ``UserError`` where the checkpoint does not fit it."""
        try:
            run.load_state_dict(self.tensors, self.plain)
        except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
            raise UserError(f"{self.path} does not fit this training ({error}); start without --resume") from error


def last_checkpoint(folder: Path) -> Saved:
    """The newest sound checkpoint in ``folder``; a damaged one is said and passed over. ``UserError`` without one."""
    try:
        files = _files(folder) if folder.is_dir() else []
    except (OSError, ValueError) as error:  # no path can be called so
        reason = f"{str(folder)[:200]!a} cannot be read ({getattr(error, 'strerror', error)})"
        raise UserError(f"{reason}; give the folder that a training named, or start without --resume") from error
    for path in reversed(files):
        try:
            tensors, told = read_kept(path)
            plain = json.loads(told)
            if plain["format"] != FORMAT:
                raise UserError(
                    f"{path} has format {plain['format']!r}, this version reads {FORMAT}; update two-towers"
                )
            parts = plain["identity"], plain.get("computed", {})
            if not all(isinstance(part, dict) for part in parts) or not isinstance(plain["run_id"], str | None):
                raise ValueError("it does not say of which run it is")
            return Saved(path, tensors, plain)
        except (Damaged, OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s is damaged (%s); it is passed over", path, error)
    raise UserError(f"{folder} holds no checkpoint; give the folder that a training named, or start without --resume")


def _identity_of(config: TrainConfig, data: TrainingData) -> dict[str, Any]:
    """What must be the same for a run to go on: settings, data, versions."""
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    digest = hashlib.blake2b(data.validation.fingerprint().encode(), digest_size=16)
    for lists in (data.queries, data.passages, data.examples.positives, data.examples.negatives):
        digest.update(lists.ids.tobytes() + lists.offsets.tobytes())
    if data.stream is not None:
        digest.update(data.stream.identity.encode())
    if data.teacher_vectors is not None:
        digest.update(data.teacher_vectors.queries.tobytes() + data.teacher_vectors.passages.tobytes())
    return {
        "settings": settings,
        "data": {"content": digest.hexdigest()},
        "versions": {package: version(package) for package in ("two-towers", "torch")},
    }


def _check_same(saved: Saved, identity: dict[str, Any], anyway: bool) -> None:
    """Raise ``UserError`` with what is not as it was when the checkpoint was written; only say so if ``anyway``."""
    found = []
    for part, values in identity.items():
        before = saved.plain["identity"].get(part, {})
        for name, value in values.items():
            if before.get(name) != value and not (part == "settings" and name in NOT_THE_RESULT):
                found.append(f"{name} was {before.get(name)!r}, is {value!r}")
    if found and not anyway:
        raise UserError(f"{saved.path} is of another training: {'; '.join(found)}; give the same, or --resume-anyway")
    if found:
        logger.warning("going on with another training: %s", "; ".join(found))


def _computed_by(config: TrainConfig, processes: int) -> dict[str, Any]:
    """What decides in which order numbers are added up, and in which form."""
    device = pick_device(config.device)
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if device.type == "cpu":
        kind += f" with {torch.backends.cpu.get_cpu_capability()}"
    numbers = str(matrix_dtype(config.precision, device)).removeprefix("torch.")
    return {"threads": torch.get_num_threads(), "processes": processes, "device": kind, "precision": numbers}


def _compare_computed(saved: Saved, computed: dict[str, Any], config: TrainConfig) -> None:
    """Say in one line where the run is computed otherwise than before: it may not end in the same digits.

    Averages and recurrences were seen to be the same with any number of threads, on a CPU; transformers were not.
    Checkpoints of before 2026-12 do not tell.
    """
    before = saved.plain.get("computed", {})
    counts = [name for name in computed if name != "threads" or config.tower == "transformer"]
    found = [
        f"{name} {before[name]}, now {computed[name]}"
        for name in counts
        if before.get(name, computed[name]) != computed[name]
    ]
    if found:
        logger.warning("the checkpoint was made with %s: the result may differ in its last digits", "; ".join(found))


def _files(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, oldest first."""
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"step-\d{10}\.safetensors", path.name))
