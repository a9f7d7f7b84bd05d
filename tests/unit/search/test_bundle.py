"""A bundle is whole, or it is refused in one line; indexing leaves the old one or the new one, and goes on."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle import build as indexing
from freemvmt.search.bundle.build import build
from freemvmt.search.bundle.files import FORMAT
from freemvmt.search.lazy_model import LazyModel
from freemvmt.search.retriever import Retriever
from freemvmt.search.stores.local.store import STATE_FORMAT
from freemvmt.storage.files import sha256_of
from freemvmt.storage.manifest import read_manifest, write_manifest

from bundles import MakeBundle, corpus_of, make_documents, write_corpus
from refusals import refusal


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.fixture(scope="module")
def sound(make_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with every sort of file, to which something was added."""
    bundle = make_bundle(tmp_path_factory.mktemp("sound") / "bundle", "pq")
    retriever = Retriever.load(bundle)
    for wrong in ("zebra", {"id": "new", "text": "zebra"}):
        with pytest.raises(TypeError, match=r"documents must be a list of Document, not of (str|dict)"):
            retriever.add([wrong])  # type: ignore[list-item]
    retriever.add([Document("new", "zebra")])
    retriever.close()
    return bundle


@pytest.mark.parametrize("damage", [change_a_byte, cut, empty, Path.unlink])
def test_a_damaged_file_is_refused_whichever_it_is(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(sound, bundle)
    files = sorted(path for path in bundle.rglob("*") if path.is_file() and "lock" not in path.name)
    names = {path.relative_to(bundle).parts[0] for path in files}
    sketch = {"vectors.faiss", "sketch.faiss"}
    assert (
        names == {"manifest.json", "words.json", "words", "model", "documents.utf8", "documents.npy", "fields"} | sketch
    )
    for path in files:
        before = path.read_bytes()
        damage(path)
        assert str(bundle) in refusal(capsys, tmp_path, "search", bundle, "zebra")
        path.write_bytes(before)
    retriever = Retriever.load(bundle)
    assert retriever.search("zebra", 1)[0].id == "new"
    retriever.close()


@pytest.mark.parametrize(("name", "format"), [("manifest.json", FORMAT), ("words.json", STATE_FORMAT)])
def test_no_byte_of_the_lists_can_change(sound: Path, tmp_path: Path, name: str, format: int) -> None:
    content, kind = (sound / name).read_bytes(), "words" if name == "words.json" else "bundle"
    path = tmp_path / name
    for place in [*range(0, len(content), 3), len(content) - 1]:
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 if place % 2 else 42)]) + content[place + 1 :])
        with pytest.raises(UserError):
            read_manifest(path, kind, format, {})
    for place in [place for place, byte in enumerate(content) if byte in b" \n"]:  # where JSON does not mind
        path.write_bytes(content[:place] + b"\t" + content[place + 1 :])
        with pytest.raises(UserError):
            read_manifest(path, kind, format, {})
    path.write_bytes(content)
    assert read_manifest(path, kind, format, {})[kind] == format


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest as if it had always been so: sizes, digests and checksum fit."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["checksum"]
    change(manifest)
    for name in manifest["files"]:
        file = bundle / name
        manifest["files"][name] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    write_manifest(bundle / "manifest.json", manifest)


def honest(manifest: dict[str, Any]) -> None:
    pass


@pytest.fixture
def other_model(tiny_base: str, tmp_path: Path) -> Path:
    """A model of the same shape with other weights."""
    model = TwoTowersModel(ModelConfig(base=tiny_base))
    model.document_tower.table.data = model.document_tower.table.data.flip(1)
    model.save(tmp_path / "other")
    return tmp_path / "other"


def test_the_vectors_must_be_the_models(
    make_bundle: MakeBundle, other_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, stored in (("exact", "fp32"), ("hnsw", "int8"), ("binary", "fp16")):
        bundle = make_bundle(tmp_path / kind, kind, stored)
        Retriever.load(bundle).close()
        shutil.copytree(other_model, bundle / "model", dirs_exist_ok=True)
        assert "was changed" in refusal(capsys, tmp_path, "search", bundle, "river")
        change_manifest(bundle, honest)
        assert "another model" in refusal(capsys, tmp_path, "search", bundle, "river")
        # Whoever made the vectors: some are made again, and differ.
        change_manifest(
            bundle, lambda manifest: manifest.update(vectors_by=sha256_of(other_model / "model.safetensors"))
        )
        assert "another model" in refusal(capsys, tmp_path, "search", bundle, "river")


def test_another_tokenizer_or_size_is_another_model(
    make_bundle: MakeBundle, tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    tokenizer = bundle / "model" / "tokenizer.json"
    definition = json.loads(tokenizer.read_text())
    words = definition["model"]["vocab"]
    words["zebra"], words["stripes"] = words["stripes"], words["zebra"]  # which no document holds
    tokenizer.write_text(json.dumps(definition))
    change_manifest(bundle, honest)
    assert "another model" in refusal(capsys, tmp_path, "search", bundle, "river")
    TwoTowersModel(ModelConfig(base=tiny_base, dim=8)).save(bundle / "model")
    change_manifest(bundle, lambda manifest: manifest.update(vectors_by=sha256_of(bundle / "model/model.safetensors")))
    assert "another model" in refusal(capsys, tmp_path, "search", bundle, "river")


def test_parts_of_two_bundles_are_no_bundle(
    make_bundle: MakeBundle, tiny_model: TwoTowersModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    Retriever.load(bundle).close()
    documents = make_documents((f"other{number}" for number in range(1100)), seed=9)  # as many as the other has
    build(tiny_model, str(write_corpus(tmp_path / "corpus.jsonl", documents)), tmp_path / "second")
    for name in ("words", "words.json"):
        shutil.rmtree(bundle / name) if name == "words" else (bundle / name).unlink()
        (tmp_path / "second" / name).rename(bundle / name)
    assert "; " in refusal(capsys, tmp_path, "search", bundle, "river")


def test_a_newer_format_and_what_is_no_bundle_are_refused(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(sound, bundle)
    for other, what in ((FORMAT + 1, "update two-towers"), (FORMAT - 1, "index the corpus again"), ("x", "update")):
        change_manifest(bundle, lambda manifest, other=other: manifest.update(bundle=other))
        known = f"has format {other!r}, this version reads {FORMAT}; {what}"
        assert known in refusal(capsys, tmp_path, "search", bundle, "x")
    change_manifest(bundle, lambda manifest: manifest.update(bundle=FORMAT, index={**manifest["index"], "kind": "lsh"}))
    assert "'lsh', which is not known; update" in refusal(capsys, tmp_path, "search", bundle, "x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("{}")
    for name in ("nothing", "folder", "file", "a\0b", "x" * 5000, ""):
        said = refusal(capsys, tmp_path, "search", tmp_path / name, "x")
        assert "manifest.json" in said
    (tmp_path / "folder" / "manifest.json").write_text('{"name": 1}')
    assert "is of something else" in refusal(capsys, tmp_path, "search", tmp_path / "folder", "x")
    for content in ("", "[]", "[" * 100_000, "\xff", "{}", '{"bundle": 1}'):
        (tmp_path / "folder" / "manifest.json").write_text(content, encoding="latin-1")
        assert "; " in refusal(capsys, tmp_path, "search", tmp_path / "folder", "x")


def test_a_bundle_moves_as_one_folder(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b c")
    (tmp_path / "link").symlink_to("b c")
    for place in (tmp_path / "b c", tmp_path / "link"):
        retriever = Retriever.load(str(place))
        assert retriever.search("zebra", 1)[0].id == "new"
        assert retriever.add([Document("second", "zebra quagga")]).added + 0 == (place.name != "link")
        retriever.close()


def test_the_manifest_says_what_is_there(sound: Path, tiny_model: TwoTowersModel) -> None:
    retriever = Retriever.load(sound)
    about = retriever.about
    assert about["documents"] == 1100
    assert about["dim"] == 48
    assert about["index"]["kind"] == "pq"
    assert 0.9 < about["index"]["recall@10"] <= 1
    assert about["fields"]["year"] == "number"
    assert about["model"]["id"] == hashlib.sha256((sound / "model/model.safetensors").read_bytes()).hexdigest()
    assert about["model"]["tokenizer"] == hashlib.sha256(tiny_model.tokenizer.definition.encode()).hexdigest()
    sealed = {str(path.relative_to(sound)) for path in sound.rglob("*") if path.is_file()}
    own = {name for name in sealed if name.startswith("words/")} | {"manifest.json", "words.json", "lock"}
    assert about["files"].keys() == sealed - own
    retriever.close()


class Stopping:
    """A model whose encoding of documents is counted, and stopped after so many calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: TwoTowersModel) -> None:
        self.calls, self.stop_after = 0, 10**6
        plain = model.encode_documents

        def counted(texts: list[str]) -> object:
            if self.calls == self.stop_after:
                raise KeyboardInterrupt
            self.calls += 1
            return plain(texts)

        monkeypatch.setattr(model, "encode_documents", counted)


def test_interrupted_indexing_goes_on_where_it_stopped(
    tiny_model: TwoTowersModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "CHUNK", 100)
    stopping = Stopping(monkeypatch, tiny_model)
    corpus, output, work = corpus_of(tmp_path / "corpus.jsonl", 950), tmp_path / "bundle", tmp_path / ".bundle.indexing"
    stopping.stop_after = 4
    with pytest.raises(KeyboardInterrupt):
        build(tiny_model, corpus, output)
    assert not output.exists()
    times = {path: path.stat().st_mtime_ns for path in work.glob("chunks/*.safetensors")}
    assert len(times) == 4
    # A chunk that was damaged meanwhile, one that was cut off, and those of other texts are made again.
    damaged, short, *_ = sorted(times)
    change_a_byte(damaged)
    os.truncate(short, short.stat().st_size - 4)
    stopping.stop_after = 10**6
    stopping.calls = 0
    build(tiny_model, corpus, output)
    assert stopping.calls == 10 - 4 + 2
    assert not work.exists()
    retriever = Retriever.load(output)
    for number in (0, 99, 100, 350, 949):
        assert retriever.search(f"river {number}", 1)[0].id == f"river{number}"
    retriever.close()

    stopping.calls, stopping.stop_after = 0, 4
    with pytest.raises(KeyboardInterrupt):
        build(tiny_model, corpus, output)
    stopping.calls, stopping.stop_after = 0, 10**6
    build(tiny_model, corpus_of(tmp_path / "corpus.jsonl", 950, "castle"), output)
    assert stopping.calls == 10  # of other texts
    assert Retriever.load(output).search("castle 7", 1)[0].id == "castle7"


def test_vectors_of_another_model_are_not_gone_on_with(
    tiny_model: TwoTowersModel, other_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "CHUNK", 100)
    stopping = Stopping(monkeypatch, tiny_model)
    stopping.stop_after = 3
    corpus = corpus_of(tmp_path / "corpus.jsonl", 400)
    with pytest.raises(KeyboardInterrupt):
        build(tiny_model, corpus, tmp_path / "bundle")
    build(TwoTowersModel.load(other_model), corpus, tmp_path / "bundle")
    Retriever.load(tmp_path / "bundle").close()  # which compares vectors with the model


BAD = {
    "twice": '{"_id": "a", "text": "x"}\n{"_id": "b", "text": "x"}\n{"_id": "a", "text": "y"}\n',
    "the same text twice": '{"text": "x"}\n{"text": "x"}\n',
    "no text": '{"_id": "a", "text": "x"}\n{"_id": "b"}\n',
    "broken": '{"_id": "a", "text": "x"}\n{"_id": ',
    "empty": "",
    "two kinds": '{"_id": "a", "text": "x", "year": 1990}\n{"_id": "b", "text": "x", "year": "1990"}\n',
    "no id": '{"_id": "", "text": "x"}\n',
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_corpus_leaves_nothing_behind_and_the_old_bundle_whole(
    case: str, tiny_model: TwoTowersModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model.save(tmp_path / "model")
    (tmp_path / "bad.jsonl").write_text(BAD[case])
    index = ["index", tmp_path / "model", tmp_path / "bad.jsonl", "--output"]
    assert "bad.jsonl" in refusal(capsys, tmp_path, *index, tmp_path / "bundle")
    build(tiny_model, corpus_of(tmp_path / "corpus.jsonl", 20), tmp_path / "bundle")
    assert "bad.jsonl" in refusal(capsys, tmp_path, *index, tmp_path / "bundle")
    Retriever.load(tmp_path / "bundle").close()


def test_an_output_that_is_something_else_is_refused(
    tiny_model: TwoTowersModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model.save(tmp_path / "model")
    corpus = corpus_of(tmp_path / "corpus.jsonl", 20)
    for output, what in (
        (tmp_path / "model", "not a bundle"),
        (corpus, "which is read"),
        (f"{corpus}/x", "cannot write"),
    ):
        assert what in refusal(capsys, tmp_path, "index", tmp_path / "model", corpus, "--output", output)
    (tmp_path / "empty").mkdir()
    for output in (tmp_path / "empty", tmp_path / "deep" / "er", tmp_path / "empty"):
        assert main(["index", str(tmp_path / "model"), corpus, "--output", str(output)]) == 0
        Retriever.load(output).close()
    (tmp_path / "link").symlink_to("empty")
    assert main(["index", str(tmp_path / "model"), corpus, "--output", str(tmp_path / "link")]) == 0
    assert (tmp_path / "link").is_symlink()
    assert "needs 1,000 documents or more" in refusal(
        capsys, tmp_path, "index", tmp_path / "model", corpus, "--output", tmp_path / "empty", "--kind", "pq"
    )


def test_fewer_dimensions_are_the_first_ones_where_the_model_was_trained_so(tiny_base: str, tmp_path: Path) -> None:
    documents = make_documents((f"d{number}" for number in range(300)), seed=2)
    file = str(write_corpus(tmp_path / "corpus.jsonl", documents))
    model = TwoTowersModel(ModelConfig(base=tiny_base))
    whole = model.encode_documents([document.content for document in documents])
    for record, head in (({}, None), ({"config": {"matryoshka": [8]}}, torch.eye(8, 48))):
        model.record = record
        build(model, file, tmp_path / "bundle", dim=8)
        small = Retriever.load(tmp_path / "bundle")
        assert isinstance(small.model, LazyModel)
        found = torch.from_numpy(small.model.encode_documents([document.content for document in documents]))
        weight = small.model.whole.document_head.weight.detach()
        torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=1e-5, rtol=0)
        torch.testing.assert_close(found, F.normalize(whole @ weight.T), atol=1e-5, rtol=0)
        if head is not None:
            assert torch.equal(weight, head)
        else:  # no eight directions hold more of the vectors
            assert (whole @ weight.T).square().sum() == pytest.approx(
                float(torch.linalg.svdvals(whole)[:8].square().sum()), rel=1e-4
            )
        hit = small.search(documents[7].content, k=1, method="dense")[0]
        assert small.explain(documents[7].content, hit.id).score == pytest.approx(hit.score, abs=1e-5)
        small.close()
