"""A model goes to a Hub on loopback by the real client, and comes back from there: newest, by revision, offline."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from freemvmt import cli
from freemvmt.config import ModelConfig, TrainConfig
from freemvmt.errors import UserError
from freemvmt.export.hub import card_for
from freemvmt.model import TwoTowersModel
from freemvmt.training import train_and_save

from loopback_hub import LoopbackHub, client_environment

TEXTS = ["a tall building", "water that falls"]
_LOAD = f"""
import json, sys
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
for revision in json.loads(sys.argv[2]):
    try:
        model = TwoTowersModel.load(sys.argv[1], revision=revision)
        print(json.dumps(model.encode_queries({TEXTS!r}).tolist()))
    except UserError as error:
        print(json.dumps(str(error)))
"""

_PUSHES = """
import json, sys
from freemvmt import cli
sys.exit(max(cli.main(["push", *words]) for words in json.loads(sys.argv[1])))
"""

_REFUSED = """
import os, sys
from freemvmt import cli
for os.environ["HF_TOKEN"] in ("wrong", ""):
    print(cli.main(["push", sys.argv[1], "a/b"]))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, rows_file: str, tiny_base: str) -> Path:
    output = tmp_path_factory.mktemp("trained") / "towers"
    plain = TrainConfig(dataset=(rows_file,), base=tiny_base, epochs=1, batch_size=64, wandb=False, output=str(output))
    train_and_save(plain)
    return output


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as server:
        server.may_write.add("secret")
        yield server


def command(hub: LoopbackHub, home: Path, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """A process with clients of its own; it may write, and sends files as any Hub takes them."""
    environment = client_environment(home, hub.url, HF_TOKEN="secret", HF_HUB_DISABLE_XET="1") | more
    environment.pop("HF_HUB_OFFLINE", None)
    theirs = "ignore:Use 'content=:DeprecationWarning"  # of httpx, to huggingface_hub, which sends large files so
    run = [sys.executable, "-W", "error", "-W", theirs, *words]
    return subprocess.run(run, capture_output=True, text=True, env=environment, timeout=120, check=False)


def push(hub: LoopbackHub, home: Path, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return command(hub, home, "-m", "freemvmt", "push", *words, **more)


def push_all(hub: LoopbackHub, home: Path, *pushes: list[str]) -> "subprocess.CompletedProcess[str]":
    """Several, one after the other, by a process that imports everything once."""
    return command(hub, home, "-c", _PUSHES, json.dumps(pushes))


def loaded(hub: LoopbackHub, home: Path, name: str, *revisions: str | None) -> list[Any]:
    """For each revision the vectors of TEXTS by the model, or the error."""
    done = command(hub, home, "-c", _LOAD, name, json.dumps(revisions))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def same(found: list[list[float]], model: TwoTowersModel) -> bool:
    return bool(torch.allclose(torch.tensor(found), model.encode_queries(TEXTS), atol=1e-6))


def test_a_model_goes_to_the_hub_and_comes_back(
    trained: Path, hub: LoopbackHub, tmp_path: Path, rows_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(trained), rows_file, "--json"]) == 0
    scores = capsys.readouterr().out
    (tmp_path / "scores.json").write_text(scores)
    flags = ["--private", "--license", "apache-2.0", "--scores", str(tmp_path / "scores.json"), "--json"]
    done = push(hub, tmp_path, str(trained), "someone/towers", *flags)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["url"] == f"{hub.url}/someone/towers"
    assert done.stderr == f"pushed    {told['url']}\n"
    assert hub.is_private("someone/towers")
    there = hub.files("someone/towers")
    names = {"model.safetensors", "tokenizer.json", "config.json", "accumulators.safetensors", "metrics.jsonl"}
    assert names | {"curves.png", "README.md", ".gitattributes"} == set(there)
    assert all(there[name] == (trained / name).read_bytes() for name in names)

    (tmp_path / "card.md").write_bytes(there["README.md"])
    card = ModelCard.load(tmp_path / "card.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "two-towers"
    assert 'TwoTowersModel.load("someone/towers")' in card.text
    assert card.data.model_name == "someone/towers"
    record, measured = json.loads((trained / "config.json").read_text())["training"], json.loads(scores)
    held_out, *others = card.data.eval_results
    assert held_out.metric_value == record["scores"]["ndcg@10"]
    assert held_out.metric_args["protocol"] == record["validation"]["protocol"]
    low, high = held_out.metric_args["interval_95"]
    assert low <= held_out.metric_value <= high
    assert {one.metric_type: one.metric_value for one in others} == {
        name.replace("@", "_at_"): measured[name] for name in ("ndcg@10", "mrr@10", "recall@100", "recall@1000")
    }

    own = TwoTowersModel.load(trained)
    assert same(*loaded(hub, tmp_path / "other", "someone/towers", None), own)
    hub.status = 503
    assert same(*loaded(hub, tmp_path / "other", "someone/towers", None), own)  # from the cache


def test_two_kinds_go_with_a_file_each_and_say_what_they_keep(
    trained: Path, hub: LoopbackHub, tmp_path: Path, rows_file: str, tiny_encoder: str
) -> None:
    mixed = TrainConfig(
        dataset=(rows_file,), base=tiny_encoder, query_tower="average", document_tower="transformer", loss="align",
        epochs=1, batch_size=64, wandb=False, max_samples=200, output=str(tmp_path / "mixed"),
    )  # fmt: skip
    train_and_save(mixed)
    scores = json.loads((tmp_path / "mixed" / "config.json").read_text())["training"]["scores"]
    done = push_all(hub, tmp_path, [str(trained), "someone/towers"], [str(tmp_path / "mixed"), "someone/towers"])
    assert done.returncode == 0, done.stderr
    there = hub.files("someone/towers")
    weights = {"query.safetensors", "document.safetensors", "accumulators.safetensors"}
    assert {name for name in there if name.endswith(".safetensors")} == weights  # the one file of before is gone
    assert all(there[name] == (tmp_path / "mixed" / name).read_bytes() for name in weights)
    card = there["README.md"].decode()
    assert f"the query tower the average of tokens, each encoded by `{tiny_encoder}`" in card
    assert "each the average of token vectors from `" in (trained / "README.md").read_text()
    assert f"the document tower the whole transformer `{tiny_encoder}`" in card
    assert f"| {scores['frozen_ndcg@10']:.4f} (kept: {scores['retention']:.1%}) |" in card
    assert same(*loaded(hub, tmp_path / "other", "someone/towers", None), TwoTowersModel.load(tmp_path / "mixed"))


def test_a_pull_request_changes_nothing_and_a_revision_is_read(
    trained: Path, hub: LoopbackHub, tmp_path: Path, tiny_base: str
) -> None:
    other = TwoTowersModel(ModelConfig(base=tiny_base))
    other.save(tmp_path / "other")
    proposal = [str(tmp_path / "other"), "someone/towers", "--pull-request", "--json"]
    done = push_all(hub, tmp_path, [str(trained), "someone/towers"], proposal)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["url"] == f"{hub.url}/someone/towers/discussions/1"
    assert not hub.is_private("someone/towers")
    before = hub.files("someone/towers")
    assert all(before[file.name] == file.read_bytes() for file in trained.iterdir() if file.name != "README.md")
    proposed = hub.files("someone/towers", "refs/pr/1")
    assert set(before) - set(proposed) == {
        "accumulators.safetensors",
        "metrics.jsonl",
        "curves.png",
    }  # of another model
    revisions = ("refs/pr/1", told["commit"], None, "v9")
    by_name, by_commit, newest, absent = loaded(hub, tmp_path, "someone/towers", *revisions)
    assert same(by_name, other)
    assert same(by_commit, other)
    assert same(newest, TwoTowersModel.load(trained))
    assert "someone/towers on the Hub has no such revision; give one of its branches" in absent
    with pytest.raises(UserError, match="is a folder, which has no revision v1"):
        TwoTowersModel.load(trained, revision="v1")


def test_what_cannot_be_pushed_is_one_line(
    trained: Path, hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(trained)
    (tmp_path / "scores.json").write_text('{"ndcg@10": 1}')
    (tmp_path / "damaged").mkdir()
    for file in trained.iterdir():
        (tmp_path / "damaged" / file.name).write_bytes(file.read_bytes()[:-1])
    cases = {
        "error: 'towers' is no name for a model on the Hub; give owner/name": [folder, "towers"],
        "error: 'a/../b' is no name for a model": [folder, "a/../b"],
        "config.json cannot be read": [str(tmp_path / "none"), "someone/towers"],
        "save the model again": [str(tmp_path / "damaged"), "someone/towers"],
        "scores.json does not hold scores": [folder, "a/b", "--scores", str(tmp_path / "scores.json")],
    }
    for said, words in cases.items():
        assert cli.main(["push", *words]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert said in lines[0]

    done = command(hub, tmp_path, "-c", _REFUSED, folder)
    assert hub.requests == ["HEAD /", "POST /api/repos/create", "GET /api/models/a/b"]
    wrong, none, *more = done.stderr.splitlines()
    assert "the Hub does not let this token write to a/b (403); log in" in wrong
    assert "there is no token to write to the Hub with; log in (hf auth login)" in none
    assert more == []
    assert done.stdout.split() == ["2", "2"]
    hub.status = 503
    done = push(hub, tmp_path, folder, "a/b")
    assert done.returncode == 2
    assert done.stderr == "error: the Hugging Face Hub cannot be reached; go online and push again\n"


def test_a_card_keeps_the_words_and_the_front_matter_that_its_owner_gave_it(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "towers"
    TwoTowersModel.load(trained).save(folder, card="---\nlicense: mit\ntags: [mine]\n---\n\n# Mine\n")
    description = json.loads((folder / "config.json").read_text())
    card = ModelCard(card_for(folder, description, "someone/towers", language="de"))
    assert card.text.strip() == "# Mine"
    assert (card.data.license, card.data.tags, card.data.language) == ("mit", ["mine"], "de")
    assert card.data.pipeline_tag == "sentence-similarity"
    (folder / "README.md").write_text("---\n: [\n---\n# Mine\n")
    with pytest.raises(UserError, match=r"front matter of .* cannot be read"):
        card_for(folder, description, "someone/towers")
    (folder / "README.md").write_text("# Mine, with no front matter\n")
    assert ModelCard(card_for(folder, description, "a/b", license="mit")).data.license == "mit"
