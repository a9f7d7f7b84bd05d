"""`two-towers sync`: a bundle follows its folder, in one change, and reads nothing that has not changed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from freemvmt.cli import main
from freemvmt.config import FolderConfig, ModelConfig
from freemvmt.data.documents import Document
from freemvmt.data.files import folder as reader
from freemvmt.data.files.report import FolderReport
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.bundle.sync import SyncCounts, folder_of, sync
from freemvmt.search.retriever import Retriever

from refusals import refusal

LONG = "\n\n".join(
    f"Paragraph {number} tells of river and castle and tower, and says it slowly." for number in range(60)
)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "old").mkdir(parents=True)
    (folder / "castle.md").write_text("# A castle\n\nWalls and a tower.\n")
    (folder / "river.txt").write_text("Water that runs to the sea.")
    (folder / "old" / "long.md").write_text(f"# Long\n\n{LONG}\n")
    (folder / "table.json").write_text("{}")
    return folder


@pytest.fixture
def bundle(tiny_base: str, notes: Path, tmp_path: Path) -> Path:
    build(TwoTowersModel(ModelConfig(base=tiny_base, max_length=32)), str(notes), tmp_path / "bundle")
    return tmp_path / "bundle"


def synced(bundle: Path, name: str | None = None, config: FolderConfig | None = None) -> SyncCounts:
    retriever = Retriever.load(bundle)
    return sync(retriever, *folder_of(retriever, name, config or FolderConfig()), FolderReport())


def ids(bundle: Path) -> dict[str, str]:
    retriever = Retriever.load(bundle)
    hits = retriever.search("castle river tower water walls", k=100, method="dense")
    return {hit.id: retriever.get(hit.id).text for hit in hits}


def later(path: Path, text: str | None = None, seconds: float = 10) -> None:
    """Change a file, and its time."""
    if text is not None:
        path.write_text(text)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + int(seconds * 1e9)))


def test_what_is_new_changed_and_gone(bundle: Path, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later(notes / "castle.md", "# A castle\n\nNow it is a ruin.\n")
    (notes / "tower.rst").write_text("Tower\n=====\n\nIt is high.\n")
    (notes / "river.txt").unlink()
    assert synced(bundle) == SyncCounts(added=1, replaced=1, deleted=1, unchanged=1)
    found = ids(bundle)
    assert set(found) == {"castle.md", "tower.rst", "old/long.md"}
    assert "ruin" in found["castle.md"]

    def no_reading(*_: object) -> None:
        pytest.fail("an unchanged file was read")

    monkeypatch.setattr(reader, "read_bytes", no_reading)
    before = {file: file.stat().st_mtime_ns for file in bundle.rglob("*") if file.is_file()}
    assert synced(bundle) == SyncCounts(0, 0, 0, unchanged=3)
    assert before == {file: file.stat().st_mtime_ns for file in bundle.rglob("*") if file.is_file()}


def test_an_index_made_anew_finds_the_same(bundle: Path, notes: Path, tiny_base: str, tmp_path: Path) -> None:
    later(notes / "old" / "long.md", f"# Long\n\n{LONG}\n\n## More\n\nA castle in the sea.\n\n{LONG}")
    (notes / "sea.md").write_text("# The sea\n\nSalt and water.")
    synced(bundle)
    build(TwoTowersModel(ModelConfig(base=tiny_base, max_length=32)), str(notes), tmp_path / "anew")
    first, second = Retriever.load(bundle), Retriever.load(tmp_path / "anew")
    assert first.passage_count == second.passage_count > len(first) == 4
    for query in ("a castle in the sea", "salt", "paragraph 40"):
        for one, other in zip(first.search(query, method="dense"), second.search(query, method="dense"), strict=True):
            assert (one.id, one.text, one.place) == (other.id, other.text, other.place)
            assert one.score == pytest.approx(other.score, abs=1e-5)


def test_a_touched_file_keeps_its_vectors(bundle: Path, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Retriever.load(bundle)
    vectors = before.store.view().vectors(range(before.passage_count))
    modified = before.get("castle.md").metadata["modified"]
    for file in ("castle.md", "old/long.md"):
        later(notes / file)
    encoded: list[int] = []
    retriever = Retriever.load(bundle)
    kind = type(retriever.model)
    encode = kind.encode_documents
    monkeypatch.setattr(
        kind, "encode_documents", lambda self, texts: (encoded.append(len(texts)), encode(self, texts))[1]
    )
    assert sync(retriever, notes, FolderConfig(), FolderReport()) == SyncCounts(0, 2, 0, unchanged=1)
    assert not sum(encoded)
    assert synced(bundle) == SyncCounts(0, 0, 0, unchanged=3)
    after = Retriever.load(bundle)
    view = after.store.view()
    numbers = [number for document in view.numbers() for number in view.passages_of(document)]
    assert len(numbers) == len(vectors)
    assert np.allclose(np.sort(view.vectors(numbers), 0), np.sort(vectors, 0), atol=1e-6)
    assert after.get("castle.md").metadata["modified"] > modified


def test_documents_that_are_no_files_stay(bundle: Path, notes: Path) -> None:
    Retriever.load(bundle).add([Document("from elsewhere", "A castle of sand.", metadata={"path": "no file"})])
    shutil.rmtree(notes / "old")
    assert synced(bundle) == SyncCounts(0, 0, 1, unchanged=2)
    assert set(ids(bundle)) == {"castle.md", "river.txt", "from elsewhere"}


@pytest.mark.parametrize("broken", [lambda file: file.write_bytes(b"\0\1\2" * 99), lambda file: file.chmod(0)])
def test_a_file_that_cannot_be_read_any_more_keeps_its_document(
    bundle: Path, notes: Path, broken: Callable[[Path], object]
) -> None:
    if os.geteuid() == 0 and broken(notes / "river.txt") is None:
        pytest.skip("root reads every file")
    later(notes / "river.txt")
    assert synced(bundle).deleted == 0
    assert "river.txt" in ids(bundle)


def test_an_emptied_file_is_gone(bundle: Path, notes: Path) -> None:
    later(notes / "river.txt", " \n")
    assert synced(bundle) == SyncCounts(0, 0, 1, unchanged=2)


def test_the_globs_of_the_index_hold(tiny_base: str, notes: Path, tmp_path: Path) -> None:
    model, config = TwoTowersModel(ModelConfig(base=tiny_base)), FolderConfig(include=("*.md",), exclude=("old/",))
    build(model, str(notes), tmp_path / "bundle", files=config)
    (notes / "new.txt").write_text("no Markdown")
    (notes / "new.md").write_text("Markdown")
    assert synced(tmp_path / "bundle") == SyncCounts(1, 0, 0, unchanged=1)
    assert synced(tmp_path / "bundle", config=FolderConfig(include=("*.txt",))) == SyncCounts(2, 0, 2, unchanged=0)


def test_bundle_and_folder_move_together(bundle: Path, notes: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.move(bundle, tmp_path / "elsewhere" / "bundle")
    shutil.move(notes, tmp_path / "elsewhere" / "notes")
    assert synced(tmp_path / "elsewhere" / "bundle").unchanged == 3


def test_another_folder_may_be_named(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "castle.md").write_text("Another castle.")
    assert synced(bundle, str(tmp_path / "other")) == SyncCounts(0, 1, 2, unchanged=0)


def test_bad_input_is_one_line_and_changes_nothing(
    bundle: Path, notes: Path, tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = ids(bundle)
    assert "leave one of them out" in refusal(capsys, tmp_path, "sync", bundle, "--watch", "--json")
    assert "nowhere" in refusal(capsys, tmp_path, "sync", bundle, tmp_path / "nowhere")
    for file in (notes / "castle.md", notes / "river.txt", notes / "old" / "long.md"):
        file.unlink()
    assert "holds no" in refusal(capsys, tmp_path, "sync", bundle)  # an unmounted folder deletes nothing
    shutil.rmtree(notes)
    assert "is not there; name it" in refusal(capsys, tmp_path, "sync", bundle)
    assert ids(bundle) == found
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "a", "text": "b"}))
    build(TwoTowersModel(ModelConfig(base=tiny_base)), str(tmp_path / "rows.jsonl"), tmp_path / "rows")
    Retriever.load(tmp_path / "rows").close()  # which makes the file that writers lock
    assert "not made from a folder of files; name the folder" in refusal(capsys, tmp_path, "sync", tmp_path / "rows")


def test_the_command_says_what_it_did(bundle: Path, notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (notes / "sea.md").write_text("# The sea\n\nSalt.")
    assert main(["sync", str(bundle), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {"added": 1, "replaced": 0, "deleted": 0, "unchanged": 3, "documents": 4}
    assert "synced    added 1, replaced 0, deleted 0, unchanged 3; 4 documents in" in told.err


def test_watch_follows_until_it_is_stopped(bundle: Path, notes: Path) -> None:
    command = [sys.executable, "-m", "freemvmt", "sync", str(bundle), "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        assert "unchanged 3" in process.stdout.readline()
        (notes / "sea.md").write_text("# The sea\n\nSalt.")
        assert "added 1" in process.stdout.readline()
        assert Retriever.load(bundle).search("salt", method="bm25")[0].id == "sea.md"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert "Traceback" not in process.stdout.read()


def test_a_killed_sync_is_done_again(bundle: Path, notes: Path) -> None:
    for number in range(300):
        (notes / f"note{number}.md").write_text(f"# Note {number}\n\n{LONG}\n")
    command = [sys.executable, "-m", "freemvmt", "sync", str(bundle)]
    for delay in (1.0, 2.0, 2.5, 3.0):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(delay)
            process.kill()
        assert len(Retriever.load(bundle)) in (3, 303)
    synced(bundle)
    assert len(Retriever.load(bundle)) == 303
    assert synced(bundle).unchanged == 303


def test_a_server_follows_its_folder(bundle: Path, notes: Path) -> None:
    command = [sys.executable, "-m", "freemvmt", "serve", str(bundle), "--port", "0", "--sync"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = next(line.split()[-1] for line in process.stdout if line.startswith("page"))
            (notes / "sea.md").write_text("# The sea\n\nSalt.")
            (notes / "river.txt").unlink()

            def found(query: str) -> list[str]:
                answer = httpx.post(f"{address}search", json={"query": query, "method": "bm25"}, timeout=30)
                return [hit["id"] for hit in answer.json()["hits"]]

            deadline = time.monotonic() + 60
            while found("salt") != ["sea.md"]:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert found("runs") == []
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_server_says_at_once_that_it_has_no_folder_to_follow(
    bundle: Path, notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(notes)
    Retriever.load(bundle).close()
    assert "is not there; name it" in refusal(capsys, tmp_path, "serve", bundle, "--port", "0", "--sync")
    assert "is for one process" in refusal(capsys, tmp_path, "serve", bundle, "--sync", "--workers", "2")
