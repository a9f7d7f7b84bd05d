"""Files that are there whole or not at all: written beside their place, flushed, and renamed."""

import ctypes
import errno
import fcntl
import glob
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from freemvmt.errors import UserError
from freemvmt.strays import first_in, is_stray

_YOUNG = 1.0  # seconds


def cache_folder() -> Path:
    """Where computed things are kept between runs: ``$TWO_TOWERS_CACHE``, else ``two-towers`` in the user's cache."""
    if given := os.environ.get("TWO_TOWERS_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "two-towers"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give this user the right to read it") from error


def check_writable(path: Path) -> None:
    """Raise ``UserError`` unless a file or folder can be made at ``path``: one is, beside it, and is taken away.

    On Linux that file never has a name, so that nothing is left of it when the process is killed meanwhile.
    """
    with explained(path):
        beside = next(parent for parent in path.absolute().parents if parent.exists())
        with suppress(FileNotFoundError):
            os.lstat(beside / f".{path.name}.12345678.part")  # a name too long is refused here
        with tempfile.TemporaryFile(dir=beside):
            pass


def check_free(folder: Path) -> None:
    """Raise ``UserError`` unless ``folder`` can be written and holds nothing but strays."""
    check_writable(folder)
    if folder.exists() and (not folder.is_dir() or first_in(folder) is not None):
        raise UserError(f"{folder} is there already; name another folder with --output")


def size_of(folder: Path) -> int:
    """Bytes of all files in ``folder`` and below, but for strays."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not is_stray(file.name))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; what was written there takes the place of ``path`` when the block ends well.

    A link stays, and what it names is replaced; a device or a pipe is written to as it is. The path stands in a folder
    of its own: some libraries write to a temporary file beside the path they are given, and rename that.
    """
    with explained(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        if path.exists() and not path.is_file():
            yield path
            return
        path = path.resolve()
        make_folders(path.parent)
        remove_leftovers(path)
        with _part(path) as folder:
            part = folder / path.name
            part.touch()
            yield part
            share(part)
            flush(part)
            part.replace(path)
            flush(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to write into; it takes the place of the folder ``path`` when the block ends well.

    A link stays, and the folder that it names is replaced.
    """
    with explained(path):
        path = path.resolve()
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "is a file")
        make_folders(path.parent)
        remove_leftovers(path)
        with _part(path) as part:
            yield part
            put_in_place(part, path)


def remove_leftovers(path: Path) -> None:
    """Take away what processes that were killed while they wrote ``path`` have left beside it.

    A part is locked while someone writes it, and the system takes the lock of a dead process away.
    """
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime < _YOUNG:
                continue  # made by now, perhaps, and not yet locked
            handle = os.open(part, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(part, ignore_errors=True)
            finally:
                os.close(handle)


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` to write in, locked while it is; nothing of it is left in the end."""
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    handle = os.open(part, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield part
    finally:
        os.close(handle)
        shutil.rmtree(part, ignore_errors=True)


def put_in_place(part: Path, path: Path) -> None:
    """Make the finished folder ``part`` the folder ``path``, on one file system; what was at ``path`` is removed.

    Linux exchanges the two in one step, so that at no moment neither is there. Elsewhere it takes two renames. What was
    there is removed only when the change is safe from a power cut, which could undo it and not the removal.
    """
    for file in (*part.rglob("*"), part):
        share(file)
        flush(file)
    if not path.exists():
        part.rename(path)
        flush(path.parent)
    elif _exchange(part, path):
        flush(path.parent)
        shutil.rmtree(part, ignore_errors=True)
    else:
        old = part.with_suffix(".old")
        path.rename(old)
        try:
            part.rename(path)
        finally:
            if not path.exists():
                old.rename(path)
            flush(path.parent)
            shutil.rmtree(old, ignore_errors=True)


def make_folders(path: Path) -> None:
    """Make the folder ``path``, and those above it, where they are not there; after a power cut they still are."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        flush(folder.parent)


def flush(path: Path) -> None:
    """Let the content of the file ``path``, or the names in the folder, be safe from a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def share(path: Path) -> None:
    """Let others read what is at ``path``, as far as the user's umask lets them: some libraries write for one alone."""
    path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders take each other's name in one step; False where the system has no such step."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
    if renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):  # an old kernel, or a file system without it
        return False
    raise OSError(number, os.strerror(number), str(other))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write into a line that a person can act on."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space or write elsewhere",
            errno.EDQUOT: "the disk quota is used up; free some space or write elsewhere",
            errno.EFBIG: "the file would be larger than this system allows; write elsewhere",
            errno.EROFS: "the file system is read-only; write elsewhere",
            errno.EACCES: "permission denied; write elsewhere",
            errno.EPERM: "that is not permitted; write elsewhere",
            errno.ENAMETOOLONG: "that name is too long; give a shorter one",
            errno.EISDIR: "that is a folder; give the name of a file",
            errno.ENOTDIR: "a part of that path is a file, not a folder; write elsewhere",
            errno.EEXIST: "a part of that path is a file, not a folder; write elsewhere",
        }
        if error.errno not in reasons:
            raise
        raise UserError(f"cannot write {path}: {reasons[error.errno]}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
