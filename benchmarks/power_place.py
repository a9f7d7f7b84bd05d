"""What the tasks that `power_cut.py` cuts off have in common: inputs, commands, and how they say what is done."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from fuzz_targets import small_base
from power_record import DONE, MARKS

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel

T = TypeVar("T")
Documents = dict[str, str]
OLD: Documents = {f"d{n}": f"tower of stone number {n}" for n in range(5)}
NEW: Documents = {f"n{n}": f"tower of glass number {n}" for n in range(4)}
ADDED: Documents = {"a1": "tower of paper", "d1": "tower of straw"}  # one new, one in the place of another
LATER: Documents = {"a2": "tower of water"}


class Wrong(Exception):  # noqa: N818 - what it is
    """What a power cut has left is not what was promised."""


def done(task: str, what: str = "") -> None:
    """Acknowledge: what was done until now must be there whatever happens."""
    with Path(MARKS).open("wb", buffering=0) as file:
        file.write(DONE + f"{task} {what}".encode())


def prepare(place: Path) -> None:
    """What the tasks need: a base model, rows, corpora, two models, a bundle."""
    inputs = place / "inputs"
    inputs.mkdir(parents=True)
    base = small_base(inputs / "base")
    rows = [
        {"query": f"river {n} of {n % 7}", "passage": f"mountain {n} stone {n % 7}", "negative": f"piano {n % 5}"}
        for n in range(60)
    ]
    (inputs / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, documents in (("old", OLD), ("new", NEW), ("added", ADDED), ("later", LATER)):
        lines = (json.dumps({"_id": id, "text": text, "title": "", "year": 1999}) for id, text in documents.items())
        (inputs / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    model = TwoTowersModel(ModelConfig(base=base, dim=4))
    model.save(inputs / "model")
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)
    model.save(inputs / "other")
    must("index", inputs / "model", inputs / "old.jsonl", "--output", inputs / "bundle")


def must(*words: object) -> None:
    """A command that ends well."""
    if code := main([str(word) for word in words]):
        raise Wrong(f"{words[0]} ends with {code}")


def tried(action: Callable[[], T]) -> T | UserError:
    """What ``action`` gives, or the one line that it refuses by."""
    try:
        return action()
    except UserError as error:
        return error


def same(found: object, wanted: Sequence[object], what: str) -> None:
    if not any(found == one for one in wanted):
        raise Wrong(f"{what}: {found!r:.300}")


class Task:
    """Something that writes into ``folder``; ``inputs`` is what ``prepare`` made."""

    share = 0.25  # of the states, those from which the command goes on, which takes longest

    def __init__(self, place: Path) -> None:
        self.inputs = place / "inputs"
        self.folder = place / type(self).__name__.lower()
        self._draw = random.Random(0)

    def goes_on(self) -> bool:
        """Whether to try that the command goes on from this state."""
        return self._draw.random() < self.share

    def start(self) -> None:
        """Make the folder as it is before."""
        self.folder.mkdir()

    def act(self) -> None:
        """What is recorded."""
        raise NotImplementedError

    def done(self, what: str = "") -> None:
        """Acknowledge."""
        done(self.folder.name, what)

    def ended(self) -> None:
        """Look at what is there when nothing has cut it off."""

    def judge(self, said: Sequence[str]) -> None:
        """Raise ``Wrong`` unless the folder is as it may be after ``said``."""
        raise NotImplementedError
