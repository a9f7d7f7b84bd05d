import hashlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import pytest
import torch

from freemvmt.errors import UserError
from freemvmt.storage.digests import digest_of
from freemvmt.storage.files import atomic_file, atomic_folder
from freemvmt.storage.outputs import check_writable
from freemvmt.storage.tensor_files import all_finite, load_cached, save_cached


class Whole(Protocol):
    def __call__(self, path: Path) -> AbstractContextManager[Path]: ...


def fill(whole: Whole, part: Path, text: str) -> None:
    """What a block does: write its file, or two files of its folder."""
    if whole is atomic_file:
        part.write_text(text)
    else:
        (part / "deep").mkdir()
        (part / "one").write_text(text)
        (part / "deep" / "two").write_text(text)


def contents(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_text() for file in files}


@pytest.fixture(params=[atomic_file, atomic_folder])
def whole(request: pytest.FixtureRequest) -> Whole:
    made: Whole = request.param
    return made


def test_what_a_block_wrote_takes_the_place_when_it_ends(whole: Whole, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "place"
    for text in ("first", "second"):
        with whole(path) as part:
            fill(whole, part, text)
            assert text not in contents(path).values()
        assert set(contents(path).values()) == {text}
        assert os.listdir(path.parent) == ["place"]  # noqa: PTH208  hidden files too


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_what_was_there(whole: Whole, kind: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "place"
    for before in (0, 1):
        with pytest.raises(kind), whole(path) as part:  # noqa: PT012
            fill(whole, part, "half")
            raise kind
        assert list(tmp_path.iterdir()) == [path] * before
        if before:
            assert set(contents(path).values()) == {"whole"}
        with whole(path) as part:
            fill(whole, part, "whole")


def test_a_folder_holds_nothing_of_the_one_before(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "place") as part:
        (part / "old").write_text("old")
    with atomic_folder(tmp_path / "place") as part:
        (part / "new").write_text("new")
    assert contents(tmp_path / "place") == {"new": "new"}


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, set[str]]]:
    """Each sync: the name of what was synced, and the texts of all that then was beside the place or in it."""
    found: list[tuple[str, set[str]]] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        above = next(parent for parent in (path, *path.parents) if parent.name.startswith("above"))
        found.append((path.name, {file.read_text() for file in above.rglob("*") if file.is_file()}))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the name of what is open")
def test_the_old_is_removed_when_the_new_is_safe_from_a_power_cut(
    whole: Whole, tmp_path: Path, flushed: list[tuple[str, set[str]]]
) -> None:
    path = tmp_path / "above" / "place"
    path.parent.mkdir()
    for text in ("first", "later"):
        flushed.clear()
        with whole(path) as part:
            fill(whole, part, text)
    names = [name for name, _ in flushed]
    if whole is atomic_file:
        assert names == ["place", "above"]
        return
    assert sorted(names[:3]) == ["deep", "one", "two"]
    assert names[3:] == ["new", "above"]  # the names in it, before it gets its own
    assert flushed[-1][1] == {"first", "later", ""}  # the last is the lock


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the name of what is open")
def test_folders_that_are_made_on_the_way_are_safe_too(
    whole: Whole, tmp_path: Path, flushed: list[tuple[str, set[str]]]
) -> None:
    (tmp_path / "above").mkdir()
    with whole(tmp_path / "above" / "one" / "two" / "place") as part:
        fill(whole, part, "text")
    assert [name for name, _ in flushed[:2]] == ["above", "one"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_are_those_of_any_new_file(whole: Whole, mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with whole(tmp_path / "place") as part:
            fill(whole, part, "text")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    usual = 0o666 if whole is atomic_file else 0o777
    assert (tmp_path / "place").stat().st_mode & 0o777 == usual & ~mask


def test_a_link_stays_and_what_it_names_is_replaced(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "place")
    for text in ("first", "second"):
        with whole(tmp_path / "link") as part:
            fill(whole, part, text)
        assert (tmp_path / "link").is_symlink()
        assert set(contents(tmp_path / "disk" / "place").values()) == {text}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["place"]


def test_what_a_killed_process_left_is_taken_away_by_the_next_write(whole: Whole, tmp_path: Path) -> None:
    killed = (
        f"import os, sys; from pathlib import Path; from freemvmt.storage.files import {whole.__name__}\n"
        f"with {whole.__name__}(Path(sys.argv[1])) as part:\n"
        "    (part.parent if part.is_file() else part).joinpath('.tmp of a library').write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", killed, str(tmp_path / "place")]).returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    os.utime(left, (0, 0))
    with whole(tmp_path / "place") as part:
        fill(whole, part, "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_what_is_still_being_written_is_not(whole: Whole, tmp_path: Path) -> None:
    with whole(tmp_path / "place") as slow:
        if whole is atomic_file:  # as libraries do that rename what they wrote
            slow.with_name("temporary").write_text("slow")
            slow.with_name("temporary").replace(slow)
        else:
            fill(whole, slow, "slow")
        for part in tmp_path.iterdir():
            os.utime(part, (0, 0))
        with whole(tmp_path / "place") as quick:
            fill(whole, quick, "quick")
    assert set(contents(tmp_path / "place").values()) == {"slow"}
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with atomic_file(pipe) as part:
        part.write_text("through")
    reader.join(10)
    assert read == ["through"]
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file/place", "a part of that path is a file"),
        ("file/deep/place", "a part of that path is a file"),
        ("x" * 300, "that name is too long"),
        ("x" * 250, "that name is too long"),
    ],
    ids=["under a file", "deep under a file", "too long", "nearly too long"],
)
def test_a_place_that_cannot_be_is_an_error_that_says_why(
    whole: Whole, place: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    for attempt in (whole(tmp_path / place).__enter__, lambda: check_writable(tmp_path / place)):
        with pytest.raises(UserError, match=f"cannot write .*{reason}.*; "):
            attempt()
    assert contents(tmp_path) == {"file": "in the way"}


def test_a_folder_is_no_place_for_a_file_nor_a_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    with pytest.raises(UserError, match="that is a folder"), atomic_file(tmp_path / "folder"):
        pass
    with pytest.raises(UserError, match="is a file, not a folder"), atomic_folder(tmp_path / "file"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_looking_whether_a_place_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "not" / "there" / "yet")
    check_writable(tmp_path / "place")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no files without a name")
def test_no_moment_of_that_look_shows_in_the_folder(tmp_path: Path) -> None:
    seen: list[list[Path]] = []
    temporary = tempfile.TemporaryFile

    def seen_meanwhile(dir: Path) -> IO[bytes]:
        opened = temporary(dir=dir)
        seen.append(list(dir.iterdir()))
        return opened

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", seen_meanwhile)
        check_writable(tmp_path / "place")
    assert seen == [[]]


def test_a_digest_is_that_of_the_joined_bytes() -> None:
    """Ids of passages, checkpoints and caches on users' disks depend on it."""
    numbers = np.arange(6, dtype=np.float16).reshape(2, 3)
    joined = "naïve \ud800".encode("utf-8", "surrogatepass") + b"\0" + numbers.tobytes()
    for size in (8, 16):
        expected = hashlib.blake2b(joined, digest_size=size).hexdigest()
        assert digest_of(["naïve \ud800", b"\0", numbers, np.empty(0)], size) == expected
    with pytest.raises(BufferError, match="contiguous"):
        digest_of([numbers.T])


def test_a_cache_file_is_read_if_it_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache" / "a.safetensors"
    assert load_cached(path, "rows") == ({}, "")
    save_cached(path, {"rows": torch.ones(3), "none": torch.empty(0)}, "key")
    tensors, text = load_cached(path, "rows")
    assert (tensors["rows"].tolist(), text) == ([1, 1, 1], "key")
    assert not caplog.messages
    path.write_bytes(path.read_bytes()[:-1])
    assert load_cached(path, "rows") == ({}, "")
    assert f"the rows in {path} are damaged" in caplog.text
    save_cached(path / "below", {"rows": torch.ones(3)})  # a file is in the way: nothing is cached, and nothing raised


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_found(bad: float, dtype: torch.dtype) -> None:
    tensor = torch.arange(1000, dtype=dtype).view(10, 100)
    assert all_finite(tensor)
    for place in (0, 501, 999):
        changed = tensor.clone()
        changed.view(-1)[place] = bad
        assert not all_finite(changed)
    assert all_finite(torch.empty(0, 3))
