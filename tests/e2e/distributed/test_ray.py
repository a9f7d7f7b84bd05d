"""Ray makes the shards that this process makes, byte for byte; and what goes wrong there is one line here."""

import sys
from pathlib import Path

import pytest
import torch

from freemvmt.cli import main
from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.export.ray import on_ray
from freemvmt.export.vectors import encode
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.optional import require

from bundles import write_corpus
from refusals import refusal

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, many of them in its shutdown


@pytest.fixture
def file(corpus: dict[str, Document], tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus.jsonl", corpus.values())


@pytest.mark.usefixtures("ray_may_start")
def test_ray_makes_the_same_bytes_and_only_what_is_missing(
    tiny_model: TwoTowersModel, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model.save(tmp_path / "model")
    by_ray, here = tmp_path / "ray", tmp_path / "here"
    command = ["encode", str(tmp_path / "model"), str(file), "--shard", "100", "--stored", "fp16"]
    assert main([*command, "--output", str(here)]) == 0
    assert main([*command, "--output", str(by_ray), "--engine", "ray"]) == 0
    names = sorted(path.name for path in here.iterdir())
    assert names == sorted(path.name for path in by_ray.iterdir())
    assert len(names) == 12
    for name in names:
        assert (by_ray / name).read_bytes() == (here / name).read_bytes()
    (by_ray / "part-00003.parquet").unlink()
    (by_ray / "part-00007.parquet").write_bytes(b"damaged")
    capsys.readouterr()
    assert main([*command, "--output", str(by_ray), "--engine", "ray"]) == 0
    said = capsys.readouterr().out
    assert "2 of 11 shards made" in said
    assert [line.split()[1] for line in said.splitlines() if line.startswith("encoding")] == [
        "part-00003.parquet:",
        "part-00007.parquet:",
    ]
    for name in names:
        assert (by_ray / name).read_bytes() == (here / name).read_bytes()


@pytest.mark.usefixtures("ray_may_start")
def test_another_model_under_the_name_is_refused(tiny_model: TwoTowersModel, file: Path, tmp_path: Path) -> None:
    other = tiny_model.cut(torch.eye(8, tiny_model.dim))
    other.save(tmp_path / "other")
    engine = on_ray(tiny_model, str(tmp_path / "other"), tmp_path / "vectors", "documents", "fp32")
    with pytest.raises(UserError, match=r"another model|Ray has failed"):
        encode(tiny_model, str(file), tmp_path / "vectors", engine=engine)


def test_an_address_without_ray_is_refused(
    tiny_model: TwoTowersModel, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model.save(tmp_path / "model")
    line = refusal(
        capsys, tmp_path, "encode", tmp_path / "model", file, "--output", tmp_path / "v", "--ray-address", "a:1"
    )
    assert "--ray-address is for --engine ray" in line


def test_ray_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"install two-towers\[ray\]"):
        require("ray")
