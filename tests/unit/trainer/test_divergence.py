"""A loss that stops being a number: exit code 2, the step is named, and what was good before it is kept."""

import json
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from freemvmt.cli import main
from freemvmt.config import DataConfig
from freemvmt.data.load import load_collection
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.evaluation.metrics import evaluate
from freemvmt.model import TwoTowersModel
from freemvmt.search.retriever import Retriever

from refusals import refusal
from rows import make_rows, write_rows


def train(base: object, data: object, output: object, *more: object) -> list[object]:
    return ["train", "--no-wandb", "--base", base, "--dataset", data, "--output", output, *more]


def poisoned(base: str, folder: Path, value: float) -> Path:
    """``base`` with ``value`` in the row of the token "zebra"."""
    (folder / "tokenizer.json").write_bytes((Path(base) / "tokenizer.json").read_bytes())
    zebra = Tokenizer.from_file(folder / "tokenizer.json", 8).encode(["zebra"]).ids
    ((name, table),) = load_file(Path(base) / "model.safetensors").items()
    table[int(zebra[0])] = value
    save_file({name: table}, folder / "model.safetensors")
    return folder


def test_a_base_that_holds_no_numbers_is_refused(
    tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = poisoned(tiny_base, tmp_path, float("inf"))
    lines = "".join(f"zebra {number}\tpassage {number}\n" for number in range(40))
    (tmp_path / "pairs.tsv").write_text(lines)
    said = refusal(capsys, tmp_path, *train(base, tmp_path / "pairs.tsv", tmp_path / "model"))
    assert "not finite; give another --base" in said


@pytest.mark.parametrize("flags", [[], ["--dim", 8], ["--loss", "infonce"], ["--separate-towers"]], ids=str)
def test_a_vast_rate_is_refused_at_the_step_where_it_shows(
    tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[object]
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", 40)
    rate = ["--learning-rate", 1e30, "--batch-size", 12]
    said = refusal(capsys, tmp_path, *train(tiny_base, data, tmp_path / "model", *rate, *flags))
    assert re.search(r"the loss is not a number at step [23], in the first epoch; lower --learning-rate", said)


def test_one_step_that_ruins_the_weights_is_refused(
    tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", 40)
    flags = ["--learning-rate", 1e30, "--table-rate-factor", 1e20, "--batch-size", 36, "--epochs", 1]
    assert "--learning-rate" in refusal(capsys, tmp_path, *train(tiny_base, data, tmp_path / "model", *flags))


def test_the_best_epoch_before_it_is_saved(tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tmp_path / "base"
    base.mkdir()
    poisoned(tiny_base, base, 3e38)  # twice that is no float32, so a text of two zebras has no vector
    data = tmp_path / "data"
    data.mkdir()
    write_rows(data / "validation.jsonl", 30, seed=1)
    rows = make_rows(60)
    passages = rows[0]["passages"]  # one of its forty negatives will be drawn some day
    passages["passage_text"] += [f"harmless {number}" for number in range(37)] + ["zebra zebra"]
    passages["is_selected"] += [0] * 38
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "model"
    flags = ["--negatives", "given", "--idf-scale", 0, "--batch-size", 60, "--epochs", 600]

    assert main([str(argument) for argument in train(base, data, output, *flags)]) == 2
    *_, said = capsys.readouterr().err.splitlines()
    found = re.fullmatch(
        r"error: the loss is not a number at step (\d+); .*; the model of epoch (\d+) is saved in (.*)", said
    )
    assert found
    assert 1 <= int(found[2]) < int(found[1])  # an epoch is a step here
    assert found[3] == str(output)

    model = TwoTowersModel.load(output)
    assert model.record["ended"] == "diverged"
    assert model.record["scores"]["best_epoch"] == int(found[2])
    collection = load_collection(str(data), "validation", DataConfig())
    result, _ = evaluate(Retriever(model, collection.documents, collection.document_ids), collection)
    assert result.metrics["ndcg@10"] == pytest.approx(model.record["scores"]["ndcg@10"], abs=1e-6)
    assert result.metrics["ndcg@10"] > model.record["scores"]["untrained_ndcg@10"] + 0.1
