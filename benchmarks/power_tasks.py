"""What `power_cut.py` cuts off: every command that writes, each in a folder of its own, and what must be there then.

    uv run python benchmarks/power_tasks.py PLACE NAME ...      # is run by power_cut.py, and recorded

A task says when something is acknowledged: when a command has ended, a call has returned, a line was printed. `judge`
looks at a folder as a power cut may have left it, with all that was acknowledged by then, and raises `Wrong` unless all
of it is there, what is not there is refused in one line, and the same command goes on from there.
"""

import os
import random
import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from power_bundles import Change, Encode, Index
from power_place import OLD, Task, Wrong, done, must, same, tried

from freemvmt.config import TrainConfig
from freemvmt.data.collection import Collection
from freemvmt.data.readers import pydocs
from freemvmt.errors import UserError
from freemvmt.evaluation.runs import read_run, write_run
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import Console
from freemvmt.trainer import checkpoints as checkpoint
from freemvmt.trainer.teacher import Teacher
from freemvmt.training import train_and_save
from freemvmt.tuning.run import run_sweep
from freemvmt.tuning.spaces import definition
from freemvmt.tuning.study import open_study
from freemvmt.tuning.trial import Training

_TEXTS = ["a river of stone", "the piano", "a tower of glass and a tower of stone", ""]


class Train(Task):
    """`train` with checkpoints, and `train --resume` after it was cut off."""

    def act(self) -> None:
        write = checkpoint.Checkpoints.write

        def announced(self: checkpoint.Checkpoints, run: checkpoint.Resumable) -> bool:
            there = write(self, run)
            done("train", str(run.state.step))
            return there

        checkpoint.Checkpoints.write = announced  # type: ignore[method-assign]
        config = TrainConfig(
            base=str(self.inputs / "base"), dataset=(str(self.inputs / "rows.jsonl"),), epochs=2, batch_size=16,
            wandb=False, checkpoint_steps=2, output=str(self.folder / "new" / "model"), validation_fraction=0.2,
        )  # fmt: skip
        train_and_save(config)
        self.done("model")

    def ended(self) -> None:
        self.right = self._weights(self.folder / "new" / "model")

    def judge(self, said: Sequence[str]) -> None:
        model = self.folder / "new" / "model"
        there = tried(lambda: self._weights(model))
        if said[-1:] == ["model"] and isinstance(there, UserError):
            raise Wrong(f"the model is lost: {there}")
        steps = [int(what) for what in said if what != "model"]
        saved = tried(lambda: checkpoint.last_checkpoint(model.with_name("model.checkpoints")))
        if isinstance(there, UserError) and steps and (isinstance(saved, UserError) or _step(saved) < steps[-1]):
            raise Wrong(f"checkpoint {steps[-1]} is lost: {saved}")
        if not isinstance(saved, UserError) and self.goes_on():
            must("train", "--resume", saved.path.parent)
            there = tried(lambda: self._weights(model))
            same(sorted(os.listdir(model.parent)), [["model"]], "left beside the model")  # noqa: PTH208 - hidden ones
        if not isinstance(there, UserError):
            same(there, [self.right], "another model")

    @staticmethod
    def _weights(model: Path) -> bytes:
        TwoTowersModel.load(model)
        return (model / "model.safetensors").read_bytes()


def _step(saved: checkpoint.SavedRun) -> int:
    return int(saved.path.stem.partition("-")[2])


class Model(Task):
    """A model saved in the place of another, and the way back."""

    def start(self) -> None:
        TwoTowersModel.load(self.inputs / "model").save(self.folder / "model")

    def act(self) -> None:
        for name in ("other", "model"):
            TwoTowersModel.load(self.inputs / name).save(self.folder / "model")
            self.done(name)

    def judge(self, said: Sequence[str]) -> None:
        there = tried(lambda: self._weights(self.folder / "model"))
        right = [self._weights(self.inputs / name) for name in ("model", "other", "model")]
        same(there, right[len(said) : len(said) + 2], "no model, or another")

    @staticmethod
    def _weights(model: Path) -> bytes:
        return bytes(TwoTowersModel.load(model).tensors()["document.table"].detach().numpy().tobytes())


class Sweep(Task):
    """The study of a sweep: a formula is trained, the store is Optuna's own."""

    share = 0.05

    def act(self) -> None:
        self._sweep(3, self.folder)

    def _sweep(self, count: int, folder: Path) -> None:
        def prepare(config: TrainConfig, console: Console) -> Any:
            return SimpleNamespace(name="formula", examples=SimpleNamespace(pairs=lambda: ([0] * 900, [0] * 900)))

        def train(config: TrainConfig, data: Any, *, on_epoch: Callable[[int, float], None], **_: Any) -> Any:
            for epoch in range(1, config.epochs + 1):
                on_epoch(epoch, config.learning_rate)
            return SimpleNamespace(val_ndcg_10=config.learning_rate, ended="finished")

        class Announcing(Console):
            def line(self, text: str = "", seconds: float | None = None) -> None:
                if text.startswith("trial"):
                    done("sweep", text.split()[1].rstrip(":"))

        config = TrainConfig(wandb=False)
        given: dict[str, Any] = {"training": Training(prepare, train), "console": Announcing()}
        run_sweep(definition("quick"), config, count=count, folder=folder / "sweeps", **given)

    def judge(self, said: Sequence[str]) -> None:
        path = self.folder / "sweeps" / "quick.db"
        there = tried(lambda: self._trials(path)) if path.exists() else []
        if said and (isinstance(there, UserError) or len(there) < len(said)):
            raise Wrong(f"{len(said)} trials were done: {there}")
        if not isinstance(there, UserError) and self.goes_on():
            self._sweep(1, self.folder)
            after = self._trials(path)
            same(after[: len(there)], [there], "a trial is another")
            same(len(after), [len(there) + 1], "trials")

    @staticmethod
    def _trials(path: Path) -> list[tuple[float | None, dict[str, Any]]]:
        try:
            with closing(sqlite3.connect(path)) as file:
                found = file.execute("SELECT study_name FROM studies WHERE study_name LIKE 'quick%'").fetchall()
        except sqlite3.Error:  # cut off before there were tables, or damaged, which the program has to say
            found = []
        with open_study(path, found[0][0] if found else "none", None, 0) as study:
            return [(trial.value, trial.params) for trial in study.trials if trial.state.is_finished() and trial.values]


class Files(Task):
    """A run in the place of another, and a run where there was no folder."""

    def start(self) -> None:
        self.folder.mkdir()
        write_run(self._run(0), self.folder / "run.txt", "tag")

    def act(self) -> None:
        write_run(self._run(1), self.folder / "run.txt", "tag")
        self.done("again")
        write_run(self._run(0), self.folder / "deep" / "er" / "run.txt", "tag")
        self.done("fresh")

    @staticmethod
    def _run(seed: int) -> dict[str, dict[str, float]]:
        draw = random.Random(seed)
        return {"q": {id: draw.randint(1, 100) / 4 for id in OLD}}

    def judge(self, said: Sequence[str]) -> None:
        known = Collection("known", [*OLD], [*OLD.values()], ["q"], ["a"], {"q": {"d0": 1}})
        again = tried(lambda: read_run(self.folder / "run.txt", known))
        same(again, [self._run(1)] if said else [self._run(0), self._run(1)], "the run")
        path = self.folder / "deep" / "er" / "run.txt"
        if len(said) > 1 or path.exists():
            same(tried(lambda: read_run(path, known)), [self._run(0)], "the new run")


class Caches(Task):
    """Tokens, a teacher's vectors, docstrings: made anew where they are damaged, and never another's."""

    def act(self) -> None:
        self.right = self._read()
        self.done()

    ended = act

    def _read(self) -> Any:
        model = TwoTowersModel.load(self.inputs / "model")
        os.environ["TWO_TOWERS_CACHE"] = str(self.folder)
        tokens = model.tokenizer.encode_cached(_TEXTS, self.folder / "tokens")
        taught = Teacher(str(self.inputs / "model"), 64, torch.device("cpu")).vectors(_TEXTS, "documents")
        docstrings = pydocs.read(["tyro"], workers=1, cache=self.folder / "docstrings")
        return np.array(tokens.ids).tolist(), taught.tolist(), docstrings

    def judge(self, said: Sequence[str]) -> None:
        same(self._read(), [self.right], "from the cache")


TASKS: tuple[type[Task], ...] = (Train, Model, Index, Change, Sweep, Encode, Files, Caches)


if __name__ == "__main__":
    for kind in TASKS:
        if kind.__name__.lower() in sys.argv[2:]:
            kind(Path(sys.argv[1])).act()
