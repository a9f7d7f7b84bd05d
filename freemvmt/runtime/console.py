"""What the user sees: report lines, progress (a bar on a terminal, plain lines elsewhere), and log records.

A line of plain text is written as it is; Rich, which takes 0.1 seconds to import, is for colours, bars and times.

The library itself never prints. It logs (logger ``freemvmt``), and it reports to a ``Console``; ``QUIET`` is a console
that prints nothing.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress

_MAX_SHARES = 12  # shares printed as numbers
_CONTROLS = dict.fromkeys(map(ord, "\a\b\v\f\r"))  # a terminal would act on them


class Console:
    """Report lines to stdout, or to stderr when stdout is kept for one JSON object."""

    def __init__(self, *, stderr: bool = False) -> None:
        self._stderr = stderr
        logger = logging.getLogger("freemvmt")
        logger.handlers = [_NoteHandler()]
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it logs its search for fonts

    @cached_property
    def _rich(self) -> "RichConsole":
        return _rich_console(self._stderr)

    def line(self, text: str = "", seconds: float | None = None) -> None:
        """Print a line of the report, with ``seconds`` (if given) at its right end."""
        if seconds is not None:
            width = min(self._rich.width, 110) if self._rich.is_terminal else 110
            text = f"{text:<{width - 9}} {seconds:6.1f} s"
        if "_rich" in self.__dict__:  # it may show a bar, which is drawn again below the line
            self._rich.print(text, markup=False)
        else:
            stream = sys.stderr if self._stderr else sys.stdout
            stream.write(text.expandtabs().translate(_CONTROLS) + "\n")
            stream.flush()

    def shares(self, pieces: Sequence[tuple[str, float]], indent: int) -> None:
        """Print a text whose pieces have shares of a score: as colours on a terminal, else the largest as numbers."""
        largest = max((share for _, share in pieces), default=0)
        if not (self._rich.is_terminal and self._rich.color_system):
            ranked = sorted((piece for piece in pieces if piece[1] > 0.05 * largest), key=lambda piece: -piece[1])
            self.line(" " * indent + "  ".join(f"{text} {share:+.3f}" for text, share in ranked[:_MAX_SHARES]))
            return
        from rich.padding import Padding
        from rich.style import Style
        from rich.text import Text

        text = Text()
        for piece, share in pieces:
            depth = round(155 * share / largest) if share > 0 else 0
            text.append(
                piece, Style(bgcolor=f"rgb({255 - depth},{255 - depth // 3},120)", color="black") if depth else ""
            )
        self._rich.print(Padding(text, (0, 0, 0, indent)))

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator["Bar"]:
        """A bar of ``total`` steps while the block runs: live on a terminal, a line every ten seconds elsewhere."""
        if not self._rich.is_terminal:
            yield _PlainBar(self, label, total)
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[note]}"),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=self._rich, transient=True) as live:
            yield _LiveBar(live, label, total)


class Bar:
    """A progress bar that shows nothing; the base class of the visible ones."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count ``steps`` more as done, and show ``note`` beside the bar."""


class _LiveBar(Bar):
    def __init__(self, live: "Progress", label: str, total: int) -> None:
        self._live = live
        self._task = live.add_task(label, total=total, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._live.update(self._task, advance=steps, note=note)


class _PlainBar(Bar):
    every = 10.0  # seconds between two lines

    def __init__(self, console: Console, label: str, total: int) -> None:
        self._console, self._label, self._total = console, label, total
        self._done, self._last_time = 0, time.monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._done += steps
        if time.monotonic() - self._last_time >= self.every:
            self._last_time = time.monotonic()
            self._console.line(f"{self._label}  {self._done}/{self._total}  {note}")


class _Quiet(Console):
    def __init__(self) -> None:
        pass

    def line(self, text: str = "", seconds: float | None = None) -> None:
        pass

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Bar]:
        yield Bar()


QUIET: Console = _Quiet()


class _NoteHandler(logging.Handler):
    """Prints log records to stderr: information as plain lines, warnings with a mark."""

    @cached_property
    def _rich(self) -> "RichConsole":
        return _rich_console(stderr=True)

    def emit(self, record: logging.LogRecord) -> None:
        mark = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        self._rich.print(mark + record.getMessage(), style="yellow" if mark else None, markup=False)


def _rich_console(stderr: bool) -> "RichConsole":
    from rich.console import Console as RichConsole

    return RichConsole(stderr=stderr, highlight=False, soft_wrap=True, emoji=False)


def print_error(message: str) -> None:
    """Print the message of an error to stderr."""
    from rich.text import Text

    _rich_console(stderr=True).print(Text.assemble(("error:", "bold red"), f" {message}"))
    sys.stderr.flush()


def pasteable(command: str) -> str:
    """``command`` as the user can paste it: after `uv run`, if this process was started with `uv run`."""
    return f"uv run {command}" if "UV_RUN_RECURSION_DEPTH" in os.environ else command


def shorten(text: str, width: int) -> str:
    """``text`` in at most ``width`` characters; a longer text is cut and ends with an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: ``1 document``, ``2,000 documents``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def print_json(as_json: bool, content: dict[str, Any]) -> None:
    """Print ``content`` as one JSON object on stdout, if ``as_json``; with escapes, if stdout does not take UTF-8."""
    if as_json:
        is_utf8 = (sys.stdout.encoding or "utf-8").lower() in ("utf-8", "utf8")
        sys.stdout.write(json.dumps(content, ensure_ascii=not is_utf8) + "\n")
