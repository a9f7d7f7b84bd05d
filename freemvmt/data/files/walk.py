"""Finds the files of a folder, and reads their bytes.

The names of the files are relative to the folder, with ``/``. Hidden files, and those that a ``.gitignore`` in the
folder or below names, are not there, and neither is what lies in the folder of a model. A link is not followed: what it
leads to within the folder has a name of its own.
"""

import os
import stat
from collections.abc import Callable, Container, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

from freemvmt.config import FolderConfig
from freemvmt.data.files.content import MAX_FILE_BYTES, UnreadableError
from freemvmt.data.files.text import decode
from freemvmt.data.values import MAX_ID_BYTES
from freemvmt.errors import UserError
from freemvmt.runtime.optional import require
from freemvmt.storage.files import is_storable
from freemvmt.storage.hidden_files import is_not_ours

_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_MODEL_FILES = {"config.json", "model.safetensors", "tokenizer.json"}
_NO_FILE = "it is a pipe, a device or a socket"


class FoundFile(NamedTuple):
    """A file of a folder and its name in it. A ``Path`` of each would take a quarter of the time of a walk."""

    name: str
    path: str

    @property
    def ending(self) -> str:
        """The ending of the name, with its dot, in small letters."""
        return _ending_of(self.name)


class _Entry(NamedTuple):
    name: str
    path: str
    kind: Literal["folder", "file", "link", "other"]
    ignores: tuple[tuple[int, Any], ...]  # (length of the folder's name, rules) of each .gitignore, outermost first

    @property
    def as_rule(self) -> str:
        """The name as rules read it: a folder's ends with ``/``."""
        return f"{self.name}/" if self.kind == "folder" else self.name


class Walk:
    """The files of a folder with one of the ``endings``. ``pass_over`` takes a name and why it is not read."""

    def __init__(
        self, folder: Path, config: FolderConfig, endings: Container[str], pass_over: Callable[[str, str], None]
    ) -> None:
        self._root = folder.resolve()
        self._endings = endings
        self._pass_over = pass_over
        self._include = rules_of(config.include, "--include") if config.include else None
        self._exclude = rules_of(config.exclude, "--exclude")

    def __iter__(self) -> Iterator[FoundFile]:
        """The files, sorted by name in each folder."""
        stack = self._entries_of(_Entry("", str(self._root), "folder", ()))
        while stack:
            entry = stack.pop()
            if (reason := self._refusal(entry)) is not None:
                if reason:
                    self._pass_over(entry.name, reason)
            elif entry.kind == "folder":
                stack += self._entries_of(entry)
            else:
                yield FoundFile(entry.name, entry.path)

    def _entries_of(self, folder: _Entry) -> list[_Entry]:
        """The entries of a folder that no rule leaves out, in reverse order."""
        prefix = f"{folder.name}/" if folder.name else ""
        try:
            with os.scandir(folder.path) as scan:
                found = sorted(((_decoded(entry.name), entry) for entry in scan), key=itemgetter(0), reverse=True)
        except OSError as error:
            self._pass_over(folder.name or folder.path, error.strerror or str(error))
            return []
        names = {name for name, _ in found}
        if folder.name and names >= _MODEL_FILES:
            return []  # its README.md is about a model; a bundle below the folder, too, holds one
        ignores = folder.ignores
        if ".gitignore" in names:
            ignores = (*ignores, (len(prefix), self._ignore_rules(f"{folder.path}/.gitignore", f"{prefix}.gitignore")))
        entries = (_Entry(prefix + name, entry.path, _kind_of(entry), ignores) for name, entry in found)
        return [entry for entry in entries if self._is_wanted(entry)]

    def _is_wanted(self, entry: _Entry) -> bool:
        """Whether neither its name nor a rule leaves it out. Only a file must have a known ending."""
        if is_not_ours(entry.name.rpartition("/")[2]) or not (
            entry.kind in ("folder", "link") or self._has_ending(entry)
        ):
            return False
        return not (self._is_ignored(entry) or self._exclude.match_file(entry.as_rule))

    def _has_ending(self, entry: _Entry) -> bool:
        is_included = self._include is None or self._include.match_file(entry.name)
        return is_included and _ending_of(entry.name) in self._endings

    def _is_ignored(self, entry: _Entry) -> bool:
        """What the innermost ``.gitignore`` that names it says."""
        for length, rules in reversed(entry.ignores):
            if (verdict := rules.check_file(entry.as_rule[length:]).include) is not None:
                return bool(verdict)
        return False

    def _refusal(self, entry: _Entry) -> str | None:
        """Why an entry is not read; "" if that is not worth a line; None if it is read."""
        if entry.kind == "link":
            return self._refusal_of_link(entry)
        if not is_storable(entry.name):
            return "its name is not UTF-8"
        if len(entry.name.encode()) > MAX_ID_BYTES:
            return f"its path has more than {MAX_ID_BYTES} bytes"
        return _NO_FILE if entry.kind == "other" else None

    def _refusal_of_link(self, link: _Entry) -> str:
        try:
            target = Path(link.path).resolve(strict=True)
        except (OSError, RuntimeError):
            target = None
        if not (self._has_ending(link) or (target is not None and target.is_dir())):
            return ""
        if target is None:
            return "it is a link that leads nowhere"
        return "" if target.is_relative_to(self._root) else "it is a link that leads out of the folder"

    def _ignore_rules(self, path: str, name: str) -> Any:
        """The rules of a ``.gitignore``. A line that is no rule is left out, as git does."""
        spec = require("pathspec").GitIgnoreSpec
        try:
            lines = decode(read_bytes(path)[0]).split("\n")
        except UnreadableError as error:
            self._pass_over(name, str(error))
            lines = []
        patterns = []
        for line in lines:
            try:
                patterns += spec.from_lines([line]).patterns
            except ValueError:
                continue
        return spec(patterns)


def _decoded(name: str) -> str:
    """A name that is UTF-8, whatever the locale: a document has the same id from a shell and from a service."""
    try:
        return name if name.isascii() else os.fsencode(name).decode()
    except UnicodeDecodeError:
        return name


def _ending_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - see FoundFile


def _kind_of(entry: "os.DirEntry[str]") -> Literal["folder", "file", "link", "other"]:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "other"


def rules_of(globs: Sequence[str], flag: str) -> Any:
    """The rules of globs, each a line of a ``.gitignore``. ``UserError`` names the ``flag`` of a wrong one."""
    spec = require("pathspec").GitIgnoreSpec
    for glob in globs:
        try:
            is_rule = any(pattern.include is not None for pattern in spec.from_lines([glob]).patterns)
        except ValueError:
            is_rule = False
        if not is_rule:
            raise UserError(f"{flag} {glob[:60]!r} is no glob; give one like '*.md' or 'docs/'")
    return spec.from_lines(globs)


def read_bytes(path: str) -> tuple[bytes, int]:
    """The bytes of a file, and the time of its last change in nanoseconds. It never waits for a pipe.

    Raises ``UnreadableError``.
    """
    try:
        handle = os.open(path, _OPEN)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableError(_NO_FILE)
            content = file.read(MAX_FILE_BYTES + 1) if status.st_size <= MAX_FILE_BYTES else b""
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
    size = max(status.st_size, len(content))
    if size > MAX_FILE_BYTES:
        raise UnreadableError(f"it has {size / 2**20:,.0f} MB, more than {MAX_FILE_BYTES // 2**20}")
    return content, status.st_mtime_ns
