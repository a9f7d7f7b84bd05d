"""What every refusal of the command line has in common."""

from pathlib import Path

import pytest

from freemvmt.cli import main


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> str:
    """Run `two-towers` with ``arguments``, which it must refuse, and return its one line of error.

    Exit code 2; on stderr at most notes before that line, and no traceback; the line says what is wrong and, behind a
    semicolon, what to do instead; nothing in ``folder`` is new, changed or gone.
    """
    before = contents(folder)
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert code == 2, said
    *notes, error = said.splitlines()
    assert error.startswith("error: ")
    assert not [note for note in notes if note.startswith(("error", "Traceback", " "))]
    assert "; " in error
    assert contents(folder) == before
    return error


def contents(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every path below ``folder``, with the number of its file and the time of its last change."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*")}
