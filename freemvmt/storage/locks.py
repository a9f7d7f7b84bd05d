"""One at a time: whoever holds a lock file is alone, among threads and processes, until it lets go or dies.

The lock itself is filelock's: the system's own (``flock``), which ends with the process that holds it, however that
ends. What a file system without locks answers is told apart here, for there reading goes on and changing does not.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from freemvmt.errors import UserError

POLL = 0.005  # seconds between two tries
# What network and FUSE mounts answer that have no locks.
_ANSWERS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL, errno.EPERM, errno.EIO)


class NoLocks(UserError):  # noqa: N818  a state of the world more than a fault
    """The file system does not know locks."""


@contextmanager
def locked(path: Path, busy: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the file ``path``, which is made in its folder if it is not there, while the block runs.

    Raises ``UserError(busy)`` when another still holds it after ``patience`` seconds, ``NoLocks`` where the file system
    has none, and ``OSError`` where the file cannot be made.
    """
    path.parent.stat()  # filelock would make it
    lock = FileLock(path, timeout=patience, poll_interval=POLL, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(busy) from error
    except OSError as error:
        if error.filename is None and error.errno in _ANSWERS:  # of the lock, not of opening its file
            where = f"the file system of {path.parent} does not know locks"
            raise NoLocks(f"{where}; copy it to another place, and change it there") from error
        raise
    try:
        yield
    finally:
        lock.release()
