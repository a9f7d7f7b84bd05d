"""Checks of an output path before the work whose result is written there."""

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from freemvmt.errors import UserError
from freemvmt.storage.files import as_user_error
from freemvmt.storage.hidden_files import first_file


def check_writable(path: Path) -> None:
    """Raise ``UserError`` unless a file or folder can be created at ``path``: a temporary file is created beside it.

    On Linux that file has no name, so nothing is left of it if the process is killed.
    """
    try:
        with as_user_error(path):
            with suppress(FileNotFoundError):
                path.stat()  # fails on a link that leads to itself, and on a name that is too long
            target = path.resolve()
            folder = next((parent for parent in target.parents if os.path.lexists(parent)), target)
            for name in target.relative_to(folder).parts:
                with suppress(FileNotFoundError):
                    os.lstat(folder / f".{name}.12345678.part")  # its longer name while it is written
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; write elsewhere") from error


def check_output_folder(
    folder: Path, what: str, is_ours: Callable[[Path], bool], inputs: Iterable[str | Path] = ()
) -> None:
    """Raise ``UserError`` unless ``what`` may be written to ``folder``.

    The folder must be missing, empty, or an older output of that kind (``is_ours``), and none of ``inputs``.
    """
    check_writable(folder)
    check_not_input(folder, inputs)
    with as_user_error(folder):
        if not folder.exists():
            return
        if not folder.is_dir():
            raise UserError(f"{folder} is a file; name another folder with --output")
        file_name = first_file(folder)
        if file_name is not None and not is_ours(folder):
            raise UserError(f"{folder} holds something that is not {what} ({file_name}); name another with --output")


def check_empty(folder: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Raise ``UserError`` unless ``folder`` can be written, is empty but for stray files, and is none of ``inputs``."""
    check_writable(folder)
    check_not_input(folder, inputs)
    with as_user_error(folder):
        if folder.exists() and (not folder.is_dir() or first_file(folder) is not None):
            raise UserError(f"{folder} is there already; name another folder with --output")


def check_sweeps(folder: Path) -> None:
    """Raise ``UserError`` unless files can be written to ``folder``, which may not exist yet."""
    try:
        check_writable(folder / "sweep")
        with as_user_error(folder):
            if folder.exists() and not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "is a file")
    except UserError as error:
        raise UserError(f"{str(error).partition('; ')[0]}; give another --folder") from error


def check_output_file(name: str, inputs: Iterable[str | Path] = ()) -> Path:
    """The path of the output file ``name``; ``UserError`` if it cannot be written, or is one of ``inputs``.

    A file that exists will be replaced. A pipe, a terminal and ``/dev/null`` will be written to directly.
    """
    path = Path(name)
    if not name or name.endswith(os.sep):
        raise UserError(f"cannot write {name!r}: that is no name of a file; give one")
    mode = None
    with as_user_error(path), suppress(FileNotFoundError, NotADirectoryError):
        mode = path.stat().st_mode
    if mode is None or stat.S_ISREG(mode):
        check_writable(path)
        check_not_input(path, inputs)
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


def check_not_input(output: Path, inputs: Iterable[str | Path]) -> None:
    """Raise ``UserError`` if ``output`` is one of ``inputs`` or lies in one of them: the input would change.

    An input that is not an existing path is ignored. An output may lie in an input folder that holds the working
    directory, because default outputs go there.
    """
    for name in inputs:
        with suppress(OSError, RuntimeError, ValueError):  # pydocs, a name on the Hub
            source, target = Path(name).resolve(strict=True), output.resolve()
            within = source in target.parents and not Path.cwd().is_relative_to(source)
            if target == source or within:
                raise UserError(f"{output} {'lies in' if within else 'is'} {name}, which is read; write elsewhere")
