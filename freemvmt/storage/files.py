"""Writes files and folders whole or not at all: first beside their path, then flushed and renamed."""

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

_MIN_AGE = 1.0  # seconds; a younger temporary folder may not be locked yet
_HASHED = 2**20  # bytes that are hashed at once, without the lock of Python's threads
_LOCK = "lock"  # name of the lock file in a temporary folder
_LOOP = "a link there leads back to itself; write elsewhere"
_READER = 10.0  # seconds to wait for a process that reads from a pipe


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; ``UserError`` if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            block = memoryview(bytearray(max(1, min(_HASHED, os.fstat(file.fileno()).st_size))))
            while size := file.readinto(block):
                digest.update(block[:size])
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give this user the right to read it") from error
    return digest.hexdigest()


def is_storable(text: str) -> bool:
    """Whether UTF-8 can encode ``text``, which it cannot for a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def storable(text: str) -> str:
    """``text`` with U+FFFD for each half of a surrogate pair, which UTF-8 cannot encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def name_of(path: str | Path) -> str:
    """The name of a file or folder, also of one given as ``.`` or ``..``."""
    return os.path.basename(os.path.abspath(path))  # noqa: PTH100, PTH119 - a link keeps its own name


def check_regular(path: Path) -> None:
    """Raise ``UserError`` if ``path`` is neither a file nor a folder: reading a pipe could wait forever."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path} is a pipe, a device or a socket; give a file, which is read more than once")


def size_of(folder: Path) -> int:
    """Bytes of all files in ``folder`` and below, without stray files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not is_stray(file.name))


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; its file replaces ``path`` when the block ends without an error.

    A link stays, and its target is replaced. A device or a pipe is written to directly. The temporary path is in a
    folder of its own, because some libraries write to another file beside it, and rename that.
    """
    with as_user_error(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        if path.exists() and (not path.is_file() or path.is_relative_to("/dev") or path.is_relative_to("/proc")):
            with _wait_for_reader(path):
                yield path
            return
        path = path.resolve()
        make_folders(path.parent)
        remove_leftovers(path)
        with _temporary_folder(path) as folder:
            part = folder / path.name
            part.touch()
            yield part
            widen_permissions(part)
            flush(part)
            part.replace(path)
            flush(path.parent)


@contextmanager
def _wait_for_reader(path: Path) -> Iterator[None]:
    """Wait until a process reads from the pipe ``path``, at most ``_READER`` seconds. ``open`` could wait forever."""
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
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; it replaces the folder ``path`` when the block ends without an error.

    A link stays, and its target is replaced.
    """
    with as_user_error(path):
        path = path.resolve()
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "is a file")
        make_folders(path.parent)
        remove_leftovers(path)
        with _temporary_folder(path) as part:
            yield part
            replace_folder(part, path)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary folders that killed processes left beside ``path``.

    A process that writes holds the lock in its temporary folder, and a dead process holds no lock. On a file system
    without locks the two look alike, and the folders stay.
    """
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError, UserError):
            status = part.lstat()
            if stat.S_ISDIR(status.st_mode) and time.time() - status.st_mtime > _MIN_AGE:
                with locked(part / _LOCK, "someone writes it"):
                    shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder in a locked temporary folder beside ``path``, which is removed in the end."""
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    content = part / "new"
    try:
        with ExitStack() as stack:
            with suppress(NoLocks):  # then no other process removes it either
                stack.enter_context(locked(part / _LOCK, "someone writes it"))
            content.mkdir()
            yield content
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace_folder(part: Path, path: Path) -> None:
    """Rename the complete folder ``part`` to ``path`` on the same file system, and remove the old folder ``path``.

    Linux exchanges the two in one step, so that ``path`` exists at every moment; elsewhere it takes two renames. The
    old folder is removed only when the rename is on disk: a power cut could undo the rename, but not the removal.
    """
    for file in (*part.rglob("*"), part):
        widen_permissions(file)
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
    """Create the folder ``path`` and its missing parents, safe from a power cut."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        flush(folder.parent)


def flush(path: Path) -> None:
    """Write the content of the file ``path``, or the names in the folder ``path``, to disk (``fsync``)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def widen_permissions(path: Path) -> None:
    """Give ``path`` the permissions of the user's umask: some libraries write files that only their owner may read."""
    path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())


def _exchange(first: Path, second: Path) -> bool:
    """Exchange the names of two folders in one step; False if the system has no such step."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    cwd, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
    if renameat2(cwd, os.fsencode(first), cwd, os.fsencode(second), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):  # an old kernel, or a file system without the call
        return False
    raise OSError(number, os.strerror(number), str(second))


@contextmanager
def as_user_error(path: Path) -> Iterator[None]:
    """Turn the system's errors of writing ``path`` into a ``UserError`` that says what to do."""
    try:
        yield
    except (ValueError, RuntimeError) as error:  # pathlib raises them, before any system call
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
