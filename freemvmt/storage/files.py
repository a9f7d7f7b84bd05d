"""Files that are there whole or not at all: written beside their place, flushed, and renamed."""

import ctypes
import errno
import glob
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from freemvmt.errors import UserError
from freemvmt.storage.hidden_files import is_stray
from freemvmt.storage.locks import NoLocks, locked

_YOUNG = 1.0  # seconds
_LOCK = "lock"  # in a part
_LOOP = "a link there leads back to itself; write elsewhere"
_READER = 10.0  # seconds that a pipe has to find somebody who reads from it


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give this user the right to read it") from error


def check_regular(path: Path) -> None:
    """Raise ``UserError`` where ``path`` is neither a file nor a folder: a pipe would be waited for without end."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path} is a pipe, a device or a socket; give a file, which is read more than once")


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
        if path.exists() and (not path.is_file() or path.is_relative_to("/dev") or path.is_relative_to("/proc")):
            with _read_from(path):
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
def _read_from(path: Path) -> Iterator[None]:
    """Wait until somebody reads from the pipe ``path``, which opening it to write would do without end."""
    if not path.is_fifo():
        yield
        return
    deadline = time.monotonic() + _READER
    while True:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    try:
        yield
    finally:
        os.close(handle)


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

    A part is locked while someone writes it, and the system takes the lock of a dead process away. Where the file
    system has no locks, nobody can tell, and they stay.
    """
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError, UserError):
            status = part.lstat()
            if stat.S_ISDIR(status.st_mode) and time.time() - status.st_mtime > _YOUNG:  # else perhaps not yet locked
                with locked(part / _LOCK, "someone writes it"):
                    shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """An empty folder to write in, near ``path`` and locked while it is; nothing of it is left in the end."""
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    inside = part / "new"
    try:
        with ExitStack() as stack:
            with suppress(NoLocks):  # then nobody takes it for a dead one's either
                stack.enter_context(locked(part / _LOCK, "someone writes it"))
            inside.mkdir()
            yield inside
    finally:
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
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
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
    except (ValueError, RuntimeError) as error:  # pathlib's own words, before the system is asked
        if "null byte" in str(error):
            raise UserError(f"{str(path)!a} holds a zero byte, which no name may; give another") from error
        if "Symlink loop" in str(error):
            raise UserError(f"cannot write {path}: {_LOOP}") from error
        raise
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
            errno.ELOOP: _LOOP,
            errno.ENXIO: "nobody reads from there; write elsewhere",
        }
        if error.errno not in reasons:
            raise
        raise UserError(f"cannot write {path}: {reasons[error.errno]}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
