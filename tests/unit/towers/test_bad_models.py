"""Wrong models, collections, runs and output folders: exit code 2, one line, and nothing is touched."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.storage.manifest import write_manifest

from beir_folder import write_beir
from refusals import contents, refusal
from resealing import resealed
from rows import write_rows

JUDGED = [f"q{number} d{number} 1" for number in range(8)]


@pytest.fixture(scope="module")
def model(tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    TwoTowersModel(ModelConfig(base=tiny_base, dim=8)).save(folder)
    return folder


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_beir(tmp_path_factory.mktemp("collections") / "towers", test=JUDGED)


def described(**changes: Any) -> Callable[[Path], None]:
    """config.json with other values; of ``model`` where its values are given as ``model_...``."""

    def damage(folder: Path) -> None:
        path = folder / "config.json"
        description = json.loads(path.read_text())
        for name, value in changes.items():
            place = description["model"] if name.startswith("model_") else description
            place[name.removeprefix("model_")] = value
        path.write_text(json.dumps(description))

    return damage


def weighed(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    """model.safetensors with other tensors."""

    def damage(folder: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
        save_file({name: tensor.contiguous() for name, tensor in change(tensors).items()}, folder / "model.safetensors")

    return damage


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size]) and None


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


DAMAGES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "flipped byte": (written("config.json", b'y\n "two_towers": 1}'), ["config.json cannot be read"]),
    "binary config": (written("config.json", b"\xff\xfe"), ["config.json cannot be read"]),
    "nested config": (written("config.json", b"[" * 100_000), ["config.json cannot be read"]),
    "config of nobody": (written("config.json", b'{"model": "bert"}'), ["config.json is not a two-towers model's"]),
    "config of another": (
        written("config.json", b'{"model_type": "bert"}'),
        ["holds no token table"],
    ),
    "list as config": (written("config.json", b"[]"), ["config.json is not a two-towers model's"]),
    "newer format": (described(two_towers=4), ["config.json has format 4, this version reads 3; update two-towers"]),
    "older format with sums": (described(two_towers=1), ["config.json has format 1, this version reads 3"]),
    "no model": (described(model=None), ["config.json does not describe a model"]),
    "unknown setting": (described(model_speed=3), ["config.json does not describe a model", "speed"]),
    "unknown tower": (described(model_tower="eiffel"), ["does not describe a model (tower is 'eiffel')"]),
    "no length": (described(model_max_length=0), ["does not describe a model", "max-length is 0"]),
    "length in words": (described(model_max_length="256"), ["does not describe a model"]),
    "fraction": (described(model_max_length=25.6), ["does not describe a model (max_length is 25.6)"]),
    "record is a list": (described(training=[]), ["does not describe a model"]),
    "no config": (without("config.json"), ["no config.json in"]),
    "no tokenizer": (without("tokenizer.json"), ["no tokenizer.json in"]),
    "no weights": (without("model.safetensors"), ["does not say what model.safetensors was"]),
    "cut tokenizer": (cut("tokenizer.json", 9999), ["tokenizer.json cannot be read"]),
    "binary tokenizer": (written("tokenizer.json", b"\xff"), ["tokenizer.json cannot be read"]),
    "cut weights": (cut("model.safetensors", 99_999), ["model.safetensors is damaged"]),
    "cut header": (cut("model.safetensors", 20), ["model.safetensors is damaged"]),
    "empty weights": (cut("model.safetensors", 0), ["model.safetensors is damaged"]),
    "other dim": (described(model_dim=9), ["the weights do not fit config.json and tokenizer.json"]),
    "two tables wanted": (described(model_separate_towers=True), ["the weights do not fit"]),
    "recurrence wanted": (described(model_tower="recurrent"), ["the weights do not fit"]),
    "a tower of layers": (described(model_tower="recurrent", model_layers=10**9), ["--layers is 1000000000; give 16"]),
    "no table": (weighed(lambda t: {"document.head": t["document.head"]}), ["the weights do not fit"]),
    "short table": (weighed(lambda t: t | {"document.table": t["document.table"][:99]}), ["the weights do not fit"]),
    "flat table": (weighed(lambda t: t | {"document.table": t["document.table"][:, 0]}), ["the weights do not fit"]),
    "one tensor more": (weighed(lambda t: t | {"more": torch.zeros(1)}), ["the weights do not fit"]),
    "half numbers": (weighed(lambda t: {n: x.half() for n, x in t.items()}), ["the weights do not fit"]),
    "not a number": (weighed(lambda t: t | {"document.head": t["document.head"] / 0}), ["not finite"]),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_model_is_refused(
    case: str, model: Path, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, parts = DAMAGES[case]
    folder = shutil.copytree(model, tmp_path / "model")
    damage(folder)
    said = refusal(capsys, tmp_path, "evaluate", folder, collection, "--run", tmp_path / "run.txt")
    assert str(folder) in said
    resealed(folder)
    said = refusal(capsys, tmp_path, "evaluate", folder, collection, "--run", tmp_path / "run.txt")
    assert str(folder) in said
    assert [part for part in parts if part not in said] == []


@pytest.mark.parametrize(
    "sums", [None, [], {}, {"model.safetensors": 3}, {"model.safetensors": {"bytes": "1", "sha256": 0}}], ids=repr
)
def test_sums_that_are_none_are_refused(
    sums: object, model: Path, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    description = json.loads((folder / "config.json").read_text())
    del description["checksum"]
    write_manifest(folder / "config.json", {**description, "files": sums})
    said = refusal(capsys, tmp_path, "evaluate", folder, collection)
    assert "does not say what model.safetensors was" in said


def test_a_model_from_before_there_were_sums_is_refused(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    description = json.loads((folder / "config.json").read_text())
    older = {"two_towers": 1, "model": description["model"], "training": description["training"]}
    (folder / "config.json").write_text(json.dumps(older, indent=2))
    with pytest.raises(UserError, match=r"config\.json has format 1, this version reads 3; train it again$"):
        TwoTowersModel.load(folder)


def test_any_flipped_byte_of_a_model_is_refused(packaged: Path, tmp_path: Path) -> None:
    definition = json.loads((packaged / "tokenizer.json").read_text(encoding="utf-8"))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "tower", "##s", "tall"]
    definition["model"]["vocab"] = {word: number for number, word in enumerate(words)}
    for token in definition["added_tokens"]:
        token["id"] = words.index(token["content"])
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tokenizer.json").write_text(json.dumps(definition))
    save_file({"word_embeddings.weight": torch.randn(len(words), 6)}, tmp_path / "base" / "model.safetensors")
    folder, draw = tmp_path / "model", random.Random(0)
    TwoTowersModel(ModelConfig(base=str(tmp_path / "base"), dim=4, separate_towers=True)).save(folder)
    for name in ("config.json", "tokenizer.json", "document.safetensors", "query.safetensors"):
        sound = (folder / name).read_bytes()
        for _ in range(200):
            place = draw.randrange(min(len(sound), 2000))
            other = (sound[place] + draw.randrange(1, 256)) % 256
            (folder / name).write_bytes(sound[:place] + bytes([other]) + sound[place + 1 :])
            with pytest.raises(UserError, match=f"{folder}/{name}"):
                TwoTowersModel.load(folder)
        (folder / name).write_bytes(sound)


RUN = "q1 Q0 d1 1 0.5 mine\n"
RUNS: dict[str, tuple[bytes, list[str]]] = {
    "five fields": (b"q1 Q0 d1 1 0.5\n", ["line 1: 5 fields, not the 6 of a TREC run"]),
    "unknown document": (RUN.encode() + b"q2 Q0 x9 1 0.5 mine\n", ["line 2: towers has no document x9"]),
    "score in words": (b"q1 Q0 d1 1 good mine\n", ["line 1: the score 'good' is not a finite number"]),
    "score not a number": (b"q1 Q0 d1 1 nan mine\n", ["line 1: the score 'nan' is not a finite number"]),
    "endless score": (b"q1 Q0 d1 1 1e999 mine\n", ["line 1: the score '1e999' is not a finite number"]),
    "unknown queries": (b"x Q0 d1 1 0.5 mine\n", ["holds no query of towers"]),
    "latin": (RUN.encode() + b"caf\xe9 Q0 d1 1 0.5 mine\n", ["line 2: byte 4 is not UTF-8"]),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_bad_run_is_refused(case: str, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, parts = RUNS[case]
    path = tmp_path / "run.txt"
    path.write_bytes(content)
    said = refusal(capsys, tmp_path, "compare", path, "bm25", collection)
    assert str(path) in said
    assert [part for part in parts if part not in said] == []


def test_a_run_of_another_collection_is_refused(
    model: Path, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 20)
    assert main(["evaluate", str(model), str(rows), "--run", str(tmp_path / "run.txt")]) == 0
    said = refusal(capsys, tmp_path, "compare", tmp_path / "run.txt", model, collection)
    assert "run.txt, line 1: towers has no document" in said
    assert "compare runs of one collection" in said


EVALUATIONS: dict[str, tuple[list[str], list[str]]] = {
    "missing split": (["--split", "dev"], ["dev.tsv (splits found: test)", "--split"]),
    "weight above 1": (["--weight", "1.01", "--method", "hybrid"], ["the weight is 1.01", "between 0 and 1"]),
    "weight below 0": (["--weight", "-0.5", "--method", "hybrid"], ["the weight is -0.5", "between 0 and 1"]),
    "no weight": (["--weight", "nan", "--method", "hybrid"], ["the weight is nan"]),
    "no pools": (["--protocol", "pool"], ["towers has no pools of passages", "--protocol full"]),
    "unknown protocol": (["--protocol", "none"], ["--protocol", "none", "'full', 'pool'"]),
    "unknown method": (["--method", "magic"], ["--method", "magic", "'dense', 'bm25', 'hybrid'"]),
}


@pytest.mark.parametrize("case", EVALUATIONS)
def test_a_bad_way_to_measure_is_refused(
    case: str, model: Path, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, parts = EVALUATIONS[case]
    said = refusal(capsys, tmp_path, "evaluate", model, collection, *flags, "--run", tmp_path / "run.txt")
    assert [part for part in parts if part not in said] == []


def test_a_run_has_no_pools_either(collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.txt").write_text(RUN)
    said = refusal(capsys, tmp_path, "compare", tmp_path / "run.txt", "bm25", collection, "--protocol", "pool")
    assert "towers has no pools of passages" in said


@pytest.mark.parametrize(
    "name", ["nowhere", "no/where/near", "a b", "", "x" * 9999], ids=["name", "path", "words", "empty", "long"]
)
def test_a_model_or_a_collection_that_is_not_there_is_refused(
    name: str, model: Path, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert name[:20] in refusal(capsys, tmp_path, "evaluate", name, collection)
    said = refusal(capsys, tmp_path, "compare", model, name, collection)
    assert "folder" in said
    assert len(said) < 500
    if name:
        said = refusal(capsys, tmp_path, "evaluate", model, name)
        assert f"no data set or path '{name[:20]}" in said
        assert len(said) < 500


def taken(folder: Path) -> Path:
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.tex").write_text("years of work")
    return folder / "thesis"


def damaged(folder: Path) -> Path:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"two_towers": 1')
    return folder / "model"


def file(folder: Path) -> Path:
    (folder / "file").write_text("a file")
    return folder / "file"


OUTPUTS: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "something else": (taken, ["thesis holds something that is not a model of ours", "--output"]),
    "damaged model": (damaged, ["model holds something that is not a model of ours"]),
    "a file": (file, ["file is a file; name another folder with --output"]),
    "under a file": (lambda folder: file(folder) / "model", ["file/model", "is a file, not a folder"]),
    "deep under a file": (lambda folder: file(folder) / "a" / "b" / "model", ["is a file, not a folder"]),
    "too long": (lambda folder: folder / ("x" * 300), ["that name is too long; give a shorter one"]),
    "nearly too long": (lambda folder: folder / ("x" * 250), ["that name is too long; give a shorter one"]),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_a_bad_output_folder_is_refused_before_anything_is_read(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, parts = OUTPUTS[case]
    said = refusal(capsys, tmp_path, "train", "--no-wandb", "--dataset", "no data", "--output", make(tmp_path))
    assert [part for part in parts if part not in said] == []


@pytest.mark.parametrize(
    ("name", "part"),
    [("", "that is a folder"), ("file/run.txt", "is a file, not a folder"), ("x" * 300, "that name is too long")],
    ids=["folder", "under a file", "too long"],
)
def test_a_run_file_that_cannot_be_written_is_refused(
    name: str, part: str, model: Path, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file(tmp_path)
    assert part in refusal(capsys, tmp_path, "evaluate", model, collection, "--run", tmp_path / name)


def test_a_model_trained_on_a_path_that_is_no_text_can_be_loaded(
    tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write_rows(tmp_path / "caf\udce9 :key:.jsonl", 40))
    output = str(tmp_path / "model")
    arguments = ["train", "--no-wandb", "--json", "--epochs", "1", "--base", tiny_base]
    assert main([*arguments, "--output", output, "--dataset", data]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == data
    assert TwoTowersModel.load(output).record["data"] == data
    assert {path.name for path in contents(Path(output))} >= {"README.md", "config.json", "model.safetensors"}
