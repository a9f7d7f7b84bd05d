"""What a file system may leave behind after a power cut: every state that a list of writes and syncs allows.

The model is that of ALICE (Pillai et al., OSDI 2014) and CrashMonkey (Mohan et al., OSDI 2018). A write is safe once
its file is synced, a change of names once one of its folders is. What is not safe may be lost: writes each by itself,
wholly or in part, or as zeroes where the file has grown and its blocks were not written; changes of names in such a way
that those of one folder keep their order, and a rename is made whole or not at all. A sync of a file does not make its
name safe, nor does that of a folder make safe what is in its files.
"""

import hashlib
import os
import random
import shutil
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

ROOT = 0  # the number of the folder that was recorded
Tree = dict[str, bytes | None]  # path in the folder -> content, None for a folder


@dataclass(frozen=True)
class Write:
    """``data`` put into ``file`` at byte ``at``."""

    file: int
    at: int
    data: bytes


@dataclass(frozen=True)
class Resize:
    """``file`` cut or filled up with zeroes to ``size`` bytes."""

    file: int
    size: int


@dataclass(frozen=True)
class Names:
    """One change of names, whole or not at all: (folder, name, number of what it names now or None)."""

    changes: tuple[tuple[int, str, int | None], ...]

    @property
    def folders(self) -> set[int]:
        """Where names change."""
        return {folder for folder, _, _ in self.changes}


@dataclass(frozen=True)
class Sync:
    """What was done to file or folder ``number`` before operation ``before`` is safe."""

    number: int
    before: int


@dataclass(frozen=True)
class Mark:
    """What the process said was done."""

    text: str


Operation = Write | Resize | Names | Sync | Mark
Fate = Literal["lost", "half", "zeroes"]  # of a write that is not safe
WAYS: tuple[Fate, ...] = get_args(Fate)


@dataclass
class Recording:
    """``files`` and ``folders`` by number as they were, all of it safe, and what was done then."""

    files: dict[int, bytes] = field(default_factory=dict)
    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    operations: list[Operation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._digests: dict[tuple[int, int, tuple[tuple[int, Fate], ...]], bytes] = {}
        self._names = [(place, one) for place, one in enumerate(self.operations) if isinstance(one, Names)]
        self._of_file: dict[int, list[tuple[int, Write | Resize]]] = {number: [] for number in self.files}
        for place, one in enumerate(self.operations):
            if isinstance(one, Write | Resize):
                self._of_file[one.file].append((place, one))

    def unsafe(self, cut: int) -> list[int]:
        """The operations before ``cut`` that may be lost at it, and whose loss can be seen."""
        safe: dict[int, int] = {}  # number -> the operation before which all is safe
        for operation in self.operations[:cut]:
            if isinstance(operation, Sync):
                safe[operation.number] = max(safe.get(operation.number, 0), operation.before)
        found = []
        for place in range(cut - 1, -1, -1):
            operation = self.operations[place]
            if isinstance(operation, Write | Resize):
                if place >= safe.get(operation.file, 0):
                    found.append(place)
            elif isinstance(operation, Names):
                if all(place >= safe.get(folder, 0) for folder in operation.folders):
                    found.append(place)
                    continue
                for folder in operation.folders:  # what was done before in its other folder is safe too
                    safe[folder] = max(safe.get(folder, 0), place)
        seen = self._reachable(cut, set(found))
        return [place for place in found[::-1] if _touched(self.operations[place]) & seen]

    def _reachable(self, cut: int, unsafe: set[int]) -> set[int]:
        """Numbers of all that has a path in some state after ``cut``."""
        inside = {number: set(names.values()) for number, names in self._folders(cut, unsafe).items()}
        for place in unsafe:
            if isinstance(operation := self.operations[place], Names):
                for folder, _, number in operation.changes:
                    if number is not None:
                        inside.setdefault(folder, set()).add(number)
        seen, waiting = {ROOT}, [ROOT]
        while waiting:
            new = inside.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    def _folders(self, cut: int, lost: Container[int]) -> dict[int, dict[str, int]]:
        """The names in each folder before operation ``cut`` where those of ``lost`` were not made."""
        folders = {number: dict(names) for number, names in self.folders.items()}
        stuck: set[int] = set()  # folders of which a change is lost, and with it all that follow
        for place, operation in self._names:
            if place >= cut:
                break
            if place in lost or operation.folders & stuck:
                stuck |= operation.folders
                continue
            for folder, name, number in operation.changes:
                if number is None:
                    folders.setdefault(folder, {}).pop(name, None)
                else:
                    folders.setdefault(folder, {})[name] = number
        return folders

    def tree(self, cut: int, fates: Mapping[int, Fate]) -> Tree:
        """The folder after a power cut before operation ``cut``; ``fates`` of operations that were not safe then."""
        paths = self._paths(cut, fates)
        return {path: None if file is None else self._content(file, cut, fates) for path, file in paths}

    def _paths(self, cut: int, fates: Mapping[int, Fate]) -> list[tuple[str, int | None]]:
        """(path, number of the file or None for a folder), folders before what is in them."""
        folders = self._folders(cut, fates)
        found: list[tuple[str, int | None]] = []

        def walk(number: int, at: str) -> None:
            for name, inner in sorted(folders.get(number, {}).items()):
                found.append((at + name, inner if inner in self.files else None))
                walk(inner, f"{at}{name}/")

        walk(ROOT, "")
        return found

    def _content(self, file: int, cut: int, fates: Mapping[int, Fate]) -> bytes:
        content = bytearray(self.files[file])
        for place, operation in self._of_file[file]:
            if place < cut:
                _apply(content, operation, fates.get(place))
        return bytes(content)

    def _digest(self, cut: int, fates: Mapping[int, Fate]) -> bytes:
        """Of the tree; equal trees have equal ones."""
        digest = hashlib.blake2b(digest_size=16)
        for path, file in self._paths(cut, fates):
            digest.update(f"{path}\0{file is None}\0".encode())
            if file is not None:
                own = [place for place, _ in self._of_file[file] if place < cut]
                key = file, len(own), tuple((place, fates[place]) for place in own if place in fates)
                if key not in self._digests:
                    self._digests[key] = hashlib.blake2b(self._content(file, cut, fates), digest_size=16).digest()
                digest.update(self._digests[key])
        return digest.digest()

    def marks(self, cut: int) -> list[str]:
        """What the process had said before ``cut``."""
        return [operation.text for operation in self.operations[:cut] if isinstance(operation, Mark)]

    def fates(self, cut: int, draws: int, draw: random.Random) -> Iterator[dict[int, Fate]]:
        """The choices that are tried at ``cut``: nothing is lost; all is; all writes are, or became zeroes; all names
        are; ``draws`` times one operation alone is, in one of the ways; and as often some, drawn at random."""
        unsafe = self.unsafe(cut)
        names = [place for place in unsafe if isinstance(self.operations[place], Names)]
        writes = [place for place in unsafe if place not in names]
        yield {}
        yield dict.fromkeys(unsafe, "lost")
        yield dict.fromkeys(writes, "lost")
        yield dict.fromkeys(writes, "zeroes")
        yield dict.fromkeys(names, "lost")
        alone: list[dict[int, Fate]] = [{place: way} for place in writes for way in WAYS]
        alone += [{place: "lost"} for place in names]
        yield from draw.sample(alone, min(draws, len(alone)))
        for _ in range(draws if len(unsafe) > 1 else 0):
            share = draw.choice((0.2, 0.5, 0.8))
            yield {place: draw.choice(WAYS) for place in unsafe if draw.random() < share}

    def states(self, cuts: Iterable[int], draws: int, seed: int) -> Iterator[tuple[int, dict[int, Fate]]]:
        """(cut, fates) for each of ``cuts`` and every choice; of those that leave equal trees, and as much said, the
        first."""
        draw = random.Random(seed)
        seen: set[tuple[bytes, int]] = set()
        for cut in cuts:
            said = len(self.marks(cut))
            for fates in self.fates(cut, draws, draw):
                key = self._digest(cut, fates), said
                if key not in seen:
                    seen.add(key)
                    yield cut, fates

    def shown(self, cut: int, fates: Mapping[int, Fate]) -> str:
        """A cut and what is lost, in words."""
        lost = [f"{way} of {place}: {_shown(self.operations[place])}" for place, way in fates.items()]
        return f"cut before {cut} of {len(self.operations)}; {'; '.join(lost) or 'nothing lost'}"


def _apply(content: bytearray, operation: Write | Resize, fate: Fate | None) -> None:
    if fate == "lost":
        return
    if isinstance(operation, Resize):
        size = operation.size  # a part of it is all of it
        content[size:] = b""
        content.extend(bytes(size - len(content)))
        return
    data = operation.data
    if fate == "half":
        data = data[: len(data) // 2]
    elif fate == "zeroes":
        if operation.at + len(data) <= len(content):
            return  # nothing grows, so there are no blocks that were not written yet
        data = bytes(content[operation.at :]).ljust(len(data), b"\0")
    content.extend(bytes(max(0, operation.at - len(content))))
    content[operation.at : operation.at + len(data)] = data


def _touched(operation: Operation) -> set[int]:
    """The numbers of the file or of the folders that it changes."""
    if isinstance(operation, Names):
        return operation.folders
    return {operation.file} if isinstance(operation, Write | Resize) else set()


def _shown(operation: Operation) -> str:
    if isinstance(operation, Write):
        return f"{len(operation.data)} bytes at {operation.at} of {operation.file}"
    return str(operation)


def lay(tree: Tree, folder: Path, made: float) -> None:
    """Make ``folder`` hold ``tree`` and nothing else; ``made`` is the time at which all of it was last changed."""
    for _ in range(50):  # a thread of what was looked at before may end by making a lock
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
        time.sleep(0.1)
    folder.mkdir(parents=True)
    for path, content in tree.items():
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
    for path in tree:
        os.utime(folder / path, (made, made))
