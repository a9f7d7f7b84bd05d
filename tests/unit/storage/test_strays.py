"""What systems leave in folders is neither ours nor in our way."""

import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.errors import UserError
from freemvmt.export.vectors import read_vectors
from freemvmt.model import TwoTowersModel
from freemvmt.search.retriever import Retriever
from freemvmt.search.stores.local import store as embedded
from freemvmt.storage.hidden_files import is_not_ours, is_stray
from freemvmt.storage.locks import NoLocks
from freemvmt.storage.outputs import check_empty
from freemvmt.trainer.checkpoints import last_checkpoint

from refusals import refusal

LEFT = (".DS_Store", "._model.safetensors", "Thumbs.db", "desktop.ini", ".nfs000000000042", "@eaDir/x", ".#lock")


def leave(folder: Path, content: str = "one") -> None:
    """Let a system have been in ``folder`` and in all folders below."""
    for place in (folder, *[path for path in folder.rglob("*") if path.is_dir() and path.name != "@eaDir"]):
        for name in LEFT:
            (place / name).parent.mkdir(exist_ok=True)
            if name == ".#lock":  # an editor's: a link that leads nowhere
                (place / name).unlink(missing_ok=True)
                (place / name).symlink_to(f"user@host.{content}")
            else:
                (place / name).write_text(content)


def write(path: Path, *ids: str) -> str:
    path.write_text("".join(json.dumps({"id": name, "text": f"a {name} here"}) + "\n" for name in ids))
    return str(path)


@pytest.fixture
def model(tiny_base: str, tmp_path: Path) -> Path:
    TwoTowersModel(ModelConfig(base=tiny_base)).save(tmp_path / "model")
    return tmp_path / "model"


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def best(bundle: Path, query: str) -> str:
    retriever = Retriever.load(bundle)
    found = retriever.search(query, 1, "bm25")[0].id
    retriever.close()
    return found


@pytest.mark.parametrize("name", ["._x", ".DS_Store", "THUMBS.DB", "Desktop.ini", "@eaDir", ".nfs0001", "~$x.docx"])
def test_strays_are_known_by_name(name: str) -> None:
    assert is_stray(name)
    assert is_not_ours(name)


def test_what_is_hidden_is_foreign_but_goes_with_no_folder(tmp_path: Path) -> None:
    for name in (".git", ".env", ".hidden"):
        assert is_not_ours(name)
        assert not is_stray(name)
    for name in ("corpus.jsonl", "words", "lock", "nfs", "a._b"):
        assert not is_not_ours(name)
    (tmp_path / "out").mkdir()
    leave(tmp_path / "out")
    check_empty(tmp_path / "out")
    (tmp_path / "out" / ".git").mkdir()
    with pytest.raises(UserError, match="is there already"):
        check_empty(tmp_path / "out")


def test_a_bundle_lives_with_them(model: Path, tmp_path: Path) -> None:
    """As it is searched, added to, deleted from and indexed again; also where they change, and are taken away."""
    bundle, corpus = tmp_path / "bundle", write(tmp_path / "corpus.jsonl", "tower", "river")
    bundle.mkdir()
    leave(bundle)
    run("index", model, corpus, "--output", bundle)
    assert not [path for path in bundle.rglob("*") if is_stray(path.name)]
    leave(bundle)
    assert best(bundle, "tower") == "tower"
    run("add", bundle, write(tmp_path / "more.jsonl", "moon"))
    leave(bundle, "another")
    assert best(bundle, "moon") == "moon"
    run("add", bundle, write(tmp_path / "more.jsonl", "sun"))
    for path in [path for path in bundle.rglob("*") if is_stray(path.name)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    assert best(bundle, "sun") == "sun"
    leave(bundle)
    run("delete", bundle, "sun")
    for sums in ("manifest.json", "words.json"):
        assert not [name for name in json.loads((bundle / sums).read_text())["files"] if is_stray(Path(name).name)]
    run("index", model, corpus, "--output", bundle)
    assert best(bundle, "river") == "river"


def test_a_bundle_that_is_only_read_lives_with_them(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("index", model, write(tmp_path / "corpus.jsonl", "tower", "river"), "--output", tmp_path / "bundle")
    leave(tmp_path / "bundle")

    def refuse(*_: object) -> NoReturn:
        raise NoLocks("no locks here")

    monkeypatch.setattr(embedded, "locked", refuse)
    assert best(tmp_path / "bundle", "tower") == "tower"


def test_a_link_that_is_no_stray_is_still_refused(model: Path, tmp_path: Path) -> None:
    run("index", model, write(tmp_path / "corpus.jsonl", "tower"), "--output", tmp_path / "bundle")
    (tmp_path / "bundle" / "model" / ".hidden").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="is a link"):
        Retriever.load(tmp_path / "bundle")


def test_models_exports_and_shards_live_with_them(model: Path, tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus.jsonl", "tower", "river")
    leave(model)
    loaded = TwoTowersModel.load(model)
    loaded.save(model)
    for name in ("new", "onnx", "static", "shards"):
        (tmp_path / name).mkdir()
        leave(tmp_path / name)
    loaded.save(tmp_path / "new")
    run("export", model, "--format", "onnx", "--output", tmp_path / "onnx")
    run("export", model, "--format", "sentence-transformers", "--output", tmp_path / "static")
    for _ in range(2):
        run("encode", model, corpus, "--output", tmp_path / "shards")
        leave(tmp_path / "shards")
        (tmp_path / "shards" / "._part-00000.parquet").write_text("no shard")
    assert [ids for ids, _ in read_vectors(tmp_path / "shards")] == [["tower", "river"]]
    assert TwoTowersModel.load(tmp_path / "static").dim == loaded.dim


def test_what_is_no_stray_is_named(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write(tmp_path / "corpus.jsonl", "tower")
    (tmp_path / "out" / ".git").mkdir(parents=True)
    (tmp_path / "out" / ".DS_Store").touch()
    flags: list[Any] = ["index", model, corpus, "--output", tmp_path / "out"]
    assert "is not a bundle (.git); name another" in refusal(capsys, tmp_path, *flags)
    with pytest.raises(UserError, match=r"not a model of ours \(\.git\)"):
        TwoTowersModel.load(model).save(tmp_path / "out")


def test_checkpoints_are_looked_for_among_them(tmp_path: Path) -> None:
    leave(tmp_path)
    (tmp_path / "._step-0000000001.safetensors").write_text("no checkpoint")
    with pytest.raises(UserError, match="holds no checkpoint"):
        last_checkpoint(tmp_path)
