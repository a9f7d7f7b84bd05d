"""A full disk, a file that may not grow, no memory, no right to write: one line, and what was there stays whole."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from freemvmt.cli import main
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.storage.files import atomic_file, atomic_folder
from freemvmt.storage.outputs import check_writable

from disks import files_of_at_most, mounted
from refusals import refusal
from rows import write_rows


@pytest.fixture
def training(tiny_base: str, tmp_path: Path) -> list[str]:
    """A training of a second, but for its --output: a model of 6 MB."""
    data = write_rows(tmp_path / "rows.jsonl", 40)
    return ["train", "--no-wandb", "--epochs", "1", "--base", tiny_base, "--dataset", str(data), "--output"]


def test_a_full_disk_is_refused_and_the_old_model_stays_whole(
    training: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "size=9m"):
        assert main([*training, str(disk / "model")]) == 0  # one fits, but not a second beside it
        said = refusal(capsys, disk, *training, disk / "model", "--seed", "1")
        assert f"cannot write {disk / 'model'}: the disk is full; free some space" in said
        assert TwoTowersModel.load(disk / "model").record["config"]["seed"] == 0


@pytest.mark.parametrize("size", [0, 100_000, 5_000_000])
def test_a_file_that_may_not_grow_is_refused_and_the_old_model_stays_whole(
    training: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    output = tmp_path / "model"
    assert main([*training, str(output)]) == 0
    with files_of_at_most(size):
        said = refusal(capsys, tmp_path, *training, output, "--seed", "1")
        fresh = refusal(capsys, tmp_path, *training, tmp_path / "fresh", "--seed", "1")
    assert f"cannot write {output}: the file would be larger than this system allows; write elsewhere" in said
    assert f"cannot write {tmp_path / 'fresh'}: the file would be larger" in fresh
    assert TwoTowersModel.load(output).record["config"]["seed"] == 0


def test_a_run_that_may_not_grow_is_refused_and_the_old_one_stays_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "pairs.tsv", tmp_path / "run.txt"
    data.write_text("".join(f"tower {number}\tthe tower of number {number}\n" for number in range(40)))
    assert main(["evaluate", "bm25", str(data), "--run", str(run)]) == 0
    with files_of_at_most(1000):
        said = refusal(capsys, tmp_path, "evaluate", "bm25", data, "--run", run)
    assert f"cannot write {run}: the file would be larger than this system allows" in said


# The libraries are loaded; from here on the process may have so many megabytes more.
LIMITED = """
import resource, sys
import torch, transformers, datasets, safetensors.torch, nanotoken
import freemvmt.training, freemvmt.search.bundle.build
from freemvmt.cli import main
torch.randn(300, 300) @ torch.randn(300, 300)
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("megabytes", "flags"),
    [
        (200, ["--tower", "recurrent", "--hidden", "2048"]),
        (400, ["--tower", "recurrent", "--hidden", "512", "--batch-size", "480", "--loss", "infonce"]),
    ],
    ids=["for the weights", "for a batch"],
)
def test_no_memory_is_one_line_and_the_old_model_stays_whole(
    megabytes: int, flags: list[str], tiny_base: str, rows_file: str, tmp_path: Path
) -> None:
    output = tmp_path / "model"
    common = ["train", "--no-wandb", "--epochs", "1", "--base", tiny_base, "--dataset", rows_file, "--output"]
    assert main([*common, str(output)]) == 0
    command = [sys.executable, "-c", LIMITED, str(megabytes), *common, str(output), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: there is not enough memory for this; free some, or give less at once")
    assert "Traceback" not in done.stderr
    assert TwoTowersModel.load(output).config.tower == "average"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_read_only_disk_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "ro"):
        said = refusal(capsys, tmp_path, "train", "--no-wandb", "--dataset", "no data", "--output", disk / "model")
    assert f"cannot write {disk / 'model'}: the file system is read-only; write elsewhere" in said


def make_file(place: Path) -> None:
    with atomic_file(place):
        pass


def make_folder(place: Path) -> None:
    with atomic_folder(place):
        pass


@pytest.mark.parametrize("make", [make_file, make_folder, check_writable])
def test_a_folder_without_the_right_to_write_is_refused(make: Callable[[Path], None]) -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        Path(name).chmod(0o755)
        folder = Path(name, "locked")
        folder.mkdir(0o555)
        try:
            if not user:  # root may write anywhere: be nobody for a moment
                os.seteuid(65_534)
            with pytest.raises(UserError, match=r"cannot write .*/locked/place: permission denied; write elsewhere"):
                make(folder / "place")
        finally:
            os.seteuid(user)
