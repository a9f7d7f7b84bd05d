"""A bundle is there at every moment, whoever replaces it."""

import threading
from pathlib import Path

from filelock import FileLock

from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.bundle.files import FORMAT
from freemvmt.search.retriever import Retriever
from freemvmt.search.stores.layout import LOCK_FILE
from freemvmt.storage.manifest import read_manifest

from bundles import corpus_of
from forked import Forks


def test_two_processes_do_not_index_into_one_place(children: Forks, tiny_model: TwoTowersModel, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "model")
    corpus, out = corpus_of(tmp_path / "corpus.jsonl", 20), tmp_path / "out.txt"
    command = ["index", str(tmp_path / "model"), str(corpus), "--output", str(tmp_path / "bundle")]

    def other_process() -> list[str]:
        children.start(command=command, out=str(out))
        return children.rest()

    work = tmp_path / ".bundle.indexing"
    work.mkdir()
    with FileLock(work / LOCK_FILE):
        assert other_process() == ["exit 2"]
        assert "another process is indexing into" in out.read_text()
    assert other_process() == ["exit 0"]
    assert Retriever.load(tmp_path / "bundle").search("word", 1)


def test_a_bundle_is_there_at_every_moment_of_its_replacement(tiny_model: TwoTowersModel, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    corpora = [corpus_of(tmp_path / f"{label}.jsonl", 20, label) for label in ("river", "castle")]
    build(tiny_model, corpora[0], output)
    seen: list[str] = []
    failures: list[Exception] = []
    finished = threading.Event()

    def read() -> None:
        while not finished.is_set():
            try:
                seen.append(read_manifest(output / "manifest.json", "bundle", FORMAT, {})["corpus"])
            except UserError as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(20):
        build(tiny_model, corpora[number % 2], output)
    finished.set()
    reader.join()
    assert failures == []
    assert set(seen) == set(corpora)
