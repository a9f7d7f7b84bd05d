"""What a person sees: report lines, a progress bar on a terminal and plain lines elsewhere, and the log as notes.

The library itself never prints. It logs (logger ``freemvmt``), and what it reports it reports to a ``Console``;
``QUIET`` is the one that shows nothing.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.style import Style
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress

_LARGEST = 12  # shares that are shown as numbers


class Console:
    """Report lines to stdout, or to stderr when stdout is kept for one JSON object."""

    def __init__(self, *, stderr: bool = False) -> None:
        self._rich = RichConsole(stderr=stderr, highlight=False, soft_wrap=True, emoji=False)
        self._errors = RichConsole(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        handler = _NoteHandler(self._errors)
        logger = logging.getLogger("freemvmt")
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # that it looks for fonts is nobody's business

    def line(self, text: str = "", seconds: float | None = None) -> None:
        """One line of the report; ``seconds``, if given, stands at the right."""
        if seconds is not None:
            width = min(self._rich.width, 110) if self._rich.is_terminal else 110
            text = f"{text:<{width - 9}} {seconds:6.1f} s"
        self._rich.print(escape(text))

    def shares(self, pieces: Sequence[tuple[str, float]], indent: int) -> None:
        """A text whose pieces have shares of a score: tinted on a terminal, else the largest shares as numbers."""
        most = max((share for _, share in pieces), default=0)
        if not (self._rich.is_terminal and self._rich.color_system):
            ranked = sorted((piece for piece in pieces if piece[1] > 0.05 * most), key=lambda piece: -piece[1])
            self.line(" " * indent + "  ".join(f"{text} {share:+.3f}" for text, share in ranked[:_LARGEST]))
            return
        from rich.padding import Padding

        text = Text()
        for piece, share in pieces:
            depth = round(155 * share / most) if share > 0 else 0
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
    """A progress bar that shows nothing; the base of those that do."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """``steps`` more are done; ``note`` is shown beside the bar."""


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
        self._done, self._said = 0, time.monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._done += steps
        if time.monotonic() - self._said >= self.every:
            self._said = time.monotonic()
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
    """Log records as lines on stderr: plain for information, marked for warnings."""

    def __init__(self, rich: RichConsole) -> None:
        super().__init__()
        self._rich = rich

    def emit(self, record: logging.LogRecord) -> None:
        mark = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        self._rich.print(escape(mark + record.getMessage()), style="yellow" if mark else None)


def fail(message: str) -> None:
    """Print the one line of an error to stderr."""
    RichConsole(stderr=True, highlight=False, soft_wrap=True, emoji=False).print(
        f"[bold red]error:[/] {escape(message)}"
    )
    sys.stderr.flush()


def pasteable(command: str) -> str:
    """``command`` as it works where this process was started: with `uv run`, if that is how."""
    return f"uv run {command}" if "UV_RUN_RECURSION_DEPTH" in os.environ else command


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
