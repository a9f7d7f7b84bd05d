"""Runs what stands in the tutorials and the how-to pages, as written, and writes what it answers under it.

    uv run python docs/build/doc_pages.py

A block with a title is a file. Blocks of `sh` and `python` are run in the order of the pages, all in one folder, and a
`text` block behind one is what it printed. A block under `<!-- not run: why -->` cannot run everywhere; of that one its
commands' flags are still read. `two-towers` runs in this process, a server in one of its own.
"""

import contextlib
import importlib
import io
import os
import re
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import serving_page

from freemvmt import cli

DOCS = Path(__file__).parent.parent
ELSEWHERE = {"serving.md": "docs/build/serving_page.py", "reference/commands.md": "docs/build/help_page.py"}
FILES = {"json", "jsonl", "tsv", "python", "yaml"}

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+?) -->\n)?```(?P<info>[^\n]*)\n(?P<body>.*?)^```$\n?", re.DOTALL | re.MULTILINE
)
_INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?:    [^\n]*\n(?:\n(?=    ))?)+")
_COMMAND = re.compile(
    r"^(?:\$ )?(?:\w+=\S+ )*(?:uv run )?(?:two-towers|(?:torchrun [^|;&]*|python )-m freemvmt) (?P<flags>[^|;&]+)"
)


@dataclass(frozen=True)
class Block:
    """A block of code: its language, its title if it is a file, why it is not run if it is not, and its text."""

    kind: str
    title: str | None
    why: str | None
    body: str

    @classmethod
    def of(cls, found: re.Match[str]) -> "Block":
        """The block that ``_BLOCK`` has found."""
        kind, _, rest = found["info"].partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        return cls(kind, title[1] if title else None, found["why"], found["body"])


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, and the indented ones as `sh` that is not run."""
    fenced = [Block.of(found) for found in _BLOCK.finditer(page)]
    plain = _BLOCK.sub("", page)
    return fenced + [Block("sh", None, "a form, not a command", found[0]) for found in _INDENTED.finditer(plain)]


def pages() -> list[Path]:
    """The tutorials and the pages that go on with what they made, in the order of the site."""
    nav = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    return [DOCS / name for name in re.findall(r"(?:index|tutorial(?:-folder)?|explanation|how-to/[\w-]+)\.md", nav)]


def commands(script: str) -> list[str]:
    """The lines of a shell script, joined where they go on, without comments alone."""
    lines = script.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def flags_of(line: str) -> list[list[str]]:
    """What every `two-towers` command of a line is given."""
    words = " ".join(re.sub(r"\[[^]]*\] ?| > \S+$", "", line).split(" # ")[0].split("      # ")[0].split())
    return [shlex.split(found["flags"], comments=True) for found in _COMMAND.finditer(words)]


def check_flags(argv: list[str]) -> None:
    """Let the command itself read ``argv``, and go no further; raises ``UserError`` for what it does not take."""

    class ReadError(Exception):
        """It has been read."""

    def parse(real: Any) -> Any:
        def parsed(*given: Any, **named: Any) -> None:
            real(*given, **named)
            raise ReadError

        return parsed

    from freemvmt.cli import parsing, train

    # All are imported before any is changed: one that came later would keep what stands in for the parser.
    modules = [
        importlib.import_module(f"freemvmt.cli.{name}") for name in sorted({name for name, _ in cli.VERBS.values()})
    ]
    with contextlib.ExitStack() as stack:
        for module in (*modules, parsing):
            stack.enter_context(mock.patch.object(module, "parse", parse(module.parse)))
        stack.enter_context(mock.patch.object(train, "_stopped_training", return_value=None))
        stack.enter_context(mock.patch.dict(os.environ, {"TWO_TOWERS_TOKEN": "one"}))  # what some flags ask for
        stack.enter_context(contextlib.suppress(ReadError, SystemExit))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        cli._function(argv[0])(argv[1:])


class Pages(serving_page.Transcript):
    """A folder, the pages' commands, Python and servers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._names: dict[str, Any] = {}

    def filled(self, page: str) -> str:
        """``page`` with the outputs that it has here."""
        answer: str | None = None
        self._names = {"__name__": "page"}

        def fill(found: re.Match[str]) -> str:
            nonlocal answer
            block = Block.of(found)
            if block.why:
                return found[0]
            if block.title and block.kind in FILES:
                path = self._folder / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.body, encoding="utf-8")
            elif block.kind == "sh":
                answer = "".join(self._said(self._here(line)) for line in commands(block.body))
            elif block.kind == "python":
                answer = self._python(self._here(block.body))
            elif block.kind == "text" and answer is not None:
                found_here, answer = answer, None
                return f"```text\n{found_here.rstrip(chr(10))}\n```\n"
            else:
                raise AssertionError(f"a block of {block.kind!r} is no command, no file and no output:\n{block.body}")
            return found[0]

        return _BLOCK.sub(fill, page)

    def _failed(self, argv: list[str], code: int, errors: str) -> str:
        raise AssertionError(f"two-towers {shlex.join(argv)} ended with {code}: {errors}")

    def _python(self, code: str) -> str:
        out = io.StringIO()
        with self._inside(), contextlib.redirect_stdout(out):
            exec(compile(code, "<page>", "exec"), self._names)
        return out.getvalue()


def lasting(page: str) -> str:
    """``page`` without what differs from machine to machine: every number, the form of spaces, ids of requests."""
    page = re.sub(r'("request_id": ?)"\w+"', r"\1", page)
    page = re.sub(r"[-+]?\d[\d,]*(\.\d+)?(e-\d+)?", "0", page)
    return re.sub(r" +", " ", page)


def main() -> None:
    """Fill the pages."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder, Pages(Path(folder)) as transcript:
        for path in pages():
            path.write_text(transcript.filled(path.read_text(encoding="utf-8")), encoding="utf-8")
            sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
