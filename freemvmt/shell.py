"""What every command does alike: it reads its flags, reports, and ends with a code.

Exit codes: 0 done; 2 what the user gave is wrong (one line says what, and what to do); 1 anything else.
"""

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from freemvmt.errors import UserError

T = TypeVar("T")
LEFT_OUT = ("torch", "pyarrow", "transformers", "datasets", "safetensors", "bm25s", "ir_measures")  # by serve-lite


def run(action: Callable[[], object]) -> int:
    """Do ``action``; errors of the user become one line and 2, an interruption or a closed pipe become 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path need not be UTF-8, a terminal need not show "±"
            stream.reconfigure(errors="backslashreplace")
    try:
        result = action()
        sys.stdout.flush()
    except UserError as error:
        from freemvmt.console import fail

        fail(" ".join(str(error).split()))
        return 2
    except ModuleNotFoundError as error:
        if error.name not in LEFT_OUT:
            raise
        from freemvmt.console import fail

        fail(f"this needs {error.name}, which an environment made only to serve leaves out; install two-towers whole")
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        from freemvmt.console import fail

        fail("there is not enough memory for this; free some, or give less at once (--batch-size, --max-samples)")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 1
    except BrokenPipeError:
        sys.stdout = io.StringIO()  # nobody reads on: nothing more to flush at the end
        return 1
    return result if isinstance(result, int) else 0


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory was asked for and not had: numpy and Arrow say so by type, torch, CUDA and threads in words."""
    words = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "can't start new thread")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def parse(kind: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """``argv`` as an instance of the dataclass ``kind``; a flag that is wrong is a ``UserError`` of one line.

    Flags that are not given are as in ``default``, if there is one.
    """
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            if default is None:
                return tyro.cli(kind, args=argv, prog=prog)
            return tyro.cli(kind, args=argv, prog=prog, default=default)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise UserError(f"{_explanation(box.getvalue())}; see {prog} --help") from None


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
