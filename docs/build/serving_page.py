"""Runs what stands in docs/serving.md, as written, and writes what it answers under it.

    uv run python docs/build/serving_page.py

A `json` block is docs.jsonl. In a `text` block a line that begins with `$` is a command, and what follows is its
output; behind a `python` block, the `text` block is what it prints. `two-towers` runs in this process, a server in one
of its own on a port that is free; its address is written as on the page.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from unittest import mock

from freemvmt import cli

PAGE = Path(__file__).parent.parent / "serving.md"
PATIENCE = 120  # seconds for a command

_BLOCK = re.compile(r"^```(json|python|text)\n(.*?)^```$\n?", re.DOTALL | re.MULTILINE)


class Transcript:
    """A folder, its commands and its servers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports: dict[str, str] = {}  # of the page: of the machine
        self._servers: list[subprocess.Popen[str]] = []
        mine = {name: value for name, value in os.environ.items() if name != "TWO_TOWERS_TOKEN"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = mine | {"PATH": path, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "NO_PROXY": "127.0.0.1"}

    def __enter__(self) -> "Transcript":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for server in self._servers:
            server.terminate()
        for server in self._servers:
            server.wait(PATIENCE)
            assert server.stdout
            server.stdout.close()

    def filled(self, page: str) -> str:
        """``page`` with the outputs that it has here."""
        answer: str | None = None  # what the Python block before this one printed

        def fill(block: re.Match[str]) -> str:
            nonlocal answer
            kind, body = block[1], block[2]
            if kind == "json":
                (self._folder / "docs.jsonl").write_text(body, encoding="utf-8")
            elif kind == "python":
                answer = self._run([sys.executable, "-c", self._here(body)])
            elif answer is not None:
                body, answer = answer, None
            elif body.startswith("$ "):
                body = "".join(self._answered(line) for line in body.splitlines() if line.startswith("$ "))
            return f"```{kind}\n{body}```\n"

        return _BLOCK.sub(fill, page)

    def _answered(self, line: str) -> str:
        """A line with a command, and below it what it wrote."""
        return f"{line}\n{self._said(self._here(line.removeprefix('$ ')))}"

    def _said(self, command: str) -> str:
        """What a command writes, in whole lines."""
        if re.match(r"(\w+=\S+ )*two-towers (serve|mcp) ", command):
            said = self._serve(command)
        elif command.startswith("two-towers ") and not {"|", ">"} & set(shlex.split(command)):
            said = self._two_towers(shlex.split(command, comments=True)[1:])
        else:
            said = self._run(["bash", "-c", re.sub(r"^curl ", "curl --silent ", command)])
        return said if not said or said.endswith("\n") else f"{said}\n"

    def _two_towers(self, argv: list[str]) -> str:
        out, errors = io.StringIO(), io.StringIO()
        with self._inside(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = cli.main(argv)
        return self._failed(argv, code, errors.getvalue()) if code else out.getvalue()

    def _failed(self, argv: list[str], code: int, errors: str) -> str:
        """What the page shows of a command that failed."""
        return errors

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """The folder, and a terminal that is as wide everywhere."""
        plain = {"COLUMNS": "110", "NO_COLOR": "1", "TERM": "dumb"}
        with contextlib.chdir(self._folder), mock.patch.dict(os.environ, plain):
            yield

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return self._there(done.stderr if done.returncode else done.stdout)

    def _serve(self, command: str) -> str:
        """What a server says until it listens; or the one line of one that does not start."""
        given = re.search(r" --port (\d+)", command)
        server = subprocess.Popen(
            ["bash", "-c", f"exec env {command} --port 0 2>&1"],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._servers.append(server)
        assert server.stdout
        said = ""
        for text in server.stdout:
            said += text
            if found := re.match(r"(API|MCP) .*:(\d+)/", text):
                default = "8000" if found[1] == "API" else "8001"
                self._ports[given[1] if given else default] = found[2]
                break
        return self._there(said)

    def _here(self, text: str) -> str:
        for shown, real in self._ports.items():
            text = text.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{real}")
        return text

    def _there(self, text: str) -> str:
        for shown, real in self._ports.items():
            text = text.replace(f"127.0.0.1:{real}", f"127.0.0.1:{shown}")
        return text


def blocks(page: str) -> list[tuple[str, str]]:
    """(kind, text) of the blocks that are run or read here."""
    return [(found[1], found[2]) for found in _BLOCK.finditer(page)]


def lasting(page: str) -> str:
    """``page`` without what differs from run to run and from machine to machine: times, ids, last digits, spaces."""
    page = re.sub(r'("took_ms": ?)[\d.]+|("request_id": ?)"\w+"', r"\1\2", page)
    page = re.sub(r"[\d.]+( m?s\b)", r"\1", page)
    page = re.sub(r"-?\d+\.\d{3,}(e-\d+)?", lambda found: f"{float(found[0]):.2f}", page)
    return re.sub(r"[ ]+", " ", page)


def main() -> None:
    """Fill the page."""
    page = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, Transcript(Path(folder)) as transcript:
        PAGE.write_text(transcript.filled(page), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")


if __name__ == "__main__":
    main()
