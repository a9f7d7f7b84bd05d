"""A lock file: one holder at a time, none that outlives its process; and what goes on where there are no locks."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search.retriever import Retriever
from freemvmt.storage.files import atomic_file, atomic_folder
from freemvmt.storage.locks import NoLocks, locked

from refusals import contents, refusal
from rows import write_rows
from sweep_toy import sweep

NUMBERS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL, errno.EPERM)


def take_locks_away(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As on a network or FUSE mount that refuses the call."""

    def refused(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    take_locks_away(monkeypatch, errno.ENOLCK)


def test_one_holds_it_and_who_is_patient_comes_next(tmp_path: Path) -> None:
    held, let_go, order = threading.Event(), threading.Event(), []

    def first() -> None:
        with locked(tmp_path / "lock", "busy"):
            held.set()
            let_go.wait(20)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    held.wait(20)
    with pytest.raises(UserError, match=r"^busy; wait$"), locked(tmp_path / "lock", "busy; wait"):
        order.append("both")
    let_go.set()
    with locked(tmp_path / "lock", "busy", patience=20):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_it_does_not_outlive_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from freemvmt.storage.locks import locked\n"
        "with locked(Path(sys.argv[1]), 'busy'):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")]).returncode == -signal.SIGKILL
    with locked(tmp_path / "lock", "busy"):
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_no_folder_is_made_for_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "none" / "lock", "busy"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)
def test_a_file_system_without_locks_says_so_and_files_are_written_whole_all_the_same(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_locks_away(monkeypatch, number)
    with pytest.raises(NoLocks, match="does not know locks; copy it"), locked(tmp_path / "lock", "busy"):
        pass
    for _ in range(2):
        with atomic_file(tmp_path / "file") as part:
            part.write_text("text")
        with atomic_folder(tmp_path / "folder") as part:
            (part / "one").write_text("text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "lock"]
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["one"]


@pytest.fixture(scope="module")
def model(tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    TwoTowersModel(ModelConfig(base=tiny_base)).save(folder)
    return folder


def test_without_locks_a_bundle_is_read_and_what_would_change_it_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, more, bundle = tmp_path / "corpus.tsv", tmp_path / "more.tsv", tmp_path / "bundle"
    corpus.write_text("a\tstone tower\nb\trunning water\n")
    more.write_text("c\twooden ladder\n")
    assert main(["index", str(model), str(corpus), "--output", str(bundle)]) == 0
    Retriever.load(bundle).close()  # which makes the file that writers lock
    take_locks_away(monkeypatch, errno.ENOLCK)
    capsys.readouterr()
    for method in ("dense", "bm25", "hybrid"):
        assert main(["search", str(bundle), "tower", "-k", "1", "--method", method]) == 0
        assert "stone tower" in capsys.readouterr().out
    said = refusal(capsys, tmp_path, "add", bundle, more)
    assert said.startswith(f"error: the file system of {bundle} does not know locks; copy it to another place")
    assert "does not know locks" in refusal(capsys, tmp_path, "delete", bundle, "a")
    assert "does not know locks" in refusal(capsys, tmp_path, "retune", bundle, "--queries", model)
    for output in (bundle, tmp_path / "other"):
        said = refusal(capsys, tmp_path, "index", model, corpus, "--output", output)
        assert f"the file system of {tmp_path} does not know locks; index into another place" in said
    retriever = Retriever.load(bundle)
    assert not retriever.writable
    assert len(retriever) == 2
    retriever.close()


@pytest.mark.usefixtures("without_locks")
def test_without_locks_a_training_keeps_its_checkpoints_and_its_model(tiny_base: str, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", 40)
    command = ["train", "--no-wandb", "--epochs", "1", "--base", tiny_base, "--dataset", str(data)]
    assert main([*command, "--checkpoint-steps", "1", "--output", str(tmp_path / "model")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "rows.jsonl"]
    assert TwoTowersModel.load(tmp_path / "model").record["ended"] == "finished"


@pytest.mark.usefixtures("without_locks")
def test_without_locks_tokens_are_cached(tiny_base: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(Path(tiny_base, "tokenizer.json"), 32)
    made = tokenizer.encode_cached(["a tower", "a river"], tmp_path)
    before = contents(tmp_path)
    again = tokenizer.encode_cached(["a tower", "a river"], tmp_path)
    assert len(before) == 1
    # It was not written again: the inode is the same. The time is that of the last use.
    assert {path: inode for path, (inode, _) in contents(tmp_path).items()} == {
        path: inode for path, (inode, _) in before.items()
    }
    assert np.array_equal(made.ids, again.ids)


@pytest.mark.usefixtures("alone", "without_locks")
def test_without_locks_a_sweep_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"sweeps does not know locks; give another --folder"):
        sweep(count=1)
