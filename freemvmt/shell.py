"""What every command does alike: it reads its flags, reports, and ends with a code.

Exit codes: 0 done; 2 what the user gave is wrong (one line says what, and what to do); 1 anything else.
With ``--json`` what is wrong is one JSON object on stdout too: ``{"error": "…"}``.
"""

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, TypeVar, get_type_hints

import tyro

from freemvmt.cores import obey_container
from freemvmt.errors import UserError
from freemvmt.homes import provide_home

T = TypeVar("T")
LEFT_OUT = ("torch", "pyarrow", "transformers", "datasets", "safetensors", "bm25s", "ir_measures")  # by serve-lite


def run(action: Callable[[], object], argv: Sequence[str] = ()) -> int:
    """Do ``action``, which ``argv`` asks for; errors of the user become one line and 2, an interruption or a closed
    pipe become 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path need not be UTF-8, a terminal need not show "±"
            stream.reconfigure(errors="backslashreplace")
    try:
        obey_container()
        provide_home()
        result = action()
        sys.stdout.flush()
    except UserError as error:
        return _refused(" ".join(str(error).split()), argv)
    except ModuleNotFoundError as error:
        if error.name not in LEFT_OUT:
            raise
        needed = f"this needs {error.name}, which an environment made only to serve leaves out"
        return _refused(f"{needed}; install two-towers whole", argv)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        instead = "free some, or give less at once (--batch-size, --max-samples)"
        return _refused(f"there is not enough memory for this; {instead}", argv)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 1
    except BrokenPipeError:
        sys.stdout = io.StringIO()  # nobody reads on: nothing more to flush at the end
        return 1
    return result if isinstance(result, int) else 0


def _refused(message: str, argv: Sequence[str]) -> int:
    """Say what is wrong on stderr, and where ``argv`` asks for JSON on stdout; return the exit code."""
    from freemvmt.console import fail

    fail(message)
    words = list(argv[: argv.index("--")] if "--" in argv else argv)  # what follows is no flag
    asked = [word for word in words if word in ("--json", "--no-json")]
    with contextlib.suppress(OSError):  # nobody reads it
        report(asked[-1:] == ["--json"], {"error": message})
        sys.stdout.flush()
    return 2


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory was asked for and not had: numpy and Arrow say so by type, torch, CUDA and threads in words."""
    words = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "can't start new thread")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


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


def cut(text: str, width: int) -> str:
    """``text``, or its beginning and an ellipsis, in ``width`` characters."""
    return text if len(text) <= width else text[: width - 1] + "…"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 document``, ``2,000 documents``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def report(as_json: bool, found: dict[str, Any]) -> None:
    """Print ``found`` as one JSON object on stdout, if ``as_json``."""
    if as_json:
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
