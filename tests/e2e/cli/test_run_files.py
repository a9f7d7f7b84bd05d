"""Run files that the commands write and read."""

import json
from pathlib import Path

import pytest

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.model import TwoTowersModel

from beir_folder import beir


def test_the_command_writes_what_it_can_read_and_names_what_ran(
    tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {"my file.txt": ("", "red apple"), "notes 2.md": ("", "blue whale"), "plain": ("", "green pear")}
    folder = beir(tmp_path / "c", texts, {"q 1": "apple", "q2": "pear"}, ["q 1\tmy file.txt\t1", "q2\tplain\t1"])
    TwoTowersModel(ModelConfig(base=tiny_base)).save(tmp_path / "model")
    out, again = tmp_path / "out.run", tmp_path / "again.run"
    for model, flags, tag in (
        ("bm25", [], "bm25"),
        ("bm25", ["--method", "hybrid"], "bm25"),
        (str(tmp_path / "model"), [], "dense"),
        (str(tmp_path / "model"), ["--method", "bm25"], "bm25"),
        (str(tmp_path / "model"), ["--method", "hybrid"], "hybrid"),
    ):
        assert main(["evaluate", model, str(folder), *flags, "--run", str(out)]) == 0
        assert {line.split("\t")[5] for line in out.read_text().splitlines()} == {tag}
        capsys.readouterr()
        assert main(["compare", str(out), model, str(folder), *flags, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["comparison"]
        assert (found["difference"], found["ties"]) == (0.0, 2)
        assert main(["evaluate", str(out), str(folder), "--run", str(again)]) == 0
        assert again.read_bytes() == out.read_bytes()
