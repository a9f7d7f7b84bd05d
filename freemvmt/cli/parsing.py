"""Reads the flags of every command into a dataclass of options; a wrong flag is an error of one line."""

import contextlib
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints

import tyro

from freemvmt.config import FolderConfig, flag
from freemvmt.errors import UserError
from freemvmt.runtime.console import Console, print_json

T = TypeVar("T")

# Arguments without a flag that several commands take.
ModelArgument = Annotated[
    str,
    tyro.conf.arg(metavar="MODEL", help="A model folder, a name on the Hub, or `untrained`."),
    tyro.conf.Positional,
]
CorpusArgument = Annotated[
    str,
    tyro.conf.arg(
        metavar="CORPUS", help="A folder of files, a BEIR folder, a file of JSONL, TSV or Parquet, or pydocs."
    ),
    tyro.conf.Positional,
]
CollectionArgument = Annotated[
    str,
    tyro.conf.arg(metavar="COLLECTION", help="A BEIR folder, or anything that --dataset takes."),
    tyro.conf.Positional,
]
BundleArgument = Annotated[
    str, tyro.conf.arg(metavar="BUNDLE", help="A folder that `index` wrote."), tyro.conf.Positional
]

# Of ``tuple[str, ...]`` tyro would import typeguard, which takes long.
_Globs = Annotated[tuple, tyro.conf.arg(metavar="GLOB"), tyro.conf.UseAppendAction]  # type: ignore[type-arg]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every command takes, and how it reports: in lines, or as one JSON object."""

    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""

    def console(self) -> Console:
        """The console for the lines of the report: stderr, if stdout is for the JSON object."""
        return Console(stderr=self.json)

    def finish(self, result: dict[str, Any], exit_code: int = 0) -> int:
        """Print ``result`` as the JSON object, if the user asks for it; return the exit code of the command."""
        print_json(self.json, result)
        return exit_code


@dataclass(frozen=True, kw_only=True)
class FolderOptions(FolderConfig):
    """What a command takes that reads a folder of files."""

    include: _Globs = ()  # type: ignore[type-arg]
    """A folder: read only the files that this glob names, as in a .gitignore (`*.md`, `docs/`)."""
    exclude: _Globs = ()  # type: ignore[type-arg]
    """A folder: leave out the files and folders that this glob names."""


def parse(options_type: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """Read ``argv`` into the dataclass ``options_type``; ``UserError`` of one line if a flag is wrong.

    A flag that is not in ``argv`` has its value in ``default``, if there is one.
    """
    _check_lists(options_type, argv)
    stderr, argv = io.StringIO(), _expand_switches(options_type, argv)
    try:
        with contextlib.redirect_stderr(stderr):
            if default is None:
                return tyro.cli(options_type, args=argv, prog=prog)
            return tyro.cli(options_type, args=argv, prog=prog, default=default)
    except SystemExit as exit_error:
        if not exit_error.code:  # --help
            raise
        raise UserError(f"{_message(stderr.getvalue())}; see {prog} --help") from None


def _check_lists(options_type: type[Any], argv: Sequence[str]) -> None:
    """``UserError`` if a flag that takes several values is given twice: only the last of the two would count.

    A flag that is annotated adds up its values, and may be given again.
    """
    words = Counter(word.partition("=")[0] for word in argv)
    for name, hint in get_type_hints(options_type, include_extras=True).items():
        if get_origin(hint) is tuple and words[flag(name)] > 1:
            raise UserError(f"{flag(name)} is given twice; give all values after one: {flag(name)} A B")


def _expand_switches(options_type: type[Any], argv: Sequence[str]) -> list[str]:
    """Write out the values of ``bool | None`` flags: ``--flag True`` for ``--flag``, and False for ``--no-flag``."""
    flags = {flag(name) for name, hint in get_type_hints(options_type).items() if hint == bool | None}
    values = ("None", "True", "False")
    words: list[str] = []
    for word, next_word in zip_longest(argv, argv[1:]):
        switch = f"--{word.removeprefix('--no-')}" if word.startswith("--no-") else word
        words.append(switch if switch in flags else word)
        if switch in flags and (switch != word or next_word not in values):
            words.append(str(switch == word))
    return words


def _message(box: str) -> str:
    """The message in the box that tyro draws around an error: the lines between the title and the first rule.

    The box has colours where the environment asks for them, and is drawn in ASCII where stdout can print no more.
    """
    sections: list[list[str]] = [[]]
    for line in re.sub(r"\x1b\[[\d;]*m", "", box).splitlines():
        text = line.strip("│ ")
        if re.match("[╭─╰]|---+$", text):
            sections.append([])
        elif text:
            sections[-1].append(text)
    lines = next((section for section in sections[1:] if section), sections[0])
    return " ".join(lines).partition(" Got errors:")[0].rstrip(".")
