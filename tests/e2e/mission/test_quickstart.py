import json
import shutil
from pathlib import Path

import pytest

from freemvmt.cli import main
from freemvmt.cli.quickstart import QUESTIONS
from freemvmt.model import TwoTowersModel
from freemvmt.search.retriever import Retriever

DOCS = Path(__file__).parents[3] / "docs"


def test_quickstart_goes_the_whole_way_on_docs_found_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "models" / "pydocs"
    assert main(["quickstart", "--output", str(output), "--max-samples", "6000", "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert set(found["results"]) == {"BM25", "untrained", "trained", "hybrid"}
    scores = {name: result["ndcg@10"] for name, result in found["results"].items()}
    assert scores["trained"] > scores["untrained"] + 0.05
    assert scores["hybrid"] > scores["trained"]
    assert all(result["protocol"].startswith("full corpus") for result in found["results"].values())
    assert set(found["searches"]) == set(QUESTIONS)
    assert all(len(hits) == 3 for hits in found["searches"].values())
    assert TwoTowersModel.load(output).record["data"] == "pydocs"
    for line in ("reading ", "training ", "BM25 ", "saved ", "next ", "two-towers quickstart --heavy"):
        assert line in told.err


def test_heavy_documents_are_encoded_by_a_transformer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "heavy"
    assert main(["quickstart", "--heavy", "--output", str(output), "--max-samples", "250", "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    scores = {name: result["ndcg@10"] for name, result in found["results"].items()}
    assert scores["trained"] > scores["untrained"]
    config = TwoTowersModel.load(output).config
    assert (config.kind_of("query"), config.kind_of("document")) == ("average", "transformer")
    assert all(len(hits) == 3 for hits in found["searches"].values())
    for line in ("heavy     a transformer encodes 250 passages: about 1 min", "% of the transformer on both sides"):
        assert line in told.err
    assert f"two-towers index {output} pydocs --output bundles/heavy" in told.err
    assert "quickstart --heavy" not in told.err


def test_a_folder_is_learned_from_measured_and_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    notes = tmp_path / "my notes"
    shutil.copytree(DOCS / "how-to", notes / "how-to")
    assert main(["quickstart", "my notes", "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["bundle"] == "bundles/my notes"
    assert set(found["results"]) == {"BM25", "untrained", "trained", "hybrid"}
    assert all(result["protocol"].startswith("full corpus") for result in found["results"].values())
    retriever = Retriever.load(tmp_path / "bundles" / "my notes")
    assert len(retriever) == len(list(notes.rglob("*.md")))
    assert all(retriever.get(hit["id"]) for hits in found["searches"].values() for hit in hits)
    assert len(found["searches"]) == 3
    for line in (
        "held out",
        "documents longer than 256 tokens",
        "two-towers serve 'bundles/my notes' --sync",
        "--heavy",
    ):
        assert line in told.err
    assert "main.py" not in told.err
    assert main(["sync", "bundles/my notes"]) == 0


def test_a_folder_with_little_text_is_indexed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "one.md").write_text("# One\n\nToo short.\n")
    assert main(["quickstart", "notes"]) == 0
    assert "too little text to learn from" in capsys.readouterr().out
    assert len(Retriever.load(tmp_path / "bundles" / "notes")) == 1
