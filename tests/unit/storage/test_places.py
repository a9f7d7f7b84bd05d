"""Commands x places: where nothing can be written or read, one line says so, before any work, and nothing waits."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.errors import UserError
from freemvmt.evaluation.runs import write_run
from freemvmt.model import TwoTowersModel
from freemvmt.storage.outputs import check_empty, check_not_input, check_output_file, check_writable

from refusals import refusal
from rows import write_rows

Refused = Callable[..., str]
NO = "no-such-input"  # a refusal of the output proves that this was not looked for
INTO_FOLDERS = {
    "train": ["train", "--no-wandb", "--dataset", NO, "--output"],
    "quickstart": ["quickstart", "--output"],
    "index": ["index", NO, NO, "--output"],
    "encode": ["encode", NO, NO, "--output"],
    "sentence-transformers": ["export", NO, "--format", "sentence-transformers", "--output"],
    "onnx": ["export", NO, "--format", "onnx", "--output"],
    "site": ["export", NO, "--format", "site", "--output"],
}
INTO_FILES = {
    "run": ["evaluate", "bm25", NO, "--run"],
    "report": ["report", NO, "--output"],
}
INSIDE = {  # these put files of their own into a folder
    "mine": ["mine", NO, NO, "--output", "{}/mined.jsonl"],
    "sweep": ["sweep", "--config", "quick", "--no-wandb", "--dataset", NO, "--folder", "{}/sweeps"],
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where neither a model nor a file of ours can be, by name."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "file").write_text("text")
    (folder / "folder").mkdir()
    (folder / "folder" / "diary").write_text("text")
    (folder / "dangling").symlink_to("/proc/nothing/there")
    for name in ("fifo", "fifo.jsonl", "fifo.tsv", "fifo.parquet"):
        os.mkfifo(folder / name)
    with socket.socket(socket.AF_UNIX) as open_socket:
        before = Path.cwd()
        os.chdir(folder)  # the name of a socket is short
        open_socket.bind("socket")
        os.chdir(before)
        own = {name: str(folder / name) for name in ("loop", "file", "folder", "dangling", "fifo", "socket")}
        pipes = {name: str(folder / name) for name in ("fifo.jsonl", "fifo.tsv", "fifo.parquet")}
        devices = {"full": "/dev/full", "null": "/dev/null", "zero": "/dev/zero", "root": "/", "proc": "/proc"}
        names = {"long": "a/" * 2500, "long name": "x" * 5000, "zero byte": "a\0b"}
        below = {"below a loop": f"{own['loop']}/x", "below a file": f"{own['file']}/x", "below proc": "/proc/x"}
        yield own | pipes | devices | names | below


EVERYWHERE = ("loop", "below a loop", "below a file", "below proc", "dangling", "long", "long name", "zero byte")


@contextmanager
def in_time() -> Iterator[None]:
    """What waits for a pipe would wait for ever."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refused:
    """Runs a command in an empty folder, which stays empty; its one line."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> str:
        with in_time():
            return refusal(capsys, tmp_path, *words)

    return run


@pytest.mark.parametrize("place", [*EVERYWHERE, "file", "folder", "fifo", "socket", "full", "null", "root", "proc"])
@pytest.mark.parametrize("command", INTO_FOLDERS)
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    refused: Refused, places: dict[str, str], command: str, place: str
) -> None:
    said = refused(*INTO_FOLDERS[command], places[place])
    assert NO not in said


@pytest.mark.parametrize("place", [*EVERYWHERE, "folder", "socket", "full", "zero", "root", "proc"])
@pytest.mark.parametrize("command", INTO_FILES)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    refused: Refused, places: dict[str, str], command: str, place: str
) -> None:
    said = refused(*INTO_FILES[command], places[place])
    assert NO not in said


@pytest.mark.parametrize("place", [*EVERYWHERE, "file", "fifo", "socket", "full", "null", "proc"])
@pytest.mark.parametrize("command", INSIDE)
def test_files_are_not_put_where_no_folder_can_be(
    refused: Refused, places: dict[str, str], command: str, place: str
) -> None:
    said = refused(*(word.format(places[place]) for word in INSIDE[command]))
    assert NO not in said


@pytest.fixture(scope="module")
def sound(tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a command needs beside the place."""
    folder = tmp_path_factory.mktemp("sound")
    TwoTowersModel(ModelConfig(base=tiny_base)).save(folder / "model")
    (folder / "corpus.tsv").write_text("a\tstone tower\nb\trunning water\n")
    rows = write_rows(folder / "rows.jsonl", 40)
    return {"base": tiny_base, "model": f"{folder}/model", "corpus": f"{folder}/corpus.tsv", "rows": str(rows)}


FROM = {
    "train": "train --no-wandb --base {base} --dataset {place} --output out",
    "streaming": "train --no-wandb --streaming --base {base} --dataset {place} --output out",
    "resume": "train --resume {place}",
    "base": "train --no-wandb --base {place} --dataset {rows} --output out",
    "evaluate": "evaluate bm25 {place}",
    "mine": "mine {model} {place} --output out.jsonl",
    "index": "index {model} {place} --output out",
    "index a model": "index {place} {corpus} --output out",
    "encode": "encode {model} {place} --output out",
    "onnx": "export {place} --format onnx --output out",
    "site": "export {place} --format site --output out",
    "report": "report {place}",
    "search": "search {place} tower",
    "add": "add {place} {corpus}",
    "delete": "delete {place} a",
    "retune": "retune {place} --back",
    "serve": "serve {place} --port 0",
    "mcp": "mcp {place}",
}
UNREAD = ("fifo", "fifo.jsonl", "fifo.tsv", "fifo.parquet", "socket", "null", "zero", "folder", "file", "root", "proc")


@pytest.mark.parametrize("place", [*EVERYWHERE, *UNREAD])
@pytest.mark.parametrize("command", FROM)
def test_what_cannot_be_read_is_refused_and_nothing_waits_for_it(
    refused: Refused, places: dict[str, str], sound: dict[str, str], command: str, place: str
) -> None:
    words = [word.format(place=places[place], **sound) for word in FROM[command].split()]
    refused(*words)


def test_a_run_goes_to_a_pipe_that_is_read_and_does_not_wait_for_one_that_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("freemvmt.storage.files._READER", 0.1)
    with in_time(), pytest.raises(UserError, match="nobody reads from there"):
        write_run({"q": {"d": 1.0}}, tmp_path / "pipe", "tag")
    write_run({"q": {"d": 1.0}}, Path(os.devnull), "tag")
    assert not Path(os.devnull).is_file()


def test_what_is_read_is_not_written(sound: dict[str, str], refused: Refused, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = write_rows(folder / "rows.jsonl", 40)
    (folder / "link").symlink_to(rows)
    model, corpus = sound["model"], sound["corpus"]
    for words in (
        ["mine", model, rows, "--output", rows],
        ["mine", model, folder, "--output", folder / "mined.jsonl"],
        ["evaluate", "bm25", rows, "--run", rows],
        ["evaluate", "bm25", rows, "--run", folder / "link"],
        ["train", "--no-wandb", "--dataset", folder, "--output", folder / "model"],
        ["index", model, folder, "--output", folder / "bundle"],
        ["encode", model, folder, "--output", folder / "deep" / "vectors"],
        ["export", model, "--format", "onnx", "--output", f"{model}/onnx"],
    ):
        assert "which is read" in refused(*words)
    for output in (corpus, f"{corpus}/"):
        refused("index", model, corpus, "--output", output)


def test_the_folder_one_is_in_may_hold_data_and_outputs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    check_not_input(Path("models/mine"), [".", str(tmp_path)])
    with pytest.raises(UserError, match="which is read"):
        check_not_input(Path(), ["."])


@pytest.mark.parametrize("name", ["", "runs/", "/"])
def test_the_name_of_a_folder_is_none_of_a_file(name: str) -> None:
    with pytest.raises(UserError, match=r"no name of a file; give one"):
        check_output_file(name)


def test_odd_names_are_names(sound: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line break, a quote, a percent sign, a question mark: all but a zero byte and a slash."""
    odd = tmp_path / "new\nline 'quoted' 100%?#;é"
    assert main(["index", sound["model"], sound["corpus"], "--output", str(odd)]) == 0
    capsys.readouterr()
    assert main(["search", str(odd), "tower", "-k", "1"]) == 0
    assert "stone tower" in capsys.readouterr().out


def test_looking_leaves_a_link_and_its_target_alone(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "not" / "yet")
    check_writable(tmp_path / "link")
    check_empty(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
