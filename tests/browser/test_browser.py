"""Where no browser is, a run of the tests says so at its end, or fails when one is required."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from browser import NOT_RUN, PROGRAM, REQUIRED, find_chromium

HELPERS = Path(__file__).parents[1] / "helpers"


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A run of two tests, one of which wants the browser."""
    (folder / "test_one.py").write_text("def test_it(chromium): pass\ndef test_other(): pass\n", encoding="utf-8")
    others = {name: value for name, value in os.environ.items() if name not in (PROGRAM, REQUIRED)}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "browser", "-p", "no:cacheprovider", "test_one.py"],
        cwd=folder,
        env=others | {"PYTHONPATH": str(HELPERS)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_summary_says_that_there_was_no_browser(tmp_path: Path) -> None:
    done = run(tmp_path, PATH=str(tmp_path))
    assert done.returncode == 0
    assert "browser tests that DID NOT RUN: 1" in done.stdout
    assert "there is no chromium, chromium-browser, google-chrome on the PATH; install Chromium" in done.stdout
    assert "1 passed, 1 skipped" in done.stdout


def test_a_required_browser_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    done = run(tmp_path, **{PROGRAM: "/nowhere/chromium", REQUIRED: "1"})
    assert done.returncode == 1
    assert f"{NOT_RUN}, and {REQUIRED} is set: {PROGRAM} names /nowhere/chromium, which is no program" in done.stdout
    assert "1 passed, 1 error" in done.stdout


def test_the_browser_is_the_one_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "google-chrome"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.delenv(PROGRAM, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_chromium() == str(program)
    monkeypatch.setenv(PROGRAM, sys.executable)
    assert find_chromium() == sys.executable
