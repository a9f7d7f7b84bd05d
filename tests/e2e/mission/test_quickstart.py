import json
from pathlib import Path

import pytest

from freemvmt.cli import main
from freemvmt.cli.quickstart import QUESTIONS
from freemvmt.model import TwoTowersModel


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
