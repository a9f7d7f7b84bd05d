"""How every command reads its flags: a dataclass of options, and one line for a flag that is wrong."""

import contextlib
import io
import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro

from freemvmt.errors import UserError

T = TypeVar("T")


def parse(kind: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """``argv`` as an instance of the dataclass ``kind``; a flag that is wrong is a ``UserError`` of one line.

    Flags that are not given are as in ``default``, if there is one.
    """
    box, argv = io.StringIO(), _switched(kind, argv)
    try:
        with contextlib.redirect_stderr(box):
            if default is None:
                return tyro.cli(kind, args=argv, prog=prog)
            return tyro.cli(kind, args=argv, prog=prog, default=default)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise UserError(f"{_explanation(box.getvalue())}; see {prog} --help") from None


def _switched(kind: type[Any], argv: Sequence[str]) -> list[str]:
    """``argv`` where ``--flag`` and ``--no-flag`` stand for True and False of a flag that may be None too."""
    flags = {f"--{name.replace('_', '-')}" for name, hint in get_type_hints(kind).items() if hint == bool | None}
    values = ("None", "True", "False")
    words: list[str] = []
    for word, following in zip_longest(argv, argv[1:]):
        positive = f"--{word.removeprefix('--no-')}" if word.startswith("--no-") else word
        words.append(positive if positive in flags else word)
        if positive in flags and (positive != word or following not in values):
            words.append(str(positive == word))
    return words


def _explanation(box: str) -> str:
    """What tyro says is wrong: in its box of many lines, what stands between the title and the first rule.

    The box is coloured where the environment asks for colours, and drawn in ASCII where stdout cannot hold more.
    """
    parts: list[list[str]] = [[]]
    for line in re.sub(r"\x1b\[[\d;]*m", "", box).splitlines():
        inside = line.strip("│ ")
        if re.match("[╭─╰]|---+$", inside):
            parts.append([])
        elif inside:
            parts[-1].append(inside)
    said = next((part for part in parts[1:] if part), parts[0])
    return " ".join(said).partition(" Got errors:")[0].rstrip(".")


BundleArgument = Annotated[str, tyro.conf.arg(metavar="BUNDLE"), tyro.conf.Positional]
