"""Processes that are killed or watched: one imports everything once, and then forks for each task.

A task is a line of JSON on stdin: a command, whose output goes to the file ``out`` if one is named, or changes of a
bundle without end. What the fork does is said on stdout, line by line: its process id, "ready", then "done N" once
change N is acknowledged, or "exit CODE".
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

SLOTS = 5
_OUT = 3  # where stdout was


def documents_of(step: int) -> list[tuple[str, str]]:
    """(id, text) of what change ``step`` puts in: three documents, which take the place of older ones."""
    return [(f"k{step % SLOTS}-{part}", f"tower number {step} part {part}") for part in range(3)]


def apply(there: dict[str, str], step: int) -> None:
    """Change ``step``, done to a dict of id and text."""
    for name, text in documents_of(step):
        if step % 3 == 2:
            there.pop(name, None)
        else:
            there[name] = text


def change(bundle: str, step: int) -> None:
    """Change a bundle step by step, from ``step`` on, for ever."""
    from freemvmt.data.documents import Document
    from freemvmt.search.retriever import Retriever

    retriever = Retriever.load(bundle)
    say("ready")
    while True:
        documents = [Document(name, text) for name, text in documents_of(step)]
        if step % 3 == 2:
            retriever.delete([document.id for document in documents])
        else:
            retriever.add(documents)
        say(f"done {step}")
        step += 1


def say(line: str) -> None:
    """One whole line at once, also when killed right behind it."""
    os.write(_OUT, f"{line}\n".encode())


def main() -> None:
    import faiss
    import nanotoken
    import numpy as np
    import pyarrow as pa
    import tantivy
    import torch

    import freemvmt.cli
    import freemvmt.cli.documents
    import freemvmt.cli.encode
    import freemvmt.cli.index
    import freemvmt.cli.mine
    import freemvmt.cli.train
    import freemvmt.runtime.console
    import freemvmt.runtime.exit_codes
    import freemvmt.search.bundle.build
    import freemvmt.search.bundle.load
    import freemvmt.search.retriever
    import freemvmt.training

    assert [faiss, nanotoken, tantivy]
    pa.array(np.zeros(1))  # which imports pandas
    torch.set_num_threads(1)  # a fork has no threads but its first
    os.dup2(1, _OUT)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        task = json.loads(line)
        if child := os.fork():
            say(str(child))
            os.waitpid(child, 0)
            say("dead")
            continue
        if "chunk" in task:
            freemvmt.search.bundle.build.CHUNK = task["chunk"]
        if "change" in task:
            change(task["change"], task["step"])
        if "out" in task:
            out = os.open(task["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
        try:
            say("ready")
            code = freemvmt.cli.main(task["command"])
            sys.stdout.flush()
            say(f"exit {code}")
        except KeyboardInterrupt:  # right before the command, or right behind it
            say("exit 1")
        os._exit(0)


class Forks:
    """The other end of such a process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin
        assert process.stdout
        self._in: IO[str] = process.stdin
        self._out: IO[str] = process.stdout

    def start(self, **task: Any) -> int:
        """Begin a task; its process id, once it is ready."""
        self._in.write(json.dumps(task) + "\n")
        self._in.flush()
        said = [self._line(), self._line()]
        said.remove("ready")
        return int(said[0])

    def rest(self) -> list[str]:
        """What it has said since, when it has ended."""
        return list(iter(self._line, "dead"))

    def _line(self) -> str:
        line = self._out.readline()
        assert line, "the process is gone"
        return line.strip()


def alive(child: int) -> bool:
    """Whether it has not ended yet."""
    return Path(f"/proc/{child}").exists()


@contextmanager
def forks() -> Iterator[Forks]:
    """One such process for as long as the block runs."""
    command = [sys.executable, str(Path(__file__))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield Forks(process)
        assert process.stdin
        process.stdin.close()


if __name__ == "__main__":
    main()
