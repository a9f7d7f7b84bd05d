"""The cache folder, and a temporary home folder for users who have none."""

import atexit
import getpass
import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from freemvmt.errors import UserError

logger = logging.getLogger(__name__)

CACHE_GB = 10.0  # the most that the cache holds, unless $TWO_TOWERS_CACHE_GB says otherwise
_CACHE_FILE = re.compile(r"[0-9a-f]{32}(-\w+)?\.(safetensors|jsonl\.gz)")  # the names that caches give to their files
_TEMPORARY_PREFIX = "two-towers-home-"
_noted = False  # whether this process has logged that it caches nothing


def cache_folder(name: str) -> Path:
    """The folder ``name`` of the cache; it is created if it is missing.

    The cache is ``$TWO_TOWERS_CACHE``, else ``two-towers`` in the user's cache folder. Where no cache is possible, this
    is logged, and the path returned is one under ``/dev/null``, which cannot be read or written. Raises ``UserError``
    if ``$TWO_TOWERS_CACHE_GB`` is no size.
    """
    _limit()
    try:
        folder = _cache() / name
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.X_OK):
            raise PermissionError(f"permission denied: {folder}")
    except (OSError, RuntimeError, ValueError) as error:
        warn_uncached(error)
        return Path(os.devnull, name)
    return folder


def warn_uncached(error: Exception) -> None:
    """Log, once a process, that results are not cached."""
    global _noted
    if not _noted:
        _noted = True
        reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else error
        logger.info("nothing is kept for the next run (%s); TWO_TOWERS_CACHE may name a folder for it", reason)


def mark_used(path: Path) -> None:
    """Note that a file of the cache was used now: the one whose last use is the longest ago is removed first."""
    with suppress(OSError):
        os.utime(path)


def trim_cache() -> None:
    """Remove files of the cache, those first whose last use is the longest ago, until the rest fits the limit.

    The newest file stays in any case. Files that no cache has written are neither counted nor removed.
    """
    files = sorted(_cache_files())
    excess = sum(size for _, size, _ in files) - _limit()
    removed = 0
    for _, size, path in files[:-1]:
        if excess <= 0:
            break
        with suppress(OSError):
            path.unlink()
            excess -= size
            removed += 1
    if removed:
        logger.info("the cache is full: %d of its files were removed; TWO_TOWERS_CACHE_GB may allow more", removed)


def _cache_files() -> Iterator[tuple[int, int, Path]]:
    """(time of its last use in ns, bytes, path) of each file in the cache."""
    for folder, _, names in os.walk(_cache()):
        for name in filter(_CACHE_FILE.fullmatch, names):
            with suppress(OSError):  # another process may have removed it
                status = os.lstat(f"{folder}/{name}")
                yield status.st_mtime_ns, status.st_size, Path(folder, name)


def _limit() -> float:
    """The most bytes that the cache holds."""
    text = os.environ.get("TWO_TOWERS_CACHE_GB") or str(CACHE_GB)
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise UserError(f"TWO_TOWERS_CACHE_GB is {text!r}; give a number of gigabytes, 0 or more")
    return limit


def _cache() -> Path:
    if folder := os.environ.get("TWO_TOWERS_CACHE"):
        return Path(folder).expanduser()
    folder = os.environ.get("XDG_CACHE_HOME", "")
    if Path(folder).is_absolute():  # the XDG specification ignores relative paths
        return Path(folder, "two-towers")
    home = Path.home()
    if not os.environ.get("HOME", "/") or home.name.startswith(_TEMPORARY_PREFIX) or not home.is_absolute():
        raise RuntimeError("there is no home folder")
    return home / ".cache" / "two-towers"


def ensure_home() -> None:
    """Give this process and its children a user name and a temporary home folder, if the user has none.

    Libraries ask for both; without them, some fail or make a folder called ``~``. A home that can be read but not
    written is kept, because keys and models may be in it; W&B and matplotlib then get a temporary folder for their
    files. Only commands call this, never an import: it changes the environment.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["USER"] = f"user-{os.getuid()}"
    home = _home()
    if home is not None and _is_writable(Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")):
        return
    try:
        folder = tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX)
    except OSError:  # nothing can be written anywhere
        return
    if home is None:
        os.environ["HOME"] = folder
    else:
        for name in ("WANDB_CACHE_DIR", "MPLCONFIGDIR"):
            os.environ.setdefault(name, folder)
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)


def _home() -> Path | None:
    """The home folder, if it can be read or created; else None."""
    try:
        home = Path.home()
        if not os.environ.get("HOME", "/") or not home.is_absolute():
            return None
        return home if (home.is_dir() and os.access(home, os.R_OK | os.X_OK)) or _is_writable(home) else None
    except (OSError, RuntimeError, ValueError):
        return None


def _is_writable(folder: Path) -> bool:
    """Whether files can be written to ``folder``, which may not exist yet."""
    try:
        nearest = next((candidate for candidate in (folder, *folder.parents) if os.path.lexists(candidate)), None)
        return nearest is not None and nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    except (OSError, ValueError):
        return False
