"""What is found out about a place before the work whose result goes there."""

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from freemvmt.errors import UserError
from freemvmt.storage.files import explained
from freemvmt.storage.hidden_files import first_in


def check_writable(path: Path) -> None:
    """Raise ``UserError`` unless a file or folder can be made at ``path``: one is, beside it, and is taken away.

    On Linux that file never has a name, so that nothing is left of it when the process is killed meanwhile.
    """
    try:
        with explained(path):
            with suppress(FileNotFoundError):
                path.stat()  # a link that leads to itself, a name too long
            place = path.resolve()
            beside = next((parent for parent in place.parents if os.path.lexists(parent)), place)
            for part in place.relative_to(beside).parts:
                with suppress(FileNotFoundError):
                    os.lstat(beside / f".{part}.12345678.part")  # as it is called while it is written
            with tempfile.TemporaryFile(dir=beside):
                pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; write elsewhere") from error


def check_folder(folder: Path, what: str, is_ours: Callable[[Path], bool], inputs: Iterable[str | Path] = ()) -> None:
    """Raise ``UserError`` unless ``what`` may be written at the folder: nothing there, nothing in it, or another such,
    which ``is_ours`` knows; and not among ``inputs`` (see ``check_apart``)."""
    check_writable(folder)
    check_apart(folder, inputs)
    with explained(folder):
        if not folder.exists():
            return
        if not folder.is_dir():
            raise UserError(f"{folder} is a file; name another folder with --output")
        other = first_in(folder)
        if other is not None and not is_ours(folder):
            raise UserError(f"{folder} holds something that is not {what} ({other}); name another with --output")


def check_free(folder: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Raise ``UserError`` unless ``folder`` can be written, holds nothing but strays, and is not among ``inputs``."""
    check_writable(folder)
    check_apart(folder, inputs)
    with explained(folder):
        if folder.exists() and (not folder.is_dir() or first_in(folder) is not None):
            raise UserError(f"{folder} is there already; name another folder with --output")


def check_sweeps(folder: Path) -> None:
    """Raise ``UserError`` unless files can be put into ``folder``, which is made if it is not there."""
    try:
        check_writable(folder / "sweep")
        with explained(folder):
            if folder.exists() and not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "is a file")
    except UserError as error:
        raise UserError(f"{str(error).partition('; ')[0]}; give another --folder") from error


def check_file(name: str, inputs: Iterable[str | Path] = ()) -> Path:
    """``name`` as the path of a file that can be written; ``UserError`` unless it is one, and not among ``inputs``.

    What is there already is replaced. A pipe, a terminal and ``/dev/null`` are written to as they are.
    """
    path = Path(name)
    if not name or name.endswith(os.sep):
        raise UserError(f"cannot write {name!r}: that is no name of a file; give one")
    mode = None
    with explained(path), suppress(FileNotFoundError, NotADirectoryError):
        mode = path.stat().st_mode
    if mode is None or stat.S_ISREG(mode):
        check_writable(path)
        check_apart(path, inputs)
    elif stat.S_ISDIR(mode):
        raise UserError(f"cannot write {path}: that is a folder; give the name of a file")
    elif not (stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and _is_sink(path))):
        raise UserError(f"cannot write {path}: that is a device or a socket; give the name of a file")
    elif not os.access(path, os.W_OK):
        raise UserError(f"cannot write {path}: permission denied; write elsewhere")
    return path


def _is_sink(path: Path) -> bool:
    """Whether ``path`` is /dev/null, or a terminal."""
    with path.open("ab", buffering=0) as device:
        return device.isatty() or os.path.samestat(os.fstat(device.fileno()), Path(os.devnull).stat())


def check_apart(output: Path, inputs: Iterable[str | Path]) -> None:
    """Raise ``UserError`` where ``output`` is one of ``inputs``, or lies in a folder among them: what is read would
    change. What is no path counts for nothing, nor does a folder that this process is in, where outputs go unasked.
    """
    for given in inputs:
        with suppress(OSError, RuntimeError, ValueError):  # pydocs, a name on the Hub
            source, place = Path(given).resolve(strict=True), output.resolve()
            within = source in place.parents and not Path.cwd().is_relative_to(source)
            if place == source or within:
                raise UserError(f"{output} {'lies in' if within else 'is'} {given}, which is read; write elsewhere")
