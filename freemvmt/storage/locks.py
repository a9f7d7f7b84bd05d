"""Lock files: one thread of all processes holds a lock at a time, until it releases the lock or dies.

The lock is the system's (``flock``, by the library filelock); it ends with the process that holds it. A file system
without locks is an error of its own (``NoLocks``): files can be read there, but not changed.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from freemvmt.errors import UserError

POLL = 0.005  # seconds between two tries
# Errors of network and FUSE mounts that have no locks.
_NO_LOCK_ERRORS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL, errno.EPERM, errno.EIO)


class NoLocks(UserError):  # noqa: N818  a state of the system rather than a fault
    """The file system has no locks."""


@contextmanager
def locked(path: Path, busy: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs; it is created if it is missing, its folder is not.

    Raises ``UserError(busy)`` if another still holds the lock after ``patience`` seconds, ``NoLocks`` if the file
    system has no locks, and ``OSError`` if the file cannot be created.
    """
    path.parent.stat()  # raises if it is missing; filelock would create it
    lock = FileLock(path, timeout=patience, poll_interval=POLL, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(busy) from error
    except OSError as error:
        if error.filename is None and error.errno in _NO_LOCK_ERRORS:  # an error of the lock, not of opening its file
            reason = f"the file system of {path.parent} does not know locks"
            raise NoLocks(f"{reason}; copy it to another place, and change it there") from error
        raise
    try:
        yield
    finally:
        lock.release()
