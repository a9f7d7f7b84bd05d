"""What a process does to a folder, read from strace: every write, change of names and sync, in order.

Nothing is believed: a call that the replayer has no model of (a mapping that is written through, say) is an error, and
what the recorded operations make of the folder must in the end be, byte for byte, what is there.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from power_replay import ROOT, Mark, Names, Operation, Recording, Resize, Sync, Tree, Write

MARKS = "/dev/null"  # what a process writes there, behind `DONE`, is a mark
DONE = b"done "
_WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2")
_CALLS = (
    *_WRITES, "open", "openat", "creat", "ftruncate", "truncate", "fallocate", "lseek", "rename", "renameat",
    "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "fsync",
    "fdatasync", "sync", "syncfs", "mmap", "copy_file_range", "sendfile", "splice", "io_uring_setup",
)  # fmt: skip
_HEX = r"(?:\\x[0-9a-f]{2})*"
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+|\?|0x[0-9a-f]+)(.*)", re.S)
_STRING, _FILE = re.compile(rf'"({_HEX})"(\.\.\.)?'), re.compile(rf"(-?\w+)<({_HEX})>(\(deleted\))?")


class Unmodelled(Exception):  # noqa: N818 - what it is
    """The process did what the replayer knows nothing of."""


@dataclass(frozen=True)
class _Call:
    """A system call that went well: its name, its arguments as strace shows them, what it gave, where it began."""

    name: str
    text: str
    gave: str
    number: int
    began: int

    @property
    def strings(self) -> list[bytes]:
        """What stands in quotes."""
        found = _STRING.findall(self.text)
        if any(cut for _, cut in found):
            raise Unmodelled(f"strace has cut short what {self.name} was given")
        return [_bytes(text) for text, _ in found]

    @property
    def words(self) -> list[str]:
        """The arguments between the commas; no string holds one, for all are in hexadecimal."""
        return self.text.split(", ")


def strace() -> str | None:
    """The program, where it is and may trace."""
    found = shutil.which("strace")
    if found and subprocess.run([found, "-e", "trace=none", "true"], capture_output=True, check=False).returncode == 0:
        return found
    return None


def record(
    command: Sequence[str], folders: Sequence[Path], environment: Mapping[str, str] | None = None
) -> list[Recording]:
    """Run ``command``, which must end well, and return what it did in each of ``folders``.

    A mark that begins with a folder's name is of that folder, and the name is left out.
    """
    with tempfile.NamedTemporaryFile(prefix="strace-") as trace:
        tracer = ["strace", "-f", "-y", "-xx", "-s", str(2**28), "--seccomp-bpf", "-e", f"trace={','.join(_CALLS)}"]
        readers = [_Reader(folder.resolve()) for folder in folders]
        done = subprocess.run(
            [*tracer, "-o", trace.name, *command], cwd=folders[0], env=environment, capture_output=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the recorded process ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
        for reader in readers:
            for call in _calls(Path(trace.name), reader.operations):
                reader.take(call)
    return [reader.recording() for reader in readers]


def _calls(trace: Path, operations: Sequence[Operation]) -> Iterator[_Call]:
    """The calls that went well, as they ended; ``operations`` are those of the calls so far."""
    begun: dict[str, tuple[str, int]] = {}
    with trace.open(encoding="ascii") as lines:
        for line in lines:
            process, _, rest = line.rstrip("\n").partition(" ")
            rest, began = rest.lstrip(), len(operations)
            if rest.endswith(" <unfinished ...>"):
                begun[process] = rest.removesuffix(" <unfinished ...>"), began
                continue
            if resumed := re.match(r"<\.\.\. \w+ resumed>", rest):
                before, began = begun.pop(process)
                rest = before + rest[resumed.end() :]
            if (found := _CALL.fullmatch(rest)) and found[3] != "?" and not found[3].startswith("-"):
                yield _Call(found[1], found[2], found[3] + found[4], int(found[3], 0), began)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


class _Reader:
    """Follows the calls: which file has which name now, and at which byte each open file is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[int, bytes] = {}
        self._folders: dict[int, dict[str, int]] = {}
        self._count = ROOT
        self._read(folder)
        self._was = {number: dict(names) for number, names in self._folders.items()}
        self._sizes = {number: len(content) for number, content in self._files.items()}
        self._at: dict[tuple[int, str], int] = {}  # file and descriptor -> the next byte; -1: always the end
        self.operations: list[Operation] = []

    def _read(self, folder: Path) -> int:
        number, self._count = self._count, self._count + 1
        names = self._folders[number] = {}
        for path in sorted(folder.iterdir()):
            if path.is_symlink():
                raise Unmodelled(f"a link: {path}")
            if path.is_dir():
                names[path.name] = self._read(path)
            else:
                names[path.name], self._count = self._count, self._count + 1
                self._files[names[path.name]] = path.read_bytes()
        return number

    def recording(self) -> Recording:
        """All of it, if it explains what is there."""
        made = Recording(self._files, self._was, self.operations)
        tree, there = made.tree(len(self.operations), {}), _tree(self._folder)
        if wrong := [path for path in sorted({*tree, *there}) if tree.get(path, 0) != there.get(path, 0)]:
            raise Unmodelled(f"what was recorded does not make what is there: {wrong}")
        return made

    def take(self, call: _Call) -> None:
        """Note what ``call`` has done, if it was in the folder."""
        if call.name in _WRITES:
            self._write(call)
        elif call.name in ("open", "openat", "creat"):
            self._open(call)
        elif call.name in ("fsync", "fdatasync"):
            if (number := self._opened(call.words[0])) is not None:
                self.operations.append(Sync(number, call.began))
        elif call.name in ("ftruncate", "truncate"):
            number = self._opened(call.words[0]) if call.name[0] == "f" else self._find(self._paths(call)[0])
            if number is not None:
                self._resize(number, int(call.words[1]))
        elif call.name == "lseek":
            number, handle = self._opened(call.words[0]), call.words[0].partition("<")[0]
            if number is not None and self._at.get((number, handle), 0) >= 0:
                self._at[number, handle] = call.number
        elif call.name == "mmap":
            if (
                "PROT_WRITE" in call.words[2]
                and "MAP_SHARED" in call.words[3]
                and self._opened(call.words[4]) is not None
            ):
                raise Unmodelled(f"a file is written to through a mapping: {call.words[4]}")
        elif call.name in ("sync", "syncfs", "fallocate", "copy_file_range", "sendfile", "splice", "io_uring_setup"):
            if call.name in ("sync", "io_uring_setup") or any(self._opened(word) is not None for word in call.words):
                raise Unmodelled(call.name)
        else:
            self._rename(call)

    def _write(self, call: _Call) -> None:
        handle, data = call.words[0].partition("<")[0], b"".join(call.strings)[: call.number]
        if self._named(call.words[0]) == Path(MARKS) and data.startswith(DONE):
            name, _, what = data.removeprefix(DONE).decode().partition(" ")
            if name == self._folder.name:
                self.operations.append(Mark(what))
        number = self._opened(call.words[0])
        if number is None:
            return
        if call.name.startswith("p"):
            at = int(call.words[-1 if call.name != "pwritev2" else -2])
        else:
            at = self._at.get((number, handle), 0)
            if at < 0:
                at = self._sizes[number]
            else:
                self._at[number, handle] = at + len(data)
        self.operations.append(Write(number, at, data))
        self._sizes[number] = max(self._sizes[number], at + len(data))

    def _open(self, call: _Call) -> None:
        path, handle = self._named(call.gave), call.gave.partition("<")[0]
        if path is None or not path.is_relative_to(self._folder):
            return
        if "O_SYNC" in call.text or "O_DSYNC" in call.text:
            raise Unmodelled(f"{path} is opened so that each write is synced")
        number = self._find(path)
        if number is None:
            number, self._count = self._count, self._count + 1
            self._files[number], self._sizes[number] = b"", 0
            self._change([(path, number)])
        elif ("O_TRUNC" in call.text or call.name == "creat") and self._sizes[number]:
            self._resize(number, 0)
        self._at[number, handle] = -1 if "O_APPEND" in call.text else 0

    def _resize(self, number: int, size: int) -> None:
        self.operations.append(Resize(number, size))
        self._sizes[number] = size

    def _rename(self, call: _Call) -> None:
        paths = self._paths(call)
        inside = [path.is_relative_to(self._folder) for path in paths]
        if not any(inside):
            return
        if not all(inside) or "symlink" in call.name:
            raise Unmodelled(f"{call.name} {paths}")
        if call.name.startswith("mkdir"):
            number, self._count = self._count, self._count + 1
            self._folders[number] = {}
            self._change([(paths[0], number)])
        elif call.name.startswith(("unlink", "rmdir")):
            self._change([(paths[0], None)])
        elif call.name.startswith("link"):
            self._change([(paths[1], self._find(paths[0]))])
        else:
            one, other = map(self._find, paths)
            self._change([(paths[0], other if "RENAME_EXCHANGE" in call.text else None), (paths[1], one)])

    def _change(self, changes: Sequence[tuple[Path, int | None]]) -> None:
        made = []
        for path, number in changes:
            folder = self._find(path.parent)
            assert folder is not None, path
            made.append((folder, path.name, number))
        for folder, name, number in made:
            if number is None:
                del self._folders[folder][name]
            else:
                self._folders[folder][name] = number
        self.operations.append(Names(tuple(made)))

    def _paths(self, call: _Call) -> list[Path]:
        """The paths that ``call`` names, each from the folder that stands before it."""
        found, place = [], self._folder
        for word in call.words:
            if (named := self._named(word)) is not None:
                place = named
            elif string := _STRING.fullmatch(word):
                found.append(Path(os.path.normpath(place / os.fsdecode(_bytes(string[1])))))
        return found

    def _opened(self, word: str) -> int | None:
        path = self._named(word)
        return None if path is None else self._find(path)

    @staticmethod
    def _named(word: str) -> Path | None:
        """The path behind a descriptor; None where it has none any more."""
        found = _FILE.match(word)
        return None if found is None or found[3] else Path(os.fsdecode(_bytes(found[2])))

    def _find(self, path: Path) -> int | None:
        """The number of what ``path`` names in the folder."""
        if not path.is_relative_to(self._folder):
            return None
        number: int | None = ROOT
        for name in path.relative_to(self._folder).parts:
            number = self._folders.get(number, {}).get(name) if number is not None else None
        return number


def _tree(folder: Path) -> Tree:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
