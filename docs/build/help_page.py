"""Writes docs/reference/commands.md, the help page: what every command says of itself.

uv run python docs/build/help_page.py
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from freemvmt.cli import VERBS, main

PAGE = Path(__file__).parent.parent / "reference" / "commands.md"
WIDTH = "92"

_HEAD = """\
# Commands

What each command says with `--help`. `docs/build/help_page.py` writes this page, and a test compares it with the
commands.

Exit codes: 0 done; 2 what was given is wrong (one line says what, and what to do instead); 1 anything else. A command
that takes `--json` prints one JSON object on stdout, all else on stderr.
"""


def written() -> str:
    """The page as it has to be now."""
    parts = [_HEAD, f"```text\n{said(['--help'])}```\n"]
    parts += [f"## {verb}\n\n```text\n{said([verb, '--help'])}```\n" for verb in VERBS]
    return "\n".join(parts)


def said(argv: list[str]) -> str:
    """What `two-towers` writes to stdout, at one width and without colour."""
    out = io.StringIO()
    with _plain(), contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main(argv)
    text = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())
    return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"


@contextlib.contextmanager
def _plain() -> Iterator[None]:
    settings = {"COLUMNS": WIDTH, "LINES": "50", "NO_COLOR": "1", "TERM": "dumb", "PYTHON_COLORS": "0"}
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    with mock.patch.dict(os.environ, kept | settings, clear=True):
        yield


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(written(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
