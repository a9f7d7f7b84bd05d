"""What `export --format site` writes, and what it refuses; what the page does with it is in test_site.py."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.data.documents import Document
from freemvmt.export.site.postings import norms_of
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.retriever import Retriever

from page_site import documents_of, unpacked
from refusals import refusal


def test_what_was_added_and_deleted_since_counts(site_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(site_bundle, tmp_path / "bundle")
    retriever = Retriever.load(tmp_path / "bundle")
    gone = documents_of(retriever)[0].id
    retriever.delete([gone])
    retriever.add([Document("new", "something of its own")])
    retriever.close()
    assert main(["export", str(tmp_path / "bundle"), "--format", "site", "--output", str(tmp_path / "site")]) == 0
    names = json.loads(unpacked(tmp_path / "site", "ids"))
    assert gone not in names
    assert names[-1] == "new"


def test_the_most_dimensions_that_fit_are_taken(
    site_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(site_bundle), "--format", "site", "--json"]
    assert main([*command, "--output", str(tmp_path / "whole")]) == 0
    whole = json.loads(capsys.readouterr().out)
    room = f"{whole['bytes'] / 1e6 - 0.1:.2f}"
    assert main([*command, "--output", str(tmp_path / "cut"), "--max-mb", room]) == 0
    cut = json.loads(capsys.readouterr().out)
    assert (whole["dim"], cut["dim"]) == (48, 32)
    assert cut["bytes"] <= float(room) * 1e6
    size = sum(file.stat().st_size for file in (tmp_path / "cut").rglob("*") if file.is_file())
    assert cut["bytes"] == size
    assert 0 < cut["recall@10"] <= whole["recall@10"] <= 1


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--max-mb", "0.5"], r"more than --max-mb 0.5; give --max-mb \d"),
        (["--max-mb", "0"], "--max-mb is 0; give more than 0"),
        (["--max-mb", "nan"], "--max-mb is nan; give more"),
        (["--dim", "49"], "have 48; give 1 to that many"),
        (["--dim", "0"], "have 48; give 1 to that many"),
        (["--precision", "int8"], "--precision is for --format onnx"),
        (["--onnx-web", "."], "--onnx-web is for recurrent towers"),
        (["--url", "javascript:{id}"], "is neither http, https nor relative"),
        (
            ["--url", "https://x.org/{path}"],
            "names {path}, which no document has; give anchor, id, page, source, title",
        ),
        (["--url", ""], "is no template of an address"),
    ],
)
def test_what_cannot_be_is_one_line(
    flags: list[str], reason: str, site_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, tmp_path, "export", site_bundle, "--format", "site", "--output", tmp_path / "site", *flags)
    assert re.search(reason, line)


def test_other_formats_and_other_folders_are_refused(
    site_bundle: Path, tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "untrained", "--format", "onnx", "--output", tmp_path / "site", "--dim", "8"]
    assert "--dim is for --format site" in refusal(capsys, tmp_path, *command)
    TwoTowersModel(ModelConfig(base=tiny_base)).save(tmp_path / "model")
    command = ["export", tmp_path / "model", "--format", "site", "--output", tmp_path / "site"]
    assert "; " in refusal(capsys, tmp_path, *command)
    command = ["export", site_bundle, "--format", "site", "--output", tmp_path]
    assert "is there already" in refusal(capsys, tmp_path, *command)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1}, "unk_token": "[UNK]"}}, "WordLevel"),
        ({"normalizer": None}, "only BERT's WordPiece"),
    ],
)
def test_a_tokenizer_that_a_page_cannot_follow_is_refused(
    change: dict[str, Any], reason: str, tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    definition = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    (base / "tokenizer.json").write_text(json.dumps({**definition, **change}), encoding="utf-8")
    (tmp_path / "corpus.jsonl").write_text('{"id": "1", "text": "a"}\n', encoding="utf-8")
    build(TwoTowersModel(ModelConfig(base=str(base))), str(tmp_path / "corpus.jsonl"), tmp_path / "bundle")
    command = ["export", tmp_path / "bundle", "--format", "site", "--output", tmp_path / "host" / "site"]
    assert reason in refusal(capsys, tmp_path / "host", *command)


def test_a_folder_without_the_runtime_is_refused(
    tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_base, tower="recurrent", hidden=4))
    (tmp_path / "corpus.jsonl").write_text('{"id": "1", "text": "a river"}\n', encoding="utf-8")
    build(model, str(tmp_path / "corpus.jsonl"), tmp_path / "bundle")
    command = ["export", tmp_path / "bundle", "--format", "site", "--output", tmp_path / "host" / "site"]
    line = refusal(capsys, tmp_path / "host", *command, "--onnx-web", tmp_path)
    assert "give the folder dist of the npm package onnxruntime-web" in line


@pytest.mark.parametrize("documents", ["transformer", "average"])
def test_a_transformer_of_queries_is_refused(
    documents: Any, tiny_encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_encoder, tower="transformer", document_tower=documents))
    (tmp_path / "corpus.jsonl").write_text('{"id": "1", "text": "a river"}\n', encoding="utf-8")
    build(model, str(tmp_path / "corpus.jsonl"), tmp_path / "bundle")
    command = ["export", tmp_path / "bundle", "--format", "site", "--output", tmp_path / "host" / "site"]
    assert "a transformer cannot encode queries in a page" in refusal(capsys, tmp_path / "host", *command)


def test_of_a_transformers_bundle_what_it_has_is_taken_and_the_heavy_tower_is_not_read(
    tiny_encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the dimensions were cut, and are cut again, and a document was added since."""
    config = ModelConfig(base=tiny_encoder, query_tower="average", document_tower="transformer")
    (tmp_path / "corpus.jsonl").write_text(
        "".join(f'{{"id": "{word}", "text": "a {word}"}}\n' for word in ("river", "tower", "winter")), encoding="utf-8"
    )
    build(TwoTowersModel(config), str(tmp_path / "corpus.jsonl"), tmp_path / "bundle", dim=16)
    retriever = Retriever.load(tmp_path / "bundle")
    retriever.add([Document("new", "a piano")])
    retriever.close()
    monkeypatch.setattr(TwoTowersModel, "load", lambda *_: pytest.fail("the heavy tower was read"))
    command = ["export", str(tmp_path / "bundle"), "--format", "site", "--output", str(tmp_path / "site")]
    assert main([*command, "--dim", "8"]) == 0
    assert json.loads(unpacked(tmp_path / "site", "ids")) == ["river", "tower", "winter", "new"]
    assert json.loads((tmp_path / "site" / "manifest.json").read_text())["weight"] == 0.6


def test_lengths_are_kept_in_a_byte_as_tantivy_does() -> None:
    kept = norms_of([0, 1, 39, 40, 41, 42, 55, 56, 59, 60, 151, 152, 2_000_000_000])
    assert kept.tolist()[:12] == [0, 1, 39, 40, 40, 41, 47, 48, 48, 49, 63, 64]
    assert kept[-1] <= 255
