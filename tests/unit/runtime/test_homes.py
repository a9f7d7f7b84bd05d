"""The cache and the home folder: where they are, and that nothing ends where they cannot be."""

import getpass
import logging
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from freemvmt.config import TrainConfig
from freemvmt.data.readers import pydocs
from freemvmt.errors import UserError
from freemvmt.runtime.home import cache_folder, ensure_home, mark_used, trim_cache
from freemvmt.trainer.dataset import prepare

NAMES = ("HOME", "XDG_CACHE_HOME", "TWO_TOWERS_CACHE", "TWO_TOWERS_CACHE_GB", "USER", "LOGNAME", "LNAME", "USERNAME")
NOTE = "TWO_TOWERS_CACHE may name a folder for it"


@pytest.fixture(autouse=True)
def _as_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is put back, whoever changes it
        monkeypatch.delenv(name)


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whose number stands in no list."""

    def unknown(uid: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder("tokens") == tmp_path / "home" / ".cache" / "two-towers" / "tokens"
    monkeypatch.setenv("XDG_CACHE_HOME", "not absolute")
    assert cache_folder("tokens") == tmp_path / "home" / ".cache" / "two-towers" / "tokens"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("tokens") == tmp_path / "xdg" / "two-towers" / "tokens"
    monkeypatch.setenv("TWO_TOWERS_CACHE", str(tmp_path / "given"))
    assert cache_folder("tokens") == tmp_path / "given" / "tokens"
    monkeypatch.setenv("TWO_TOWERS_CACHE", "~/given")
    assert cache_folder("tokens") == tmp_path / "home" / "given" / "tokens"


def test_the_cache_removes_what_was_not_used_for_longest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TWO_TOWERS_CACHE", str(tmp_path))
    monkeypatch.setenv("TWO_TOWERS_CACHE_GB", "3e-6")  # 3 kB
    (tmp_path / "theirs.safetensors").write_bytes(bytes(5000))  # no cache gives such a name
    names = [f"{number:032x}.safetensors" for number in range(4)]
    for number, name in enumerate(names):
        path = cache_folder("tokens" if number % 2 else "vectors") / name
        path.write_bytes(bytes(1000))
        os.utime(path, (number, number))
    mark_used(tmp_path / "vectors" / names[0])
    trim_cache()
    assert sorted(path.name for path in tmp_path.rglob("*.safetensors")) == [
        names[0],
        *names[2:],
        "theirs.safetensors",
    ]
    trim_cache()  # all fits
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4
    monkeypatch.setenv("TWO_TOWERS_CACHE_GB", "0")
    trim_cache()
    assert sorted(path.name for path in tmp_path.rglob("*.safetensors")) == [names[0], "theirs.safetensors"]


@pytest.mark.parametrize("size", ["much", "-1", "nan"])
def test_a_size_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: str) -> None:
    monkeypatch.setenv("TWO_TOWERS_CACHE", str(tmp_path))
    monkeypatch.setenv("TWO_TOWERS_CACHE_GB", size)
    with pytest.raises(UserError, match=f"TWO_TOWERS_CACHE_GB is '{size}'; give a number of gigabytes"):
        cache_folder("tokens")


def bad_places(folder: Path) -> dict[str, dict[str, str]]:
    """Variables of an environment in which nothing can be kept."""
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "file").write_text("")
    return {
        "a loop": {"HOME": str(folder / "loop")},
        "below a loop": {"HOME": str(folder / "loop" / "home")},
        "a device": {"HOME": os.devnull},
        "a file": {"HOME": str(folder / "file")},
        "empty": {"HOME": ""},
        "a name too long": {"HOME": "/" + "x" * 5000},
        "not absolute": {"HOME": "somewhere"},
        "the cache in a loop": {"TWO_TOWERS_CACHE": str(folder / "loop")},
        "the cache a file": {"TWO_TOWERS_CACHE": str(folder / "file")},
        "the cache of nobody": {"TWO_TOWERS_CACHE": "~nobody-of-that-name/cache"},
    }


@pytest.mark.parametrize("place", range(10))
def test_where_nothing_can_be_kept_there_is_no_cache_and_one_note(
    place: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    variables = list(bad_places(tmp_path).values())[place]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        for name in ("tokens", "pydocs"):
            folder = cache_folder(name)
            assert not folder.exists()
            with pytest.raises(NotADirectoryError):
                folder.mkdir(parents=True)
    assert [NOTE in message for message in caplog.messages] == [True]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


def test_what_is_kept_is_read_where_nothing_can_be_written(
    tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One note for all caches; the work is done."""
    monkeypatch.setenv("HOME", os.devnull)
    with caplog.at_level(logging.INFO):
        data = prepare(tiny_config)
        assert pydocs.read(["typer"], 1)
    assert len(data.queries) > 100
    assert sum(NOTE in message for message in caplog.messages) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.usefixtures("nobody")
def test_a_command_has_a_home_and_a_name_and_leaves_nothing_of_them(tmp_path: Path) -> None:
    code = (
        "import getpass, os, pwd, pathlib\n"
        "def unknown(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = unknown\n"
        "from freemvmt.runtime.home import ensure_home, cache_folder\n"
        "ensure_home()\n"
        "print(pathlib.Path.home(), getpass.getuser(), cache_folder('tokens'))\n"
        "assert pathlib.Path.home().is_dir()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    home, name, cache = done.stdout.split()
    assert not Path(home).exists()
    assert name == f"user-{os.getuid()}"
    assert cache == f"{os.devnull}/tokens"  # nothing of a home that goes is worth keeping
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_is_there_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for home in (tmp_path, tmp_path / "not yet"):
        monkeypatch.setenv("HOME", str(home))
        ensure_home()
        assert os.environ["HOME"] == str(home)
        assert "USER" not in os.environ or not getpass.getuser().startswith("user-")


def test_a_home_that_cannot_be_written_stays_and_libraries_write_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A key and models may be there to be read."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and access(path, mode))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_CACHE_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    ensure_home()
    assert os.environ["HOME"] == str(tmp_path)
    folder = Path(os.environ["WANDB_CACHE_DIR"])
    assert folder.is_dir()
    assert tmp_path not in folder.parents
    assert os.environ["MPLCONFIGDIR"] == str(folder)
    assert list(tmp_path.iterdir()) == []
    folder.rmdir()
