"""Folders for caches, and what holds where there is no home folder to keep them in."""

import atexit
import getpass
import logging
import os
import shutil
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

_STAND_IN = "two-towers-home-"
_noted = False  # whether this process has said that it keeps nothing


def cache_folder(name: str) -> Path:
    """The folder ``name`` for what is kept between runs, made if it is not there.

    It lies in ``$TWO_TOWERS_CACHE``, else in ``two-towers`` in the user's cache. Where none can be had, a note says so,
    and the path is one that holds nothing and that nothing can be written to.
    """
    try:
        folder = _cache() / name
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.X_OK):
            raise PermissionError(f"permission denied: {folder}")
    except (OSError, RuntimeError, ValueError) as error:
        note_uncached(error)
        return Path(os.devnull, name)
    return folder


def note_uncached(error: Exception) -> None:
    """Say, once a process, that what is computed cannot be kept."""
    global _noted
    if not _noted:
        _noted = True
        reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else error
        logger.info("nothing is kept for the next run (%s); TWO_TOWERS_CACHE may name a folder for it", reason)


def _cache() -> Path:
    if given := os.environ.get("TWO_TOWERS_CACHE"):
        return Path(given).expanduser()
    given = os.environ.get("XDG_CACHE_HOME", "")
    if Path(given).is_absolute():  # others are to be passed over, by its rules
        return Path(given, "two-towers")
    home = Path.home()
    if not os.environ.get("HOME", "/") or home.name.startswith(_STAND_IN) or not home.is_absolute():
        raise RuntimeError("there is no home folder")
    return home / ".cache" / "two-towers"


def provide_home() -> None:
    """Give this process, and those it starts, a name and an empty home for as long as it runs if its user has none.

    Libraries ask for both, and some end in an error or make a folder called ``~``. A home that can be read and not
    written stays, for keys and models may be there; W&B and matplotlib then have a folder for their own files. For a
    command, not for an import: it changes the environment.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["USER"] = f"user-{os.getuid()}"
    home = _home()
    if home is not None and _takes_files(Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")):
        return
    try:
        folder = tempfile.mkdtemp(prefix=_STAND_IN)
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
    """The home folder, if it is there and can be read, or can be made."""
    try:
        home = Path.home()
        if not os.environ.get("HOME", "/") or not home.is_absolute():
            return None
        return home if (home.is_dir() and os.access(home, os.R_OK | os.X_OK)) or _takes_files(home) else None
    except (OSError, RuntimeError, ValueError):
        return None


def _takes_files(folder: Path) -> bool:
    """Whether files can be put into ``folder``, which may have to be made."""
    try:
        there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), None)
        return there is not None and there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except (OSError, ValueError):
        return False
